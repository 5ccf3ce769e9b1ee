#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QDoubleSpinBox>
#include <QGroupBox>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QSpinBox>
#include <QTabWidget>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>
#include <QTimer>
#include <QToolButton>

#include "app/actions.h"
#include "app/auto_dialog.h"
#include "app/main_window.h"
#include "app/overrides_dialog.h"
#include "app/theme.h"
#include "app/variant_dialog.h"
#include "app/workbench.h"
#include "backend/evaluation/published_numbers.h"
#include "backend/method_registry.h"
#include "backend/model/threads.h"
#include "sessions/session_document.h"
#include "widgets/models/layer_setups_model.h"
#include "widgets/models/published_model.h"
#include "widgets/models/sensitivity_model.h"
#include "widgets/param_form.h"
#include "widgets/views/pareto_view.h"
#include "widgets/views/results_view.h"

using namespace qs;

namespace {

constexpr int kPatience = 60000;

/// With QUANTOSCOPE_SHOTS set to a folder, what the test looks at is saved there in both themes.
void shoot(QWidget& widget, const char* name) {
  const QString folder = qEnvironmentVariable("QUANTOSCOPE_SHOTS");
  if (folder.isEmpty()) return;
  for (const auto& [theme, id] : {std::pair(Theme::Dark, "dark"), std::pair(Theme::Light, "light")}) {
    apply_theme(theme);
    QCoreApplication::processEvents();
    widget.grab().save(QStringLiteral("%1/%2-%3.png").arg(folder, QLatin1String(name), QLatin1String(id)));
  }
}

template <typename Widget>
Widget* child(QWidget& parent, const char* name) {
  return parent.findChild<Widget*>(QLatin1String(name));
}

/// Chooses an entry of a list by the keyboard, as typing its beginning does.
void type_choice(QComboBox* box, const char* beginning) {
  box->setFocus();
  QTest::keyClicks(box, QLatin1String(beginning));
}

void type_number(QAbstractSpinBox* box, const char* number) {
  box->setFocus();
  box->selectAll();
  QTest::keyClicks(box, QLatin1String(number));
  QTest::keyClick(box, Qt::Key_Tab);
}

}  // namespace

class TestPlans : public QObject {
  Q_OBJECT
  QTemporaryDir data_;
  std::unique_ptr<Workbench> workbench_;

  VariantEntry plan(const QString& kv, const QString& weights = {}) const {
    return {QStringLiteral("plan-under-test"), QStringLiteral("A plan"), QStringLiteral("sample-hf"), weights, kv};
  }

 private Q_SLOTS:
  void initTestCase() {
    qputenv("QUANTOSCOPE_DATA", data_.path().toUtf8());
    qputenv("QUANTOSCOPE_SETTINGS", data_.filePath(QStringLiteral("settings.ini")).toUtf8());
    set_threads(1);
    apply_theme(Theme::Light);
  }

  void init() {
    workbench_ = std::make_unique<Workbench>();
    workbench_->openSample();
    workbench_->jobs().cancelAll();  // no test of plans needs the captures
  }

  void cleanup() { workbench_.reset(); }

  void aPlanHoldsBothSides() {
    VariantDialog dialog(*workbench_, QStringLiteral("sample-hf"), nullptr);
    dialog.show();
    QTRY_VERIFY_WITH_TIMEOUT(child<QLabel>(dialog, "planCost")->isVisible(), kPatience);
    QCOMPARE(dialog.entry().kv, QStringLiteral("kivi"));
    const QString cost = child<QLabel>(dialog, "planCost")->text().remove(u',');
    QVERIFY2(cost.contains(QStringLiteral("3072 B in 16 bits")), qPrintable(cost));
    shoot(dialog, "plan-kv");
    child<QTabWidget>(dialog, "planSides")->setCurrentIndex(1);
    type_choice(child<QComboBox>(dialog, "planWeightMethod"), "GPTQ");
    QCOMPARE(dialog.entry().weights, QStringLiteral("gptq"));
    QCOMPARE(dialog.entry().kv, QStringLiteral("kivi"));
    QCOMPARE(dialog.entry().name, QStringLiteral("gptq + kivi"));
    QVERIFY(child<QLabel>(dialog, "planCalibrationNote")->text().contains(QStringLiteral("sample-hf-512")));
    shoot(dialog, "plan-weights");
    QTest::mouseClick(child<QPushButton>(dialog, "planAccept"), Qt::LeftButton);
    QCOMPARE(dialog.QDialog::result(), int(QDialog::Accepted));
    const QString id = workbench_->addVariant(dialog.entry());
    QCOMPARE(workbench_->variantEntry(id)->weights, QStringLiteral("gptq"));
  }

  void methodsAreJoinedByAPlusSign() {
    VariantDialog dialog(*workbench_, plan(QStringLiteral("kivi:residual_length=64")), nullptr);
    dialog.show();
    auto* next = child<QComboBox>(dialog, "planNext");
    QVERIFY(next->isVisible());
    type_choice(next, "SCOPE");
    auto* form = child<ParamForm>(dialog, "planNextForm");
    QVERIFY(form->isVisible());
    type_number(form->findChild<QSpinBox*>(QStringLiteral("prompt")), "96");
    type_number(form->findChild<QSpinBox*>(QStringLiteral("recent")), "32");
    type_number(form->findChild<QSpinBox*>(QStringLiteral("window")), "64");
    const std::optional<Setup> setup = parse_kv_setup(dialog.entry().kv.toStdString());
    QVERIFY(setup && setup->method == "kivi" && setup->then.size() == 1);
    QCOMPARE(std::get<int>(setup->then.front().params.at("prompt")), 96);
    QCOMPARE(std::get<int>(setup->params.at("residual_length")), 64);
    shoot(dialog, "plan-chain");
    // The same line fills the same forms.
    VariantDialog again(*workbench_, plan(dialog.entry().kv), nullptr);
    QCOMPARE(again.entry().kv, dialog.entry().kv);
  }

  void theFreeParameterMeetsTheTarget() {
    VariantDialog dialog(*workbench_, plan(QStringLiteral("kivi:residual_length=256")), nullptr);
    dialog.show();
    SetupEditor& cache = dialog.editor(PlanSide::Kv);  // the other side has such a row too
    auto* run = child<QPushButton>(cache, "solveRun");
    QTRY_VERIFY_WITH_TIMEOUT(run->isEnabled(), kPatience);
    dialog.focusSolve();
    QCOMPARE(child<QComboBox>(cache, "solveKey")->currentText(), QStringLiteral("group_size"));
    type_number(child<QDoubleSpinBox>(cache, "solveTarget"), "3.5");
    QTest::mouseClick(run, Qt::LeftButton);
    auto* answer = child<QLabel>(cache, "solveAnswer");
    QTRY_VERIFY_WITH_TIMEOUT(answer->text().startsWith(QStringLiteral("group_size = 64:")), kPatience);
    QVERIFY2(answer->text().contains(QStringLiteral("next more: group_size = 32:")), qPrintable(answer->text()));
    QCOMPARE(dialog.entry().kv, QStringLiteral("kivi:group_size=64,residual_length=256"));
    QVERIFY(child<QToolButton>(cache, "group_size_reset")->isVisible());  // marked as different from the preset
    shoot(dialog, "plan-solved");

    type_number(child<QDoubleSpinBox>(cache, "solveTarget"), "1");
    QTest::mouseClick(run, Qt::LeftButton);
    QTRY_VERIFY_WITH_TIMEOUT(answer->text().contains(QStringLiteral("cannot be reached")), kPatience);
    QCOMPARE(dialog.entry().kv, QStringLiteral("kivi:group_size=64,residual_length=256"));
  }

  void aMethodWithItsOwnTargetSaysSo() {
    VariantDialog dialog(*workbench_, plan({}, QStringLiteral("spqr")), nullptr);
    dialog.show();
    const QList<QLabel*> answers = dialog.findChildren<QLabel*>(QStringLiteral("solveAnswer"));
    QVERIFY(std::any_of(answers.begin(), answers.end(), [](const QLabel* label) {
      return label->text().contains(QStringLiteral("can also meet a target"));
    }));
  }

  void publishedNumbersStandBelowTheForm() {
    VariantDialog dialog(*workbench_, plan(QStringLiteral("kivi")), nullptr);
    dialog.show();
    auto* table = child<QTableView>(dialog, "planPublished");
    QTRY_VERIFY_WITH_TIMEOUT(table->model()->rowCount() > 0, kPatience);
    const auto cell = [&](int row, int column) { return table->model()->index(row, column).data().toString(); };
    QCOMPARE(cell(0, PublishedModel::Label), QStringLiteral("KIVI-2"));
    auto* form = dialog.editor(PlanSide::Kv).findChild<ParamForm*>();
    form->setValues({{"k_bits", 4}, {"v_bits", 4}});
    QCOMPARE(cell(0, PublishedModel::Label), QStringLiteral("KIVI-4"));
    const QString tip = table->model()->index(0, 0).data(Qt::ToolTipRole).toString();
    QVERIFY2(tip.contains(QStringLiteral("aiha-lab/qllm-infer")) && tip.contains(QStringLiteral("2048 tokens")),
             qPrintable(tip));
  }

  void calibrationsReadAnotherTextThanEvaluations() {
    VariantEntry entry = plan(QStringLiteral("kvquant:bits=3"));
    QCOMPARE(workbench_->evaluationText(entry.modelId), QStringLiteral("sample:texts/sample-valid.txt"));
    QCOMPARE(workbench_->calibrationText(entry), QStringLiteral("sample:texts/wiki.test.raw"));
    VariantDialog dialog(*workbench_, entry, nullptr);
    dialog.show();
    auto* text = child<QComboBox>(dialog, "planCalibration");
    QVERIFY(text->isVisible());
    QVERIFY2(text->currentText().startsWith(QStringLiteral("wiki.test.raw")), qPrintable(text->currentText()));
    QVERIFY(dialog.entry().calibration.isEmpty());
    text->setFocus();
    QTest::keyClick(text, Qt::Key_Down);
    QCOMPARE(dialog.entry().calibration, QStringLiteral("sample:texts/sample-valid.txt"));
    QCOMPARE(workbench_->calibrationText(dialog.entry()), QStringLiteral("sample:texts/sample-valid.txt"));
    // A method that learns nothing has no text.
    dialog.editor(PlanSide::Kv).setLine(QStringLiteral("kivi"));
    QVERIFY(!text->isVisible());
    QVERIFY(dialog.entry().calibration.isEmpty());
  }

  void aBuiltPlanSaysWhatItLearnedFrom() {
    QFile whole(QStringLiteral(QS_RESOURCES "/texts/sample-valid.txt")),
        beginning(data_.filePath(QStringLiteral("short.txt")));
    QVERIFY(whole.open(QIODevice::ReadOnly) && beginning.open(QIODevice::WriteOnly));
    beginning.write(whole.read(3000));
    beginning.close();
    VariantEntry entry = plan(QStringLiteral("skvq:group_size=64,window=32,sink_tokens=0"));
    entry.id.clear();
    entry.calibration = beginning.fileName();
    const QString id = workbench_->addVariant(entry);
    QVERIFY(!workbench_->calibrationNote(id));
    workbench_->jobs().start(
        QStringLiteral("build"), {}, JobLane::Compute,
        [this, id](const JobContext& job) { workbench_->buildVariant(id, job); }, this,
        [](const JobStatus& status) { QVERIFY2(status.state == JobState::Succeeded, qPrintable(status.message)); });
    QTRY_VERIFY_WITH_TIMEOUT(workbench_->calibrationNote(id), 2 * kPatience);
    const CalibrationNote note = *workbench_->calibrationNote(id);
    QCOMPARE(note.text, QStringLiteral("short.txt"));
    QVERIFY(note.windows > 0 && note.tokens >= note.windows && !note.made.isEmpty());
    VariantDialog dialog(*workbench_, *workbench_->variantEntry(id), nullptr);
    dialog.show();
    QVERIFY2(child<QLabel>(dialog, "planCalibrationNote")->text().contains(QStringLiteral("short.txt")),
             qPrintable(child<QLabel>(dialog, "planCalibrationNote")->text()));
  }

  void layersAreChangedTogether() {
    MainWindow window(*workbench_);
    window.setProperty("quiet", true);
    window.resize(1100, 700);
    window.show();
    const QString id = workbench_->addVariant(plan(QStringLiteral("kivi")));
    auto* plans = window.findChild<QComboBox*>(QStringLiteral("planCombo"));
    QVERIFY(plans);
    plans->setCurrentIndex(plans->findData(id));
    bool seen = false;
    QTimer poll;
    connect(&poll, &QTimer::timeout, this, [&] {
      auto* dialog = qobject_cast<OverridesDialog*>(QApplication::activeModalWidget());
      if (!dialog || seen) return;
      seen = true;
      auto* range = child<QLineEdit>(*dialog, "overridesRange");
      range->setFocus();
      QTest::keyClicks(range, QStringLiteral("1-2,5"));
      QTest::keyClick(range, Qt::Key_Return);
      QCOMPARE(child<QLabel>(*dialog, "overridesWhich")->text(),
               QStringLiteral("Layers 1-2,5; a change applies to all of them"));
      type_number(dialog->findChild<QSpinBox*>(QStringLiteral("k_bits")), "4");
      auto* table = child<QTableView>(*dialog, "overridesTable");
      const auto line_of = [&](int layer) {
        return table->model()->index(layer, LayerSetupsModel::Line).data().toString();
      };
      QCOMPARE(line_of(0), QStringLiteral("kivi"));
      QCOMPARE(line_of(2), QStringLiteral("kivi:k_bits=4"));
      QCOMPARE(line_of(5), QStringLiteral("kivi:k_bits=4"));
      shoot(*dialog, "overrides");
      // A value that does not fit is named at its layers and cannot be used.
      auto* accept = child<QPushButton>(*dialog, "overridesAccept");
      auto* residual = dialog->findChild<QSpinBox*>(QStringLiteral("residual_length"));
      type_number(residual, "40");
      QVERIFY(!accept->isEnabled());
      QVERIFY(table->model()->index(1, LayerSetupsModel::Issue).data().toString().contains(QStringLiteral("multiple")));
      QVERIFY(table->model()->index(0, LayerSetupsModel::Issue).data().toString().isEmpty());
      shoot(*dialog, "overrides-problem");
      type_number(residual, "128");
      QVERIFY(accept->isEnabled());
      QTest::mouseClick(accept, Qt::LeftButton);
    });
    poll.start(50);
    window.actions().action(QStringLiteral("quantize.overrides"))->trigger();
    const QString expected = QStringLiteral("layers:0=kivi;1-2=kivi:k_bits=4;3-4=kivi;5=kivi:k_bits=4");
    QTRY_COMPARE_WITH_TIMEOUT(workbench_->variantEntry(id)->kv, expected, kPatience);
    QVERIFY(seen);
    workbench_->document().undo();
    QCOMPARE(workbench_->variantEntry(id)->kv, QStringLiteral("kivi"));
    workbench_->document().redo();
    QCOMPARE(workbench_->variantEntry(id)->kv, expected);
    QVERIFY(workbench_->variantEntry(id)->weights.isEmpty());
  }

  void aPerLayerPlanCanBeOpenedAgain() {
    const QString line = QStringLiteral("layers:0-1=kivi:k_bits=4;2-4=rtn;5=none");
    VariantDialog dialog(*workbench_, plan(line), nullptr);
    dialog.show();
    QVERIFY(dialog.editor(PlanSide::Kv).differsByLayer());
    QVERIFY(child<QLabel>(dialog, "planLayersText")->text().contains(line));
    QCOMPARE(dialog.entry().kv, line);
    ArchitectureSpec spec;
    spec.layers = 6;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 64;
    OverridesDialog layers(PlanSide::Kv, line, bits_shape(spec, 1024), nullptr);
    layers.show();
    QCOMPARE(layers.line(), line);
    auto* table = child<QTableView>(layers, "overridesTable");
    QCOMPARE(table->model()->index(3, LayerSetupsModel::Method).data().toString(), QStringLiteral("RTN"));
    QCOMPARE(table->model()->index(5, LayerSetupsModel::Line).data().toString(), QStringLiteral("none"));
    QCOMPARE(table->model()->index(5, LayerSetupsModel::Bits).data(Qt::EditRole).toDouble(), 16.0);
    // All layers alike become a plain setup again.
    auto* range = child<QLineEdit>(layers, "overridesRange");
    range->setFocus();
    QTest::keyClicks(range, QStringLiteral("*"));
    QTest::keyClick(range, Qt::Key_Return);
    type_number(layers.findChild<QSpinBox*>(QStringLiteral("k_bits")), "3");
    QCOMPARE(layers.line(), QStringLiteral("kivi:k_bits=3"));
    // Choosing a method leaves the per-layer line.
    type_choice(child<QComboBox>(dialog, "planMethod"), "RTN");
    QCOMPARE(dialog.entry().kv, QStringLiteral("rtn"));
  }

  void aSearchIsMeasuredCancelledAndGoesOn() {
    AutoDialog dialog(*workbench_, QStringLiteral("sample-hf"), nullptr);
    dialog.show();
    auto* run = child<QPushButton>(dialog, "autoRun");
    auto* list = child<QListWidget>(dialog, "autoCandidates");
    QTRY_VERIFY_WITH_TIMEOUT(run->isEnabled(), kPatience);
    for (int row = 0; row < list->count(); ++row) list->item(row)->setCheckState(Qt::Unchecked);
    QVERIFY(!run->isEnabled());
    QVERIFY(!child<QPushButton>(dialog, "autoAdd")->isEnabled());
    auto* line = child<QLineEdit>(dialog, "autoCandidate");
    for (const char* setup : {"kivi:k_bits=2,v_bits=2,group_size=16,residual_length=16",
                              "kivi:k_bits=8,v_bits=8,group_size=16,residual_length=16"}) {
      line->setFocus();
      QTest::keyClicks(line, QLatin1String(setup));
      QTest::mouseClick(child<QPushButton>(dialog, "autoAddCandidate"), Qt::LeftButton);
    }
    QVERIFY(run->isEnabled());
    type_number(child<QSpinBox>(dialog, "autoWindow"), "96");
    type_number(child<QSpinBox>(dialog, "autoTokens"), "2048");
    type_number(child<QDoubleSpinBox>(dialog, "autoBudget"), "7");
    const QString budget = child<QLabel>(dialog, "autoBudgetText")->text().remove(u',');
    QVERIFY2(budget.contains(QStringLiteral("1344 B a token")), qPrintable(budget));
    auto* unit = child<QComboBox>(dialog, "autoUnit");
    unit->setCurrentIndex(1);
    QCOMPARE(child<QDoubleSpinBox>(dialog, "autoBudget")->value(), 1344.0);

    auto* summary = child<QLabel>(dialog, "autoSummary");
    QTest::mouseClick(run, Qt::LeftButton);
    auto* cancel = child<QPushButton>(dialog, "autoCancel");
    QVERIFY(cancel->isEnabled());
    QTest::mouseClick(cancel, Qt::LeftButton);
    QTRY_VERIFY_WITH_TIMEOUT(summary->text().startsWith(QStringLiteral("Cancelled")), kPatience);
    QVERIFY(!dialog.plan() && !child<QPushButton>(dialog, "autoAdd")->isEnabled());

    QTest::mouseClick(run, Qt::LeftButton);
    QTRY_VERIFY_WITH_TIMEOUT(dialog.plan(), 4 * kPatience);
    const KvAutoResult first = *dialog.result();
    QVERIFY(first.bits <= 7.0 + 1e-3);
    auto* table = child<QTableView>(dialog, "autoTable");
    QCOMPARE(table->model()->rowCount(), 6);
    QCOMPARE(table->model()->columnCount(), 2);
    for (int layer = 0; layer < 6; ++layer) {
      int chosen = 0;
      for (int column = 0; column < 2; ++column)
        chosen += table->model()->index(layer, column).data(SensitivityModel::ChosenRole).toBool();
      QCOMPARE(chosen, 1);
    }
    shoot(dialog, "auto");
    const VariantEntry entry = *dialog.plan();
    QCOMPARE(entry.kv.toStdString(), first.setup);
    QVERIFY(parse_kv_setup(first.setup).has_value());

    QTest::mouseClick(run, Qt::LeftButton);
    QTRY_VERIFY_WITH_TIMEOUT(dialog.plan(), kPatience);
    QCOMPARE(dialog.result()->measured, std::int64_t(0));
    QCOMPARE(dialog.result()->setup, first.setup);
    QCOMPARE(dialog.result()->measured_kl, first.measured_kl);
    QVERIFY2(summary->text().contains(QStringLiteral("remembered")), qPrintable(summary->text()));
  }

  void publishedNumbersStandApartFromOurs() {
    std::vector<PublishedNumber> numbers = read_published_numbers(QS_RESOURCES "/published");
    ResultsView view(workbench_->selection());
    view.resize(1000, 800);
    EvalReport report;
    report.variant = {"sample-hf", {}, "kivi:k_bits=4,v_bits=4"};
    report.kv_bits = 5.0;
    report.fingerprint = "one";
    report.tasks = {{"ppl", "perplexity", 9.5, 0.1, 2, 1.0, {9.4, 9.6}}};
    view.setReports({report});
    view.show();
    auto* box = child<QGroupBox>(view, "results_published_box");
    QVERIFY(!box->isVisible());
    view.setPublished(numbers, all_methods());
    QVERIFY(box->isVisible());
    PublishedModel& rows = view.published();
    QCOMPARE(QString::fromStdString(rows.at(0).label), QStringLiteral("KIVI-4"));
    bool grey = false;
    for (int row = 0; row < rows.rowCount(); ++row) {
      QCOMPARE(rows.at(row).method, std::string("kivi"));
      const bool marked = rows.index(row, 0).data(Qt::ForegroundRole).isValid();
      QCOMPARE(marked, rows.at(row).secondary);
      QCOMPARE(rows.index(row, PublishedModel::Value).data().toString().contains(QStringLiteral("unchecked")), marked);
      grey |= marked;
    }
    QVERIFY(grey);
    // One run is one point: published values are on no axis of ours.
    int points = 0;
    for (const PlotSeries& series : view.pareto().spec().series) points += int(series.points.size());
    QCOMPARE(points, 1);
    shoot(view, "results");
    QTest::mouseClick(child<QCheckBox>(view, "results_published_shown"), Qt::LeftButton);
    QVERIFY(!box->isVisible());
    QCOMPARE(view.saveSettings().value(QStringLiteral("published")).toBool(), false);
  }

  void theTextOfAnEvaluationIsChosen() {
    EvaluateDialog dialog(*workbench_, {}, nullptr);
    dialog.show();
    QVERIFY(dialog.text().isEmpty());
    auto* text = child<QComboBox>(dialog, "evaluateText");
    text->setCurrentIndex(text->findText(QStringLiteral("wiki.test.raw")));
    QCOMPARE(dialog.text(), QStringLiteral("sample:texts/wiki.test.raw"));
    shoot(dialog, "evaluate");
  }
};

QTEST_MAIN(TestPlans)
#include "tst_plans.moc"
