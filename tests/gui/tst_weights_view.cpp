#include <QComboBox>
#include <QJsonDocument>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QToolButton>
#include <QtTest>

#include "app/presenters/alpha_presenter.h"
#include "app/presenters/weights_presenter.h"
#include "app/weight_runs.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "tests/support/tensor_scenes.h"
#include "widgets/plot_view.h"
#include "widgets/selection_hub.h"
#include "widgets/views/weights_view.h"

using namespace qs;

namespace {

const QStringList kKinds = {QStringLiteral("self_attn.q_proj"), QStringLiteral("self_attn.o_proj"),
                            QStringLiteral("mlp.down_proj")};

WeightVariant variant(const QString& id, double error) {
  WeightVariant v;
  v.id = id;
  v.label = id;
  std::vector<analysis::LinearReport> reports;
  for (int layer = 0; layer < 4; ++layer) {
    for (const QString& kind : kKinds) {
      analysis::LinearReport r;
      r.kind = kind.toStdString();
      r.name = "layers." + std::to_string(layer) + "." + r.kind;
      r.layer = layer;
      r.out_features = 8;
      r.in_features = 32;
      r.error.relative_error = error * (1 + layer);
      r.error.sqnr_db = 20.0 - layer;
      r.error.output_error = error;
      r.effective_bits = 4.25;
      reports.push_back(r);
    }
  }
  v.overview = std::make_shared<const analysis::WeightOverview>(analysis::weight_overview(std::move(reports)));
  return v;
}

/// Rows of 32 in two groups of 16, rounded to a grid of 4 levels.
WeightSide side(const QString& label, float step) {
  WeightSide s;
  s.label = label;
  s.original = test::gaussian({8, 32}, 3);
  std::vector<float> rounded(s.original.values().begin(), s.original.values().end());
  for (float& x : rounded) x = step * (std::clamp(std::nearbyint(x / step) + 2.0f, 0.0f, 3.0f) - 2.0f);
  s.quantized = TensorView::own(std::move(rounded), {8, 32});
  const analysis::WeightErrorMap map = analysis::weight_error_map(s.original, s.quantized);
  s.absolute = test::pyramid(map.absolute_error);
  s.signedError = test::pyramid(map.signed_error);
  s.byInput = map.by_input;
  s.byOutput = map.by_output;
  s.report.error = analysis::weight_error(s.original, s.quantized);
  s.histogram = analysis::weight_histogram(s.original.values(), s.quantized.values(), WeightsView::kHistogramBins);
  s.grid.kind = LinearGrid::Kind::Affine;
  s.grid.bits = 2;
  s.grid.out_features = 8;
  s.grid.in_features = 32;
  s.grid.groups = 2;
  for (int j = 0; j < 32; ++j) s.grid.group_of.push_back(j / 16);
  std::vector<float> scale(16, step);
  scale[2 * 5 + 1] = 2.0f * step;
  s.grid.scale = TensorView::own(std::move(scale), {8, 2});
  s.grid.zero_point = TensorView::own(std::vector<float>(16, 2.0f), {8, 2});
  return s;
}

LayerProgress linear(std::int64_t layer, const QString& kind, double loss) {
  LayerProgress p;
  p.layer = layer;
  p.layers = 4;
  p.linear = "layers." + std::to_string(layer) + "." + kind.toStdString();
  p.loss = loss;
  p.rtn_loss = 2.0;
  p.seconds = 0.5;
  p.damping = 0.01;
  p.tokens = 512;
  p.effective_bits = 3.0;
  return p;
}

}  // namespace

class WeightsViewTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void aClickInTheOverviewChoosesLayerAndLinear() {
    SelectionHub hub;
    WeightsView view(hub);
    view.resize(1200, 760);
    view.setVariants({variant(QStringLiteral("RTN-4"), 0.1), variant(QStringLiteral("GPTQ-4"), 0.05)});
    view.setState(ViewState::Ready);
    view.show();
    QSignalSpy chosen(&view, &WeightsView::linearChosen);
    HeatmapCanvas* canvas = view.heatmap(QStringLiteral("overview1"));
    QVERIFY(canvas->isVisible());
    const QRectF body = canvas->panel().bodyRect(canvas->rect(), canvas->figureStyle());
    QTest::mouseClick(canvas, Qt::LeftButton, {},
                      QPointF(body.left() + body.width() * 2.5 / 4, body.top() + body.height() * 2.5 / 3).toPoint());
    QCOMPARE(view.kind(), QStringLiteral("mlp.down_proj"));
    QTRY_COMPARE(hub.selection().layer, 2);
    QCOMPARE(chosen.count(), 1);
    QCOMPARE(canvas->panel().selectedRow, 2);
    QVERIFY(!view.heatmap(QStringLiteral("overview2"))->isVisible());
  }

  void theSmallMultiplesShareOneScale() {
    SelectionHub hub;
    WeightsView view(hub);
    view.setVariants({variant(QStringLiteral("RTN-4"), 0.1), variant(QStringLiteral("GPTQ-4"), 0.05)});
    const auto scale = [&](int i) {
      return static_cast<HeatmapCanvas*>(view.heatmap(QStringLiteral("overview%1").arg(i)))->panel().scale;
    };
    QVERIFY(scale(0) == scale(1));
    QVERIFY(std::abs(scale(0).high - 0.4) < 1e-6);
    view.setMetric(analysis::WeightMetric::SqnrDb);
    QVERIFY(std::abs(scale(1).high - 20.0) < 1e-5);
  }

  void theGridOverTheHistogramIsThatOfTheChosenRowAndGroup() {
    SelectionHub hub;
    WeightsView view(hub);
    view.setVariants({variant(QStringLiteral("RTN-2"), 0.1)});
    view.setLinear(0, kKinds[0], side(QStringLiteral("RTN-2"), 0.5f), {});
    QCOMPARE(view.histogram()->spec().rug, (QVector<double>{-1.0, -0.5, 0.0, 0.5}));
    view.chooseCell(5, 20);  // its scale is twice as large
    QCOMPARE(view.histogram()->spec().rug, (QVector<double>{-2.0, -1.0, 0.0, 1.0}));
    QVERIFY(view.histogram()->spec().title.contains(QStringLiteral("row 5, group 1: scale 1,")));
  }

  void theHistogramCountsTheMatrixTheRowOrTheGroup() {
    SelectionHub hub;
    WeightsView view(hub);
    view.setVariants({variant(QStringLiteral("RTN-2"), 0.1)});
    view.setLinear(0, kKinds[0], side(QStringLiteral("RTN-2"), 0.5f), {});
    auto* scope = view.findChild<QComboBox*>(QStringLiteral("scope"));
    const QStringList counts = {QStringLiteral("256 weights"), QStringLiteral("32 weights"),
                                QStringLiteral("16 weights")};
    for (int i = 0; i < 3; ++i) {
      scope->setCurrentIndex(i);
      Q_EMIT scope->activated(i);
      QVERIFY2(view.histogram()->spec().title.startsWith(counts[i]), qPrintable(view.histogram()->spec().title));
    }
  }

  void outliersAndPlanesAreOfferedWhereTheMethodHasThem() {
    SelectionHub hub;
    WeightsView view(hub);
    WeightSide spqr = side(QStringLiteral("SpQR"), 0.5f), bcq = side(QStringLiteral("BCQ"), 0.5f);
    std::vector<float> kept(256, 0.0f);
    kept[3] = kept[40] = 1.0f;
    spqr.grid.kept = TensorView::own(std::move(kept), {8, 32});
    spqr.kept = test::pyramid(spqr.grid.kept);
    spqr.keptShares = analysis::mask_shares(spqr.grid.kept);
    bcq.grid.kind = LinearGrid::Kind::Binary;
    bcq.grid.scale = bcq.grid.zero_point = {};
    bcq.grid.alpha = TensorView::own(std::vector<float>(32, 0.5f), {8, 2, 2});
    bcq.grid.signs = std::make_shared<const std::vector<std::uint8_t>>(std::vector<std::uint8_t>(256, 1));
    view.setLinear(0, kKinds[0], spqr, bcq);
    auto* part = view.findChild<QComboBox*>(QStringLiteral("part"));
    QCOMPARE(part->currentData().toString(), QStringLiteral("kept"));
    HeatmapCanvas* parts = view.heatmap(QStringLiteral("parts"));
    QVERIFY(parts->panel().note.startsWith(QStringLiteral("2 outliers")));
    QCOMPARE(parts->panel().rightProfile[1], 1.0f / 32.0f);
    view.setCompareMode(HeatmapView::B);
    QCOMPARE(part->currentData().toString(), QStringLiteral("plane0"));
    QCOMPARE(parts->panel().data()->at(0, 0), 0.5f);
    part->setCurrentIndex(1);
    Q_EMIT part->activated(1);
    QCOMPARE(parts->panel().data()->at(0, 0), -0.5f);
  }

  void aRunShowsLossTimeAndWhatWasResumed() {
    SelectionHub hub;
    WeightsView view(hub);
    view.resize(1100, 700);
    view.show();
    view.setPage(WeightsView::Run);
    view.run().setVariants({{QStringLiteral("gptq"), QStringLiteral("GPTQ-3")}});
    ShownWeightRun run;
    run.state = ShownWeightRun::State::Running;
    run.layer_by_layer = true;
    run.setup = QStringLiteral("gptq:bits=3");
    run.checkpoint = QStringLiteral("/somewhere");
    run.linears_per_layer = 3;
    run.elapsed_seconds = 6.0;
    run.forecast = WeightForecast{};
    run.forecast->bytes = std::int64_t{3} << 29;
    run.forecast->available_bytes = std::int64_t{1} << 32;
    for (int i = 0; i < 6; ++i) {
      run.linears.push_back(linear(i / 3, kKinds[i % 3], 0.5));
      run.linears.back().resumed = i < 3;
    }
    run.linears[4].notes = {"Damping was raised to 0.02."};
    view.run().setRun(run);
    const PlotSpec& spec = view.run().plot()->spec();
    QCOMPARE(spec.series.size(), 3);
    QVERIFY(spec.y.log);
    QCOMPARE(spec.series[0].points[0].marker, PlotPoint::Marker::Hollow);
    QCOMPARE(spec.series[1].points[1].marker, PlotPoint::Marker::Cross);
    QCOMPARE(spec.series[2].points[1].marker, PlotPoint::Marker::Filled);
    QCOMPARE(spec.series[0].points[1].y, 0.25);
    QCOMPARE(spec.rules[0].at, 1.0);
    const QString facts = view.run().factsText();
    for (const char* part :
         {"layer 2 of 4", "6 of 12 linears", "3 from the checkpoint", "loss 0.25", "about 12 s left"})
      QVERIFY2(facts.contains(QLatin1String(part)), qPrintable(facts));
    QVERIFY(view.run().forecastText().contains(QStringLiteral("1.50 GiB")));
    QAbstractTableModel* table = view.dataTable();
    QCOMPARE(table->rowCount(), 6);
    QVERIFY(table->index(4, table->columnCount() - 1).data().toString().contains(QStringLiteral("0.02")));
    auto* retry = view.findChild<QToolButton*>(QStringLiteral("run_retry"));
    QVERIFY(!retry->isEnabled());  // not while it runs
    run.state = ShownWeightRun::State::Stopped;
    view.run().setRun(run);
    view.findChild<QTableView*>(QStringLiteral("run_rows"))->selectRow(4);
    QVERIFY(retry->isEnabled());
    QSignalSpy asked(&view.run(), &WeightRunPage::retryLayerRequested);
    QTest::mouseClick(retry, Qt::LeftButton);
    QCOMPARE(asked.count(), 1);
    QCOMPARE(asked[0][1].toInt(), 1);
    QCOMPARE(view.findChild<QToolButton*>(QStringLiteral("run_start"))->text(), QStringLiteral("Resume"));
  }

  void oneTableModelServesBothPages() {
    SelectionHub hub;
    WeightsView view(hub);
    view.setVariants({variant(QStringLiteral("RTN-4"), 0.1)});
    QAbstractTableModel* table = view.dataTable();
    QCOMPARE(table->rowCount(), kKinds.size());
    view.setPage(WeightsView::Run);
    QCOMPARE(view.dataTable(), table);
    QCOMPARE(table->columnCount(), 11);
    view.setPage(WeightsView::Layers);
    QCOMPARE(table->headerData(3, Qt::Horizontal).toString(), QStringLiteral("sqnr_o"));
  }

  void localAndAccumulatedErrorsAreNeverInOnePicture() {
    SelectionHub hub;
    WeightsView view(hub);
    view.setPage(WeightsView::Layers);
    WeightLayersPage& page = view.layers();
    page.setVariants({{QStringLiteral("gptq"), QStringLiteral("GPTQ-3")}});
    LayerStatistics local;
    LayerDistance accumulated;
    for (int layer = 0; layer < 3; ++layer) {
      for (const char* linear : {"q_proj", "down_proj"}) {
        const LinearPlace place{"layers." + std::to_string(layer) + "." + linear, layer, linear, -1};
        local.linears.push_back({place, {{"sqnr_o", 20.0 + layer}, {"mse_o", 1e-3}}, {{"sqnr_o", 1}}, 4, 400});
        accumulated.linears.push_back({place, 30.0 - layer, 1e-2, 0, 1});
      }
    }
    accumulated.linears.push_back({{"lm_head", -1, "lm_head", -1}, 11.0, 0.5, 0, 1});
    page.setStatistics(QStringLiteral("gptq"), local);
    page.setDistance(QStringLiteral("gptq"), accumulated);
    QCOMPARE(page.plot()->spec().series.size(), 2);
    QCOMPARE(page.plot()->spec().series[0].points[2].y, 22.0);
    QVERIFY(page.plot()->spec().series[0].points[2].note.contains(QStringLiteral("1 of 4 windows exact")));
    HeatmapCanvas* map = view.heatmap(QStringLiteral("layers"));
    QCOMPARE(map->panel().cols(), 3);
    QVERIFY(page.plot()->spec().title.startsWith(QStringLiteral("Local")));
    QCOMPARE(view.dataTable()->rowCount(), 6);
    page.setError(WeightLayersPage::Error::Accumulated);
    QVERIFY(page.plot()->spec().title.startsWith(QStringLiteral("Accumulated")));
    QCOMPARE(map->panel().cols(), 4);  // the head has a column of its own
    QCOMPARE(map->panel().data()->at(2, 3), 11.0f);
    QCOMPARE(view.dataTable()->rowCount(), 7);
    QCOMPARE(view.dataTable()->index(6, 2).data().toString(), QStringLiteral("accumulated"));
    page.setMetric(QStringLiteral("mse"));
    QVERIFY(page.plot()->spec().y.log);
  }

  void alphasOfLayersBecomeAPerLayerSetup() {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const QString one = with_layer_alphas(QStringLiteral("smoothquant:alpha=0.5"), {nan, 0.7, nan});
    QVERIFY2(one.startsWith(QStringLiteral("layers:")), qPrintable(one));
    QVERIFY(one.contains(QStringLiteral("alpha=0.7")));
    // A second layer is added to the first, and the same alpha everywhere is a plain setup again.
    const QString two = with_layer_alphas(one, {nan, nan, 0.7});
    QVERIFY2(two.contains(QStringLiteral("1-2=smoothquant:alpha=0.7")), qPrintable(two));
    QCOMPARE(with_layer_alphas(two, {0.7, nan, nan}), QStringLiteral("smoothquant:alpha=0.7"));
    QVERIFY_EXCEPTION_THROWN(with_layer_alphas(QStringLiteral("rtn"), {0.7}), Error);
  }

  void settingsSurviveARoundTrip() {
    SelectionHub hub;
    WeightsView view(hub), other(hub);
    view.setMetric(analysis::WeightMetric::EffectiveBits);
    view.setKind(QStringLiteral("mlp.up_proj"));
    view.setSigned(true);
    view.chooseCell(3, 7);
    view.setPage(WeightsView::Run);
    const QJsonObject saved = view.saveSettings();
    other.restoreSettings(saved);
    QCOMPARE(other.saveSettings(), saved);
  }

  void theSampleIsComparedAndQuantizedLayerByLayer() {
    QTemporaryDir folder;
    qputenv("QUANTOSCOPE_DATA", folder.path().toUtf8());
    Workbench workbench;
    workbench.openSample();
    QTRY_VERIFY_WITH_TIMEOUT(!workbench.jobs().busy(), 120000);
    const QString model = workbench.session().captures.first().modelId;
    const QString line = QStringLiteral("gptq:bits=3,group_size=32,nsamples=8,seqlen=64");
    const QString id = workbench.addVariant({{}, QStringLiteral("GPTQ-3"), model, line, {}});
    WeightsView view(workbench.selection());
    view.resize(1200, 760);
    WeightsPresenter presenter(workbench, view);
    const auto overview = [&](const QString& name) -> const analysis::WeightOverview* {
      for (const WeightVariant& v : view.variants())
        if (v.label == name) return v.overview.get();
      return nullptr;
    };
    QTRY_VERIFY_WITH_TIMEOUT(overview(QStringLiteral("GPTQ-3")) && overview(QStringLiteral("SmoothQuant W8A8")),
                             120000);
    QTRY_COMPARE_WITH_TIMEOUT(view.state(), ViewState::Ready, 20000);
    const analysis::WeightOverview& gptq = *overview(QStringLiteral("GPTQ-3"));
    QCOMPARE(gptq.kinds.size(), std::size_t{7});
    for (const analysis::LinearReport& r : gptq.linears) {
      QVERIFY(r.error.relative_error > 0.0 && r.error.relative_error < 1.0);
      QVERIFY(r.error.output_error > 0.0 && r.error.output_error < 1.0);
      QVERIFY(r.loss_ratio > 0.0 && r.loss_ratio < 1.5);
      QVERIFY(r.effective_bits > 3.0 && r.effective_bits < 6.0);
    }
    // The smoothed weight is what SmoothQuant rounds: eight bits come close to it.
    for (const analysis::LinearReport& r : overview(QStringLiteral("SmoothQuant W8A8"))->linears)
      QVERIFY2(r.error.relative_error < 0.02, r.name.c_str());
    const auto run = workbench.weightRuns().run(id);
    QVERIFY(run && run->state == WeightRun::State::Finished);
    QCOMPARE(run->linears.size(), gptq.linears.size());
    QVERIFY(run->forecast && run->forecast->bytes > 0);
    QVERIFY(QFileInfo::exists(run->checkpoint + QStringLiteral("/layer-0000.safetensors")));
    // The chosen linear shows the packed grid.
    workbench.selection().edit([&](Selection& s) { s.variantA = id; });
    QTRY_VERIFY_WITH_TIMEOUT(view.histogram()->spec().title.contains(QStringLiteral("8 levels")), 30000);
    // A second session over the same cache resumes every block.
    workbench.unloadModels();
    view.run().setVariant(id);
    Q_EMIT view.actionRequested(QStringLiteral("view.retry"));
    const auto resumed = [&] {
      const auto again = workbench.weightRuns().run(id);
      return again->state == WeightRun::State::Finished && !again->linears.empty() && again->linears.front().resumed;
    };
    QTRY_VERIFY_WITH_TIMEOUT(resumed(), 60000);
    const auto second = workbench.weightRuns().run(id);
    for (const LayerProgress& progress : second->linears) QVERIFY(progress.resumed);
    // One layer again with other settings: the checkpoint has its new block, and the plan is built from it.
    QTRY_VERIFY_WITH_TIMEOUT(!workbench.jobs().busy(), 60000);
    QVERIFY(workbench.retryLayer(id, 1, line + QStringLiteral(",percdamp=0.1")) != 0);
    QTRY_VERIFY_WITH_TIMEOUT(!workbench.jobs().busy(), 60000);
    const auto third = workbench.weightRuns().run(id);
    for (const LayerProgress& progress : third->linears) {
      const bool redone = !progress.notes.empty() && progress.notes.back().find("Redone as") != std::string::npos;
      QCOMPARE(redone, progress.layer == 1);
    }
  }
};

QTEST_MAIN(WeightsViewTest)
#include "tst_weights_view.moc"
