#include <QTest>
#include <cmath>

#include "analysis/alpha_balance.h"
#include "analysis/alpha_curve.h"
#include "analysis/divergence.h"
#include "analysis/pareto.h"
#include "analysis/task_difference.h"
#include "analysis/value_grid.h"
#include "backend/metrics.h"
#include "backend/types/error.h"

using namespace qs;
using namespace qs::analysis;

namespace {

AlphaPoint point(double alpha, double value, std::vector<double> windows = {}) {
  AlphaPoint p;
  p.alpha = alpha;
  p.value = value;
  p.state = AlphaPoint::State::Done;
  p.per_window = std::move(windows);
  return p;
}

TokenStep step(std::int64_t id, float p1 = 0.6F, float p2 = 0.2F) {
  TokenStep s;
  s.id = id;
  s.top = {{id, "a", p1}, {id + 1, "b", p2}};
  return s;
}

}  // namespace

class AlphaBalanceTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void alphaZeroGivesEveryWeightColumnMaximumOne() {
    const Migration m = migrate(std::vector<float>{8.0F, 2.0F}, std::vector<float>{0.5F, 0.25F}, 0.0);
    for (const float w : m.weight_after) QCOMPARE(w, 1.0F);
    QCOMPARE(m.activation_after[0], 4.0F);
  }

  void alphaOneGivesEveryActivationChannelMaximumOne() {
    const Migration m = migrate(std::vector<float>{8.0F, 2.0F}, std::vector<float>{0.5F, 0.25F}, 1.0);
    for (const float x : m.activation_after) QCOMPARE(x, 1.0F);
    QCOMPARE(m.weight_after[0], 4.0F);
  }

  void alphaHalfBalancesBothSides() {
    const Migration m = migrate(std::vector<float>{16.0F}, std::vector<float>{0.25F}, 0.5);
    QCOMPARE(m.scale[0], 8.0F);  // sqrt(16 / 0.25)
    QCOMPARE(m.activation_after[0], m.weight_after[0]);
  }

  void smoothingKeepsTheProductOfEveryChannel() {
    const std::vector<float> a{8.0F, 0.3F, 120.0F}, w{0.5F, 0.9F, 0.01F};
    for (const double alpha : {0.0, 0.35, 0.5, 0.85, 1.0}) {
      const Migration m = migrate(a, w, alpha);
      for (std::size_t j = 0; j < a.size(); ++j) {
        QVERIFY(std::abs(m.activation_after[j] * m.weight_after[j] - a[j] * w[j]) <= 1e-5F * a[j] * w[j] + 1e-7F);
      }
    }
  }

  void aDeadChannelIsLeftAlone() {
    const Migration m = migrate(std::vector<float>{0.0F}, std::vector<float>{0.7F}, 0.5);
    QCOMPARE(m.scale[0], 1.0F);
    QCOMPARE(m.weight_after[0], 0.7F);
  }

  void lengthsAndAlphaAreChecked() {
    QVERIFY_EXCEPTION_THROWN(migrate(std::vector<float>{1.0F}, std::vector<float>{}, 0.5), Error);
    QVERIFY_EXCEPTION_THROWN(migrate(std::vector<float>{1.0F}, std::vector<float>{1.0F}, 1.5), Error);
  }

  void difficultyMovesFromActivationsToWeights() {
    const std::vector<float> a{100.0F, 1.0F, 1.0F, 1.0F}, w{0.5F, 0.5F, 0.5F, 0.5F};
    const auto curve = difficulty_curve(a, w, 11, 8, 8);
    QVERIFY(curve.front().activation > curve.back().activation);
    QVERIFY(curve.front().weight < curve.back().weight);
    const double middle = curve[5].total();
    QVERIFY(middle < curve.front().total() && middle < curve.back().total());
  }

  void studentQuantilesMatchTheTables() {
    QCOMPARE(student_t_975(1), 12.7062);
    QVERIFY(std::abs(student_t_975(30) - 2.0423) < 2e-4);
    QVERIFY(std::abs(student_t_975(120) - 1.9799) < 2e-4);
  }

  void pairedDifferenceOfAConstantShiftIsExact() {
    const PairedDifference d = paired_difference(std::vector<double>{1, 2, 3}, std::vector<double>{1.5, 2.5, 3.5});
    QCOMPARE(d.mean, 0.5);
    QCOMPARE(d.low, 0.5);
    QCOMPARE(d.high, 0.5);
  }

  void perplexityDifferencesAreOnItsOwnScale() {
    TaskResult a{"ppl", "perplexity", std::exp(2.0), 0.0, 2, 0.0, {2.0, 2.0}},
        b{"ppl", "perplexity", std::exp(2.1), 0.0, 2, 0.0, {2.1, 2.1}};
    QVERIFY(std::abs(task_difference(a, b).mean - (b.value - a.value)) < 1e-9);
  }

  void pointsWithinNoiseAreTied() {
    AlphaScheme scheme;
    scheme.points = {point(0.4, 6.0, {5.0, 6.0, 7.0}), point(0.5, 5.9, {5.2, 5.6, 6.9}),
                     point(0.6, 5.95, {5.1, 5.9, 6.85}), point(0.7, 9.0, {8.0, 9.0, 10.0})};
    const AlphaSummary s = summarize_alpha(scheme);
    QCOMPARE(s.best, 1);
    QVERIFY(s.tied[0] && s.tied[2] && !s.tied[3]);
    QCOMPARE(s.tied_low, 0.4);
    QCOMPARE(s.tied_high, 0.6);
    QVERIFY(!s.at_edge);
  }

  void aMinimumOnTheEdgeIsNoticed() {
    AlphaScheme scheme;
    scheme.points = {point(0.4, 3.0), point(0.5, 2.0), point(0.6, 1.0)};
    QVERIFY(summarize_alpha(scheme).at_edge);
  }

  void pendingAndFailedPointsAreNeverTheBest() {
    AlphaScheme scheme;
    scheme.points = {point(0.4, 3.0), point(0.5, 0.0), point(0.6, 0.0)};
    scheme.points[1].state = AlphaPoint::State::Pending;
    scheme.points[2].state = AlphaPoint::State::Failed;
    QCOMPARE(summarize_alpha(scheme).best, 0);
    scheme.points[0].state = AlphaPoint::State::Pending;
    QCOMPARE(summarize_alpha(scheme).best, -1);
  }

  void refinementHalvesTheGridAroundTheMinimum() {
    AlphaScheme scheme;
    scheme.points = {point(0.4, 3.0), point(0.5, 1.0), point(0.6, 2.0)};
    QCOMPARE(refinement(scheme), (std::vector<double>{0.45, 0.55}));
    scheme.points = {point(0.4, 1.0), point(0.5, 2.0)};
    QCOMPARE(refinement(scheme), (std::vector<double>{0.3, 0.45}));
  }

  void layerMapAddsPairsAndFindsTheArgmin() {
    AlphaScheme scheme;
    scheme.points = {point(0.4, 1.0), point(0.5, 1.0), point(0.6, 1.0)};
    scheme.points[0].layer_mse = {1.0, 2.0, 9.0, 9.0};
    scheme.points[1].layer_mse = {0.5, 0.5, 1.0, 1.0};
    const auto map = layer_alpha_map(scheme, 2, 2, -1);
    QCOMPARE(map[0][0], 3.0);
    QVERIFY(std::isnan(map[0][2]));
    QCOMPARE(argmin_path(map), (std::vector<int>{1, 1}));
  }

  void divergenceNamesTokenAndMargin() {
    const std::vector<TokenStep> reference{step(1), step(2, 0.41F, 0.40F), step(3)}, other{step(1), step(9), step(3)};
    const auto d = first_divergence(reference, other, false);
    QVERIFY(d.has_value());
    QCOMPARE(d->index, std::int64_t{1});
    QVERIFY(d->knife_edge);
    QVERIFY(std::abs(d->reference_margin - 0.01) < 1e-6);
  }

  void aTextStillGrowingHasNotDiverged() {
    const std::vector<TokenStep> reference{step(1), step(2)}, other{step(1)};
    QVERIFY(!first_divergence(reference, other, false));
    QVERIFY(first_divergence(reference, other, true));
  }

  void paretoFrontKeepsWhatNothingBeats() {
    const std::vector<ParetoPoint> points{{16, 1.0}, {4, 1.2}, {4, 1.5}, {2, 3.0}, {3, 3.5}};
    QCOMPARE(pareto_front(points), (std::vector<int>{3, 1, 0}));
  }

  void histogramCountsEveryFiniteValueOnce() {
    const std::vector<float> x{0.0F, 0.5F, 1.0F, NAN}, y{0.0F, 1.0F, 1.0F, 0.0F}, codes{0, 1, 255, 0};
    const ValueGrid grid = value_grid(x, y, codes, 4);
    QCOMPARE(grid.original[0] + grid.original[1] + grid.original[2] + grid.original[3], std::int64_t{3});
    QCOMPARE(grid.not_finite, std::int64_t{1});
    QCOMPARE(grid.full_precision, std::int64_t{1});
    QCOMPARE(grid.levels, (std::vector<float>{0.0F, 1.0F}));
  }

  void manyLevelsAreThinnedEvenly() {
    std::vector<float> x(1000), codes(1000, 0.0f);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
    const ValueGrid grid = value_grid(x, x, codes, 4, 10);
    QCOMPARE(grid.distinct_levels, std::int64_t{1000});
    QCOMPARE(grid.levels, (std::vector<float>{0, 111, 222, 333, 444, 555, 666, 777, 888, 999}));
  }
};

QTEST_GUILESS_MAIN(AlphaBalanceTest)
#include "tst_alpha_balance.moc"
