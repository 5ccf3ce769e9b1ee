#include <QtTest>
#include <cmath>
#include <limits>

#include "analysis/color_scale.h"
#include "analysis/error_map.h"
#include "analysis/histogram.h"
#include "analysis/outliers.h"
#include "analysis/tile_pyramid.h"
#include "analysis/value_grid.h"
#include "backend/types/error.h"
#include "tests/support/tensor_scenes.h"

using namespace qs;
using namespace qs::analysis;

namespace {

/// 4 tokens of 2 heads of 2 channels; 2 tokens and 2 channels share a scale. Group 0: 0, 1, 2, 3; group 1: 4 levels
/// from 10 in steps of 10; groups 2 and 3: one bit. Token 3 is in full precision, as is element (1, 0).
KvOverlay small_overlay() {
  KvOverlay o;
  o.tokens = 4;
  o.kv_heads = o.head_dim = o.channel_runs = 2;
  o.quantized_end = 3;
  o.groups = {.tokens = 2, .starts = {0, 2}, .order = {}};
  o.run_of_channel = {0, 0, 1, 1};
  o.scale = {1, 10, 4, 4};
  o.group_min = {0, 10, -2, -3};
  o.levels = {4, 4, 2, 2};
  o.low = {0, 10, -2, -3};
  o.high = {3, 40, 2, 1};
  std::vector<float> picks(16, 0.0f);
  picks[4] = 1.0f;
  o.picks = TensorView::own(std::move(picks), {4, 4});
  o.picked = 1;
  o.coded = 11;
  return o;
}

}  // namespace

class TestAnalysisTensor : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void channelStatisticsMatchBruteForce() {
    const TensorView x = test::keys_with_outliers(2, 37, 9, 3);
    const ChannelStats stats = channel_stats(x);
    QCOMPARE(stats.channels(), std::int64_t{18});
    for (std::int64_t c = 0; c < 18; ++c) {
      std::vector<double> v;
      for (std::int64_t t = 0; t < 37; ++t) v.push_back(x.data[(c / 9 * 37 + t) * 9 + c % 9]);
      double mean = 0, m2 = 0, m4 = 0, top = 0;
      for (double a : v) mean += a / 37, top = std::max(top, std::fabs(a));
      for (double a : v) m2 += std::pow(a - mean, 2) / 37, m4 += std::pow(a - mean, 4) / 37;
      std::vector<double> sorted;
      for (double a : v) sorted.push_back(std::fabs(a));
      std::sort(sorted.begin(), sorted.end());
      const double p999 = sorted[35] + (0.999 * 36 - 35) * (sorted[36] - sorted[35]);
      const auto i = static_cast<std::size_t>(c);
      QVERIFY(std::fabs(stats.absmax[i] - top) < 1e-6);
      QVERIFY(std::fabs(stats.std_dev[i] - std::sqrt(m2)) < 1e-5 * std::sqrt(m2));
      QVERIFY(std::fabs(stats.kurtosis[i] - (m4 / (m2 * m2) - 3)) < 1e-4);
      QVERIFY(std::fabs(stats.p999[i] - p999) < 1e-4);
    }
    const ChannelRanking ranking = rank_channels(stats.absmax, 4.0);
    QCOMPARE(ranking.above, std::int64_t{4});
    QVERIFY(std::is_sorted(ranking.values.rbegin(), ranking.values.rend()));
  }

  void constantChannelHasNoKurtosis() {
    const ChannelStats stats = channel_stats(TensorView::own(std::vector<float>(12, 2.5f), {1, 6, 2}));
    QCOMPARE(stats.kurtosis[0], 0.0f);
    QCOMPARE(stats.std_dev[1], 0.0f);
    QCOMPARE(stats.max_median_ratio[0], 1.0f);
  }

  void nanIsCountedAndNotHidden() {
    std::vector<float> v(8, 1.0f);
    v[3] = std::numeric_limits<float>::quiet_NaN();
    const ChannelStats stats = channel_stats(TensorView::own(v, {1, 4, 2}));
    QCOMPARE(stats.non_finite, std::int64_t{1});
    QVERIFY(std::isnan(stats.absmax[1]));
    QCOMPARE(stats.absmax[0], 1.0f);
  }

  void jaccardOfKnownSets() {
    QCOMPARE(jaccard({1, 2, 3}, {2, 3, 4}), 0.5);
    QCOMPARE(jaccard({}, {}), 1.0);
    QCOMPARE(jaccard({1}, {2}), 0.0);
    const TensorView same = persistence({{1, 9, 8, 0}, {0, 5, 6, 1}, {9, 0, 0, 8}}, 2);
    QCOMPARE(same.data[1], 1.0f);
    QCOMPARE(same.data[2], 0.0f);
  }

  void histogramCountsEveryValueOnce() {
    const float inf = std::numeric_limits<float>::infinity();
    const Histogram h = histogram(std::vector<float>{0, 0.5f, 1, 1, 2, -3, inf, std::nanf("")}, 4, 0.0, 2.0);
    QCOMPARE(h.counts, (std::vector<std::int64_t>{1, 1, 2, 1}));
    QCOMPARE(h.below, std::int64_t{1});
    QCOMPARE(h.nan + h.infinite, std::int64_t{2});
    QVERIFY_EXCEPTION_THROWN(histogram(std::vector<float>{1}, 0), Error);
    QVERIFY_EXCEPTION_THROWN(histogram(std::vector<float>{1}, 3, 2.0, 2.0), Error);
  }

  void pyramidLevelsMatchBruteForce() {
    const TensorView plane = test::gaussian({37, 53}, 9);
    const TilePyramid p = build_pyramid(plane, 2);
    QVERIFY(p.exact());
    QVERIFY(p.levels.size() > 4);
    for (const PyramidLevel& level : p.levels) {
      for (std::int64_t r = 0; r < level.mean.shape[0]; ++r)
        for (std::int64_t c = 0; c < level.mean.shape[1]; ++c) {
          double low = 1e9, high = -1e9, sum = 0, n = 0;
          for (std::int64_t y = r * level.factor; y < std::min<std::int64_t>(37, (r + 1) * level.factor); ++y)
            for (std::int64_t x = c * level.factor; x < std::min<std::int64_t>(53, (c + 1) * level.factor); ++x) {
              const double v = plane.data[y * 53 + x];
              low = std::min(low, v), high = std::max(high, v), sum += v, ++n;
            }
          const std::int64_t i = r * level.mean.shape[1] + c;
          QCOMPARE(level.min.data[i], static_cast<float>(low));
          QCOMPARE(level.max.data[i], static_cast<float>(high));
          QVERIFY(std::fabs(level.mean.data[i] - sum / n) < 1e-6);
        }
    }
  }

  void noPyramidLevelHidesANan() {
    std::vector<float> v(64 * 64, 1.0f);
    v[100] = std::numeric_limits<float>::quiet_NaN();
    const TilePyramid p = build_pyramid(TensorView::own(v, {64, 64}), 1);
    QVERIFY(std::isnan(p.levels.back().max.data[0]));
    QCOMPARE(summarize(p).nan, std::int64_t{1});
  }

  void differenceAndRatioAreExactPerCell() {
    const TensorView a = test::gaussian({20, 30}, 1), b = test::gaussian({20, 30}, 2);
    const TilePyramid pa = build_pyramid(a, 4), pb = build_pyramid(b, 4);
    const TilePyramid d = combine(pa, pb, Combine::Difference), q = combine(pa, pb, Combine::Ratio);
    for (std::int64_t i = 0; i < 600; ++i) {
      QCOMPARE(d.levels[0].mean.data[i], a.data[i] - b.data[i]);
      QCOMPARE(q.levels[0].mean.data[i], a.data[i] / b.data[i]);
    }
    QVERIFY(!combine(pa, pb, Combine::Difference, 200).exact());
    QVERIFY_EXCEPTION_THROWN(combine(pa, build_pyramid(test::gaussian({2, 2}, 1)), Combine::Ratio), Error);
  }

  void scalesInvertThemselves() {
    for (const ScaleKind kind : {ScaleKind::Linear, ScaleKind::Log10, ScaleKind::SymLog}) {
      ColorScale scale;
      scale.kind = kind;
      scale.low = kind == ScaleKind::SymLog ? -50 : 1e-4;
      scale.high = 50;
      scale.linear_width = 0.01;
      for (double t = 0; t <= 1.0; t += 0.05) QVERIFY(std::fabs(scale.position(scale.value(t)) - t) < 1e-9);
    }
    QVERIFY(std::isnan(ColorScale{}.position(std::nan(""))));
  }

  void fittedScalesHoldTheData() {
    const PlaneSummary s = summarize(build_pyramid(test::gaussian({50, 50}, 4)));
    const ColorScale signed_scale = fit_scale(s, ScaleKind::Linear, RangeMode::Full, true);
    QCOMPARE(signed_scale.low, -signed_scale.high);
    QCOMPARE(signed_scale.position(0.0), 0.5);
    PlaneSummary flat;
    flat.low = flat.high = 3.0;
    QVERIFY(fit_scale(flat, ScaleKind::Linear, RangeMode::Full, false).high > 3.0);
    const ColorScale clip = fit_scale(s, ScaleKind::Linear, RangeMode::Percentile, false);
    QVERIFY(clip.low > s.low && clip.high < s.high);
  }

  void errorMapMatchesBruteForce() {
    const TensorView x = test::keys_with_outliers(2, 12, 8, 5), y = test::rounded(x, 4, 3);
    const ErrorMap map = error_map(x, y);
    QCOMPARE(map.channels, std::int64_t{16});
    double by_channel3 = 0, by_token2 = 0;
    for (std::int64_t t = 0; t < 12; ++t) by_channel3 += std::fabs(y.data[t * 8 + 3] - x.data[t * 8 + 3]) / 12;
    for (std::int64_t h = 0; h < 2; ++h)
      for (std::int64_t d = 0; d < 8; ++d)
        by_token2 += std::fabs(y.data[(h * 12 + 2) * 8 + d] - x.data[(h * 12 + 2) * 8 + d]) / 16;
    QVERIFY(std::fabs(map.by_channel[3] - by_channel3) < 1e-6);
    QVERIFY(std::fabs(map.by_token[2] - by_token2) < 1e-6);
    for (std::int64_t c = 0; c < 16; ++c) QCOMPARE(map.absolute_error.data[11 * 16 + c], 0.0f);
    const auto spots = hot_spots(map, 5);
    float largest = 0;
    for (float e : map.absolute_error.values()) largest = std::max(largest, e);
    QCOMPARE(std::fabs(spots[0].error), largest);
    QCOMPARE(spots.size(), std::size_t{5});
    QVERIFY_EXCEPTION_THROWN(error_map(x, test::gaussian({1, 2, 3}, 1)), Error);
  }

  void saturationIsTheExtremeCodes() {
    const TensorView codes = TensorView::own({0, 1, 3, 255, 2, 0}, {1, 3, 2});
    const TensorView mask = saturation_mask(codes, 4);
    QCOMPARE(std::vector<float>(mask.values().begin(), mask.values().end()), (std::vector<float>{1, 0, 1, 0, 0, 1}));
    const CodeCounts counts = code_counts(codes, 4);
    QCOMPARE(counts.full_precision, std::int64_t{1});
    QCOMPARE(counts.counts[0], std::int64_t{2});
  }

  void everyGroupHasItsOwnCodesAndRange() {
    const KvOverlay o = small_overlay();
    // [heads, tokens, head_dim]
    const TensorView codes = TensorView::own({0, 3, 255, 1, 0, 1, 255, 255, 3, 0, 2, 1, 1, 0, 255, 255}, {2, 4, 2});
    const TensorView x = TensorView::own({0, 5, 99, 1, -2, 2, 7, 7, 40, 10, 30, 20, 1, -3, 7, 7}, {2, 4, 2});
    const TensorView mask = saturation_mask(codes, o);
    QCOMPARE(std::vector<float>(mask.values().begin(), mask.values().end()),
             (std::vector<float>{1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0}));
    QCOMPARE(marked_fraction(mask), 0.5);
    const CodeCounts widths = width_counts(codes, o);
    QCOMPARE(widths.counts, (std::vector<std::int64_t>{0, 4, 7}));
    QCOMPARE(widths.full_precision, std::int64_t{5});

    const ChannelReach reach = channel_reach(o);
    QCOMPARE(reach.least, (std::vector<float>{2, 2, 3, 3}));
    QCOMPARE(reach.largest, (std::vector<float>{3, 3, 40, 40}));

    // Channel 1 over all tokens: groups 0 and 2; its 5 lies outside of 0..3.
    const QuantizerGrid channel = quantizer_grid(o, x, codes, {0, 1, 0, 4, 1, 2});
    QCOMPARE(channel.groups, std::int64_t{2});
    QCOMPARE(channel.levels, (std::vector<float>{-2, 0, 1, 2, 3}));
    QCOMPARE(channel.coded, std::int64_t{3});
    QCOMPARE(channel.outside, std::int64_t{1});
    QCOMPARE(std::pair(channel.low, channel.high), std::pair(-2.0f, 3.0f));
    QCOMPARE(std::pair(channel.narrow_low, channel.narrow_high), std::pair(0.0f, 2.0f));
    QCOMPARE(channel.codes, (std::vector<std::int64_t>{0, 2, 0, 1}));
    QCOMPARE(channel.widths, (std::vector<std::int64_t>{0, 1, 2}));
    // Channel 0: 99 was picked, so outliers lie above the largest of the others.
    const QuantizerGrid other = quantizer_grid(o, x, codes, {0, 1, 0, 4, 0, 1});
    QCOMPARE(other.picked, std::int64_t{1});
    QCOMPARE(other.inlier_high, 0.0f);
    QVERIFY(std::isnan(other.inlier_low));
    QVERIFY(quantizer_grid(o, x, codes, {0, 2, 0, 4, 0, 2}, 3).levels.empty());
    QCOMPARE(quantizer_grid(o, x, codes, {0, 2, 0, 4, 0, 2}, 3).groups, std::int64_t{4});
    QVERIFY_EXCEPTION_THROWN(quantizer_grid(o, test::gaussian({2, 3, 2}, 1), codes, {}), Error);
  }

  void columnsTakeTheGivenOrder() {
    const TensorView plane = TensorView::own({1, 2, 3, 4, 5, 6}, {2, 3});
    const TensorView turned = columns_in_order(plane, {2, 0, 1});
    QCOMPARE(std::vector<float>(turned.values().begin(), turned.values().end()),
             (std::vector<float>{3, 1, 2, 6, 4, 5}));
    QVERIFY_EXCEPTION_THROWN(columns_in_order(plane, {0, 1}), Error);
    QVERIFY_EXCEPTION_THROWN(columns_in_order(plane, {0, 1, 3}), Error);
  }

  void disagreementNeedsBothOrdersToDiffer() {
    QCOMPARE(disagreements({{"a", 0.1, 0.5}, {"b", 0.2, 0.3}, {"c", 0.3, 0.9}}),
             (std::vector<bool>{true, true, false}));
    QCOMPARE(disagreements({{"a", 0.1, 0.2}, {"b", 0.2, 0.3}}), (std::vector<bool>{false, false}));
    QCOMPARE(disagreements({{"a", 0.1, std::nan("")}, {"b", 0.2, 0.3}}), (std::vector<bool>{false, false}));
  }
};

QTEST_APPLESS_MAIN(TestAnalysisTensor)
#include "tst_analysis_tensor.moc"
