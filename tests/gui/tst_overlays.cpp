#include <QCheckBox>
#include <QComboBox>
#include <QDir>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>
#include <QToolButton>
#include <cmath>

#include "app/docks/inspector_dock.h"
#include "app/presenters/distribution_presenter.h"
#include "app/presenters/error_presenter.h"
#include "app/presenters/locality_presenter.h"
#include "app/presenters/outlier_presenter.h"
#include "app/theme.h"
#include "app/workbench.h"
#include "sessions/session_document.h"
#include "widgets/models/plain_table_model.h"
#include "widgets/views/distribution_view.h"
#include "widgets/views/error_heatmap.h"
#include "widgets/views/locality_view.h"
#include "widgets/views/outlier_view.h"

using namespace qs;

namespace {

constexpr int kPatience = 90'000, kChannels = 128;

/// A variant of the sample's first model for each method.
const QStringList kSetups = {
    QStringLiteral("kivi:bits=2,group_size=32,residual_length=32"),
    QStringLiteral("skvq:k_bits=2,v_bits=2,group_size=32,window=32,sink_tokens=5,pre_rope=false,store=e4m3"),
    QStringLiteral("qaq:n_bits_min=1,n_bits_max=4,outliers_ratio=0.02"),
    QStringLiteral("kvquant:bits=3"),
    QStringLiteral("scope:prompt=128,window=64,recent=32"),
    QStringLiteral("decoquant:bits=4,n2=16")};

}  // namespace

/// What methods did, drawn over the views: real model, real capture, every method.
class OverlaysTest : public QObject {
  Q_OBJECT

  void choose(const QString& method) {
    QString id;
    for (const VariantEntry& entry : workbench_->session().variants)
      if (entry.kv.startsWith(method) && entry.id.startsWith(QStringLiteral("ov-"))) id = entry.id;
    QVERIFY(!id.isEmpty());
    workbench_->selection().edit([&](Selection& s) {
      s.variantA = QStringLiteral("outliers-fp");
      s.variantB = id;
      s.layer = 1;
      s.tensor = QStringLiteral("key");
      s.channelBegin = s.channelEnd = s.tokenBegin = s.tokenEnd = -1;
    });
  }
  void grab(QWidget& view, const QString& name) {
    const QString folder = qEnvironmentVariable("QUANTOSCOPE_PICTURES");
    if (folder.isEmpty()) return;
    for (const Theme theme : {Theme::Dark, Theme::Light}) {
      apply_theme(theme);
      QCoreApplication::processEvents();
      view.grab().save(QDir(folder).filePath(QStringLiteral("%1-%2.png").arg(name, theme_id(theme))));
    }
  }
  void idle() {
    // The hub announces after 16 ms, and an answer travels through the event loop once more.
    for (int i = 0; i < 3; ++i) {
      QTest::qWait(60);
      QTRY_VERIFY_WITH_TIMEOUT(!workbench_->jobs().busy(), kPatience);
    }
  }

 private Q_SLOTS:
  void initTestCase() {
    qputenv("XDG_DATA_HOME", folder_.path().toUtf8());
    qputenv("XDG_CACHE_HOME", folder_.path().toUtf8());
    workbench_ = std::make_unique<Workbench>();
    workbench_->openSample();
    for (const QString& setup : kSetups) {
      const QString method = setup.section(u':', 0, 0);
      workbench_->addVariant(
          {QStringLiteral("ov-") + method, method.toUpper(), QStringLiteral("sample-outliers-hf"), {}, setup});
    }
    workbench_->ensureCaptures();
    idle();
  }
  void cleanupTestCase() { workbench_.reset(); }

  void theOutlierViewDrawsWhatTheQuantizerDoes() {
    OutlierView view(workbench_->selection());
    OutlierPresenter presenter(*workbench_, view);
    view.resize(1280, 760);
    view.show();
    choose(QStringLiteral("kivi"));
    idle();
    HeatmapPanel& panel = view.heatmap(QStringLiteral("detail"))->panel();
    QVERIFY(panel.x.groups.empty());
    auto* box = view.findChild<QComboBox*>(QStringLiteral("quantizer"));
    box->setFocus();
    QTest::keyClick(box, Qt::Key_Down);
    idle();
    QCOMPARE(view.quantizer(), OutlierView::Quantizer::AsTheyLie);
    // Keys of KIVI: 32 tokens of one channel share a scale; the newest tokens wait in full precision.
    QCOMPARE(panel.x.groups.size(), std::size_t(kChannels - 1));
    QCOMPARE(panel.y.groups.front(), 32.0);
    QVERIFY(panel.x.groupsTitle.contains(QStringLiteral("32 tokens × 1 channel")));
    const LinePanel& ranked = view.lines(QStringLiteral("ranked"))->panel();
    QCOMPARE(ranked.series.back().y.size(), std::size_t(kChannels));
    // The range of a channel's scale goes as far as its largest key, up to rounding of the ends.
    for (std::size_t rank = 0; rank < 8; ++rank)
      QVERIFY(std::fabs(ranked.series.back().y[rank] / ranked.series.front().y[rank] - 1.0f) < 0.02f);
    grab(view, QStringLiteral("outliers-kivi"));
  }

  void columnsStandInTheMethodsOrder() {
    OutlierView view(workbench_->selection());
    OutlierPresenter presenter(*workbench_, view);
    view.resize(1280, 760);
    view.show();
    choose(QStringLiteral("skvq"));
    idle();
    HeatmapCanvas* detail = view.heatmap(QStringLiteral("detail"));
    const PyramidPtr before = detail->panel().data();
    view.setQuantizerShown(OutlierView::Quantizer::InItsOrder);
    idle();
    HeatmapPanel& panel = detail->panel();
    QVERIFY(panel.x.title.startsWith(QStringLiteral("original channel, in the order of SKVQ")));
    QCOMPARE(panel.bands.size(), std::size_t(2));
    QVERIFY(panel.bands.front().look == PanelBand::Look::Sinks);
    QCOMPARE(panel.bands.front().end, 5.0);
    QSet<qint64> seen;
    for (std::int64_t place = 0; place < kChannels; ++place) {
      const qint64 channel = panel.x.label(place).toLongLong();
      seen.insert(channel);
      QCOMPARE(panel.data()->at(7, place), before->at(7, channel));
    }
    QCOMPARE(seen.size(), qsizetype(kChannels));
    // A click chooses the original channel, and the outline stays on the clicked column.
    detail->setCursorCell({20, 3});
    QTest::keyClick(detail, Qt::Key_Return);
    QCOMPARE(workbench_->selection().selection().channelBegin, panel.x.label(3).toInt());
    QCOMPARE(panel.selectedCol, std::int64_t{3});
    QSignalSpy readout(&view, &ViewBase::readoutChanged);
    detail->setCursorCell({20, 4});
    QVERIFY(readout.last().first().toString().contains(QStringLiteral("(global %1)").arg(panel.x.label(4))));
    grab(view, QStringLiteral("outliers-skvq"));
    view.setQuantizerShown(OutlierView::Quantizer::None);
    idle();
    QVERIFY(panel.bands.empty() && panel.x.groups.empty());
  }

  void picksAndBeforeRopeAreSaid() {
    OutlierView view(workbench_->selection());
    OutlierPresenter presenter(*workbench_, view);
    view.resize(1280, 760);
    view.show();
    choose(QStringLiteral("kvquant"));
    view.setQuantizerShown(OutlierView::Quantizer::AsTheyLie);
    idle();
    HeatmapPanel& panel = view.heatmap(QStringLiteral("detail"))->panel();
    QVERIFY2(panel.note.contains(QStringLiteral("quantizes keys before RoPE")), qPrintable(panel.note));
    view.setTensor(QStringLiteral("key_pre_rope"));
    idle();
    QCOMPARE(panel.marks.size(), std::size_t(1));
    QVERIFY(panel.marks.front().look == PanelMarks::Look::Picks);
    const auto picked = static_cast<double>(panel.marks.front().cells.size());
    QVERIFY2(picked > 0 && picked < 0.05 * 512 * kChannels, qPrintable(QString::number(picked)));
    grab(view, QStringLiteral("outliers-kvquant"));
  }

  void theErrorViewShowsGroupsPicksAndEvictions() {
    ErrorHeatmap view(workbench_->selection());
    ErrorPresenter presenter(*workbench_, view);
    view.resize(1280, 760);
    view.show();
    HeatmapPanel& panel = view.heatmap(QStringLiteral("detail"))->panel();
    auto* grid = view.findChild<QComboBox*>(QStringLiteral("grid"));
    grid->setCurrentIndex(1);
    choose(QStringLiteral("skvq"));
    idle();
    QVERIFY(!panel.x.groups.empty());
    QCOMPARE(panel.bands.size(), std::size_t(2));
    grab(view, QStringLiteral("error-skvq"));
    choose(QStringLiteral("qaq"));
    idle();
    // Widths of its own for every vector: the strip counts them, and each is among the allowed ones.
    auto* codes = view.findChild<CodeStripCanvas*>(QStringLiteral("codes"));
    QTRY_VERIFY_WITH_TIMEOUT(codes->panel().byWidth, kPatience);
    QVERIFY(codes->panel().codes.counts.size() <= 5);
    QVERIFY(!panel.marks.empty());
    grab(view, QStringLiteral("error-qaq"));
    choose(QStringLiteral("scope"));
    idle();
    auto* evicted = view.findChild<QCheckBox*>(QStringLiteral("evicted"));
    QTRY_VERIFY_WITH_TIMEOUT(evicted->isEnabled(), kPatience);
    QVERIFY(std::any_of(panel.marks.begin(), panel.marks.end(), [](const PanelMarks& marks) {
      return marks.look == PanelMarks::Look::Hatched && marks.label.contains(QStringLiteral("75 %"));
    }));
    grab(view, QStringLiteral("error-scope"));
    QTest::mouseClick(evicted, Qt::LeftButton, {}, QPoint(8, evicted->height() / 2));
    QVERIFY(panel.marks.empty());
  }

  void theDistributionCarriesItsGrid() {
    DistributionView view(workbench_->selection());
    DistributionPresenter presenter(*workbench_, view);
    view.resize(1000, 600);
    view.show();
    choose(QStringLiteral("kivi"));
    workbench_->selection().edit([](Selection& s) {
      s.tensor = QStringLiteral("value");
      s.tokenBegin = 100;
      s.tokenEnd = 101;
    });
    auto* scope = view.findChild<QComboBox*>(QStringLiteral("distribution_scope"));
    scope->setFocus();
    QTest::keyClick(scope, Qt::Key_End);
    idle();
    QCOMPARE(view.scope(), DistributionScope::Token);
    // A token has 4 groups of 32 channels with 4 levels each, and nothing lies outside of its range.
    QCOMPARE(view.plot()->spec().rug.size(), qsizetype(16));
    QVERIFY2(view.accessibleSummary().contains(QStringLiteral("1 token × 32 channels, 4 of them here")),
             qPrintable(view.accessibleSummary()));
    QVERIFY(view.accessibleSummary().contains(QStringLiteral("0.00 % outside")));
    QCOMPARE(view.findChild<CodeStripCanvas*>(QStringLiteral("distribution_codes"))->panel().codes.counts.size(),
             std::size_t(4));
    grab(view, QStringLiteral("distribution-kivi"));
    choose(QStringLiteral("kvquant"));
    scope->setFocus();
    QTest::keyClick(scope, Qt::Key_Up);
    idle();
    QCOMPARE(view.scope(), DistributionScope::Channel);
    QCOMPARE(view.plot()->spec().rug.size(), qsizetype(8));
    QVERIFY(view.accessibleSummary().contains(QStringLiteral("codebook")));
    grab(view, QStringLiteral("distribution-kvquant"));
  }

  void theWindowOfTheMethodIsMarkedAndCanBeChanged() {
    LocalityView view(workbench_->selection());
    LocalityPresenter presenter(*workbench_, view);
    view.resize(1280, 760);
    view.show();
    choose(QStringLiteral("skvq"));
    idle();
    const LinePanel& curve = view.lines(QStringLiteral("curve"))->panel();
    QVERIFY2(curve.caption.startsWith(QStringLiteral("Mass outside the protected window: ")),
             qPrintable(curve.caption));
    QVERIFY(std::any_of(curve.marks.begin(), curve.marks.end(), [](const LineMark& mark) {
      return mark.x == 32.0 && mark.label.contains(QStringLiteral("first 5, newest 32"));
    }));
    grab(view, QStringLiteral("attention-skvq"));
    auto* apply = view.findChild<QToolButton*>(QStringLiteral("applyWindow"));
    QVERIFY(apply->isEnabled());
    const qsizetype before = workbench_->session().variants.size();
    view.setWindow(64);
    QTest::mouseClick(apply, Qt::LeftButton);
    QCOMPARE(workbench_->session().variants.size(), before + 1);
    const auto copy = workbench_->variantEntry(workbench_->selection().selection().variantB);
    QVERIFY(copy && copy->kv.contains(QStringLiteral("window=64")));
    QVERIFY2(copy->name.contains(QStringLiteral("64")), qPrintable(copy->name));
    QVERIFY(workbench_->variantEntry(QStringLiteral("ov-skvq"))->kv.contains(QStringLiteral("window=32")));
    workbench_->document().undo();
    QCOMPARE(workbench_->session().variants.size(), before);
    idle();
    choose(QStringLiteral("decoquant"));
    idle();
    QVERIFY(!apply->isEnabled());
  }

  void theInspectorChecksItself() {
    InspectorDock dock(*workbench_);
    dock.resize(340, 900);
    dock.show();
    choose(QStringLiteral("qaq"));
    idle();
    const auto value = [&](const QString& name) {
      PlainTableModel& model = dock.statistics();
      for (int row = 0; row < model.rowCount(); ++row)
        if (model.index(row, 0).data().toString().trimmed() == name) return model.index(row, 2).data().toDouble();
      return std::numeric_limits<double>::quiet_NaN();
    };
    QTRY_VERIFY_WITH_TIMEOUT(!std::isnan(value(QStringLiteral("picked outliers [%]"))), kPatience);
    QVERIFY(value(QStringLiteral("picked outliers [%]")) >= 2.0);
    // As published: the ratio of outliers as it was asked for, and two 16-bit parameters for the 64 channels of a
    // vector.
    const double published = 0.98 * value(QStringLiteral("mean code width [bit]")) + 0.02 * 16.0 + 32.0 / 64.0;
    QVERIFY(std::fabs(value(QStringLiteral("bits, published")) / published - 1.0) < 1e-3);
    double parts = 0.0;
    for (const char* name : {"codes", "scales", "zero points, minima", "outliers", "outlier indices", "code widths",
                             "small factor", "full precision"}) {
      const double kib = value(QLatin1String(name) + QStringLiteral(" [KiB]"));
      if (!std::isnan(kib)) parts += kib;
    }
    QVERIFY(std::fabs(parts / value(QStringLiteral("layer, packed [KiB]")) - 1.0) < 0.01);
    choose(QStringLiteral("skvq"));
    QTRY_VERIFY_WITH_TIMEOUT(!std::isnan(value(QStringLiteral("error with f16 scales"))), kPatience);
    QVERIFY(value(QStringLiteral("error with f16 scales")) <= value(QStringLiteral("relative error")) * 1.05);
    choose(QStringLiteral("kvquant"));
    QTRY_VERIFY_WITH_TIMEOUT(!std::isnan(value(QStringLiteral("constants, once [KiB]"))), kPatience);
    grab(dock, QStringLiteral("inspector"));
  }

 private:
  QTemporaryDir folder_;
  std::unique_ptr<Workbench> workbench_;
};

QTEST_MAIN(OverlaysTest)
#include "tst_overlays.moc"
