#include <QtTest>
#include <cmath>
#include <limits>

#include "analysis/weight_error.h"
#include "analysis/weight_progress.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TensorView matrix(std::vector<float> values, std::int64_t rows, std::int64_t columns) {
  return TensorView::own(std::move(values), {rows, columns});
}

LayerProgress linear(std::int64_t layer, const std::string& kind, double loss, double rtn_loss, bool resumed = false) {
  LayerProgress progress;
  progress.layer = layer;
  progress.layers = 3;
  progress.linear = "layers." + std::to_string(layer) + "." + kind;
  progress.loss = loss;
  progress.rtn_loss = rtn_loss;
  progress.effective_bits = 4.0;
  progress.resumed = resumed;
  return progress;
}

analysis::LinearReport report(std::int64_t layer, const std::string& kind, double error, std::int64_t size) {
  analysis::LinearReport r;
  r.layer = layer;
  r.kind = kind;
  r.error.relative_error = error;
  r.out_features = size;
  r.in_features = 1;
  return r;
}

}  // namespace

class WeightErrorTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void equalWeightsHaveNoError() {
    const TensorView w = matrix({1, -2, 3, 4}, 2, 2);
    const std::vector<float> moments = {1.0f, 9.0f};
    const analysis::WeightError error = analysis::weight_error(w, w, moments);
    QCOMPARE(error.relative_error, 0.0);
    QCOMPARE(error.max_abs_error, 0.0);
    QCOMPARE(error.output_error, 0.0);
    QVERIFY(std::isinf(error.sqnr_db));
  }

  void theOutputErrorIsThatOfUncorrelatedInputs() {
    // Two inputs of powers 4 and 1: E|x dWt|^2 = 4 * 0.1^2 + 1 * 0.2^2, E|x Wt|^2 = 4 * 1 + 1 * 2^2.
    const TensorView w = matrix({1, 2}, 1, 2), q = matrix({1.1f, 2.2f}, 1, 2);
    const std::vector<float> moments = {4.0f, 1.0f};
    const analysis::WeightError error = analysis::weight_error(w, q, moments);
    QVERIFY(std::abs(error.output_error - std::sqrt((4 * 0.01 + 0.04) / 8.0)) < 1e-6);
    QVERIFY(std::isnan(analysis::weight_error(w, q).output_error));
  }

  void anErrorInASilentChannelDoesNotReachTheOutput() {
    const TensorView w = matrix({1, 2}, 1, 2), q = matrix({5, 2}, 1, 2);
    const std::vector<float> moments = {0.0f, 1.0f};
    const analysis::WeightError error = analysis::weight_error(w, q, moments);
    QCOMPARE(error.output_error, 0.0);
    QVERIFY(error.relative_error > 1.0);
  }

  void otherShapesAreRefused() {
    const TensorView w = matrix({1, 2, 3, 4}, 2, 2), q = matrix({1, 2, 3, 4}, 1, 4);
    QVERIFY_EXCEPTION_THROWN(analysis::weight_error(w, q), Error);
    const std::vector<float> moments = {1.0f, 1.0f, 1.0f};
    QVERIFY_EXCEPTION_THROWN(analysis::weight_error(w, w, moments), Error);
  }

  void theMapHoldsEveryCellAndItsMargins() {
    const TensorView w = matrix({0, 0, 0, 1, 1, 1}, 2, 3), q = matrix({3, 0, 0, 1, 5, 1}, 2, 3);
    const analysis::WeightErrorMap map = analysis::weight_error_map(w, q);
    QCOMPARE(map.signed_error.data[0], 3.0f);
    QCOMPARE(map.absolute_error.data[4], 4.0f);
    QVERIFY(std::abs(map.by_output[0] - std::sqrt(3.0f)) < 1e-6f);
    QVERIFY(std::abs(map.by_input[1] - std::sqrt(8.0f)) < 1e-6f);
    QCOMPARE(map.by_input[2], 0.0f);
  }

  void theMatrixHasRowsOfKindsAndGapsAreNaN() {
    const analysis::WeightOverview overview =
        analysis::weight_overview({report(0, "q", 0.1, 1), report(0, "down", 0.2, 3), report(1, "q", 0.3, 1)});
    QCOMPARE(overview.layers, std::int64_t{2});
    const TensorView m = overview.matrix(analysis::WeightMetric::RelativeError);
    QCOMPARE(m.shape, (std::vector<std::int64_t>{2, 2}));
    QCOMPARE(m.data[0], 0.1f);
    QCOMPARE(m.data[1], 0.3f);
    QCOMPARE(m.data[2], 0.2f);
    QVERIFY(std::isnan(m.data[3]));
    QVERIFY(overview.find(1, "q") && !overview.find(1, "down"));
    // Weighted by size: (0.1 + 3 * 0.2 + 0.3) / 5.
    QVERIFY(std::abs(analysis::mean_of(overview, analysis::WeightMetric::RelativeError) - 0.2) < 1e-12);
    QVERIFY(std::isnan(analysis::mean_of(overview, analysis::WeightMetric::LossRatio)));
  }

  void markedCellsAreCountedByRowAndColumn() {
    const analysis::MaskShares shares = analysis::mask_shares(matrix({1, 0, 1, 0, 0, 1}, 2, 3));
    QCOMPARE(shares.count, std::int64_t{3});
    QCOMPARE(shares.share, 0.5);
    QVERIFY(std::abs(shares.by_row[0] - 2.0f / 3.0f) < 1e-6f);
    QCOMPARE(shares.by_column[2], 1.0f);
    QCOMPARE(shares.by_column[1], 0.0f);
  }

  void affineLevelsAreTheCodesOfTheGroup() {
    QCOMPARE(analysis::affine_levels(0.5, 1.0, 2), (std::vector<float>{-0.5f, 0.0f, 0.5f, 1.0f}));
    QVERIFY(analysis::affine_levels(0.5, 1.0, 16).empty());
  }

  void binaryLevelsAreAllSignedSums() {
    const std::vector<float> alphas = {2.0f, 1.0f};
    QCOMPARE(analysis::binary_levels(alphas, 0.5), (std::vector<float>{-2.5f, -0.5f, 1.5f, 3.5f}));
  }

  void thePlanesOfABinaryGridAddUpToTheWeight() {
    LinearGrid grid;
    grid.kind = LinearGrid::Kind::Binary;
    grid.bits = 2;
    grid.out_features = 1;
    grid.in_features = 4;
    grid.groups = 2;
    grid.group_of = {0, 0, 1, 1};
    grid.alpha = TensorView::own({4, 1, 8, 2}, {1, 2, 2});
    grid.signs = std::make_shared<const std::vector<std::uint8_t>>(std::vector<std::uint8_t>{0, 1, 2, 3});
    const TensorView first = analysis::binary_plane(grid, 0), second = analysis::binary_plane(grid, 1);
    const std::vector<float> expected = {-5, 3, -6, 10};
    for (std::size_t i = 0; i < 4; ++i) QCOMPARE(first.data[i] + second.data[i], expected[i]);
    QVERIFY(analysis::binary_plane(grid, 2).empty());
  }

  void bothHistogramsShareTheirBins() {
    const std::vector<float> w = {0.0f, 0.1f, 0.9f, std::numeric_limits<float>::quiet_NaN()},
                             q = {0.0f, 0.0f, 1.0f, 0.5f};
    const analysis::WeightHistogram h = analysis::weight_histogram(w, q, 2);
    QCOMPARE(h.low, 0.0);
    QCOMPARE(h.high, 1.0);
    QCOMPARE(h.count, std::int64_t{4});
    QCOMPARE(h.original, (std::vector<std::int64_t>{2, 1}));
    QCOMPARE(h.quantized, (std::vector<std::int64_t>{2, 2}));
    QVERIFY(analysis::weight_histogram({}, {}, 2).original.empty());
  }

  void distinctLevelsGiveUpOnRowsOfTheirOwnValues() {
    const std::vector<float> values = {1, 2, 1, 3};
    QCOMPARE(analysis::distinct_levels(values, 3), (std::vector<float>{1, 2, 3}));
    QVERIFY(analysis::distinct_levels(values, 2).empty());
  }

  void aRatioToAnExactRoundingIsInfinite() {
    QCOMPARE(analysis::loss_ratio(linear(0, "q", 2.0, 4.0)), 0.5);
    QCOMPARE(analysis::loss_ratio(linear(0, "q", 0.0, 0.0)), 1.0);
    QVERIFY(std::isinf(analysis::loss_ratio(linear(0, "q", 1.0, 0.0))));
    QVERIFY(std::isnan(analysis::loss_ratio(linear(0, "q", 1.0, kNan))));
  }

  void theTimeLeftComesFromTheLinearsThatWereQuantized() {
    // Two of six are read from a checkpoint and cost nothing: 4 s for two leaves 4 s for the other two.
    const std::vector<LayerProgress> run = {linear(0, "q", 1, 2, true), linear(0, "k", 1, 2, true),
                                            linear(1, "q", 1, 2), linear(1, "k", 8, 4)};
    const analysis::RunSummary s = analysis::summarize_run(run, 0, 4.0, 100.0);
    QCOMPARE(s.total, std::int64_t{6});
    QCOMPARE(s.done, std::int64_t{4});
    QCOMPARE(s.resumed, std::int64_t{2});
    QCOMPARE(s.worse, std::int64_t{1});
    QCOMPARE(s.layer, std::int64_t{1});
    QVERIFY(std::abs(s.left_seconds - 4.0) < 1e-9);
    QVERIFY(std::abs(s.loss_ratio - std::pow(0.5 * 0.5 * 0.5 * 2.0, 0.25)) < 1e-12);
  }

  void beforeTheFirstLinearTheForecastTells() {
    QCOMPARE(analysis::summarize_run({}, 7, 10.0, 100.0).left_seconds, 90.0);
    QCOMPARE(analysis::summarize_run({}, 7, 10.0, 0.0).left_seconds, -1.0);
    QVERIFY(std::isnan(analysis::summarize_run({}, 7, 10.0, 0.0).loss_ratio));
  }

  void kindsAreNamesWithoutTheLayer() {
    QCOMPARE(analysis::linear_kind("layers.12.mlp.experts.3.up_proj"), std::string("mlp.experts.3.up_proj"));
    QCOMPARE(analysis::linear_kind("lm_head"), std::string("lm_head"));
    const std::vector<LayerProgress> run = {linear(0, "q", 1, 2), linear(0, "k", 1, 2), linear(1, "q", 1, 2)};
    QCOMPARE(analysis::linear_kinds(run), (std::vector<std::string>{"q", "k"}));
  }
};

QTEST_APPLESS_MAIN(WeightErrorTest)
#include "tst_weight_error.moc"
