#include <QtTest>
#include <cmath>

#include "analysis/locality.h"
#include "backend/types/error.h"
#include "tests/support/tensor_scenes.h"

using namespace qs;
using namespace qs::analysis;

namespace {

/// softmax(q k / sqrt(d)) in double, one element after another.
std::vector<std::vector<double>> brute(const AttentionInput& in, std::int64_t head) {
  const std::int64_t tokens = in.tokens(), dim = in.query.shape[2], kv = head / (in.query.shape[0] / in.key.shape[0]);
  std::vector<std::vector<double>> rows;
  for (std::int64_t q = 0; q < tokens; ++q) {
    std::vector<double> row(static_cast<std::size_t>(tokens));
    const std::int64_t start = in.window ? q / in.window * in.window : 0;
    double sum = 0;
    for (std::int64_t k = start; k <= q; ++k) {
      double s = 0;
      for (std::int64_t d = 0; d < dim; ++d)
        s += static_cast<double>(in.query.data[(head * tokens + q) * dim + d]) *
             in.key.data[(kv * tokens + k) * dim + d];
      row[static_cast<std::size_t>(k)] = std::exp(s / std::sqrt(static_cast<double>(dim)));
      sum += row[static_cast<std::size_t>(k)];
    }
    for (double& v : row) v /= sum;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

class TestAnalysisLocality : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void tilesMatchBruteForceInDouble_data() {
    QTest::addColumn<int>("window");
    QTest::addColumn<bool>("stored");
    QTest::newRow("one sequence") << 0 << false;
    QTest::newRow("windows of 50") << 50 << false;
    QTest::newRow("with log-sum-exp") << 0 << true;
    QTest::newRow("windows with log-sum-exp") << 33 << true;
  }
  void tilesMatchBruteForceInDouble() {
    QFETCH(int, window);
    QFETCH(bool, stored);
    AttentionInput in = test::attention_input(4, 2, 150, 16, 11);
    in.window = window;
    if (stored) {
      std::vector<float> lse;
      for (std::int64_t h = 0; h < 4; ++h) {
        for (std::int64_t q = 0; q < 150; ++q) {
          double sum = 0;
          for (std::int64_t k = window ? q / window * window : 0; k <= q; ++k) {
            double s = 0;
            for (std::int64_t d = 0; d < 16; ++d)
              s += static_cast<double>(in.query.data[(h * 150 + q) * 16 + d]) * in.key.data[(h / 2 * 150 + k) * 16 + d];
            sum += std::exp(s / 4.0);
          }
          lse.push_back(static_cast<float>(std::log(sum)));
        }
      }
      in.log_sum_exp = TensorView::own(lse, {4, 150});
    }
    for (const std::int64_t head : {0, 3}) {
      const auto expected = brute(in, head);
      const TensorView tile = attention_tile(in, head, 20, 141, 7, 130);
      for (std::int64_t q = 20; q < 141; ++q)
        for (std::int64_t k = 7; k < 130; ++k) {
          const double want = k <= q ? expected[static_cast<std::size_t>(q)][static_cast<std::size_t>(k)] : 0.0;
          QVERIFY(std::fabs(tile.data[(q - 20) * 123 + k - 7] - want) < 2e-5);
        }
    }
  }

  void massAgainstDistanceMatchesBruteForce() {
    for (const int window : {0, 40}) {
      AttentionInput in = test::attention_input(2, 1, 120, 8, 5);
      in.window = window;
      const HeadLocality h = head_locality(in, 1, 4, 0);
      const auto rows = brute(in, 1);
      double sink = 0, entropy = 0, within3 = 0;
      for (std::int64_t q = 0; q < 120; ++q) {
        const std::int64_t start = window ? q / window * window : 0;
        for (std::int64_t k = start; k <= q; ++k) {
          const double m = rows[static_cast<std::size_t>(q)][static_cast<std::size_t>(k)];
          if (k - start < 4) sink += m / 120;
          if (m > 0) entropy -= m * std::log(m) / 120;
          if (q - k < 3) within3 += m / 120;
        }
      }
      QCOMPARE(h.queries, std::int64_t{120});
      QVERIFY(std::fabs(h.sink_mass - sink) < 1e-5);
      QVERIFY(std::fabs(h.entropy_nats - entropy) < 1e-4);
      QVERIFY(std::fabs(h.mass_within(3) - within3) < 1e-5);
      QVERIFY(std::fabs(h.mass_within(120) - 1.0) < 1e-4);
      QVERIFY(std::fabs(h.mean.back() - 1.0) < 1e-4);
      QVERIFY(std::is_sorted(h.mean.begin(), h.mean.end()));
      for (std::size_t i = 0; i < h.mean.size(); ++i) QVERIFY(h.lower[i] <= h.upper[i]);
    }
  }

  void sampledQueriesAreEvenlySpaced() {
    const AttentionInput in = test::attention_input(1, 1, 300, 8, 5);
    QCOMPARE(head_locality(in, 0, 4, 100).queries, std::int64_t{100});
    QCOMPARE(head_locality(in, 0, 4, 3).queries, std::int64_t{3});
  }

  void massOnQuantizedKeysMatchesBruteForce() {
    // Sinks of 2, a block of 8 that is quantized when it is full, and everything; windows of 32 tokens.
    AttentionInput in = test::attention_input(2, 1, 96, 8, 5);
    in.window = 32;
    QuantizedKeys blocks, all;
    for (std::int64_t place = 0; place < 32; ++place) {
      blocks.push_back({2, std::max<std::int64_t>(2, place / 8 * 8)});
      all.push_back({0, 32});
    }
    const auto rows = brute(in, 1);
    double expected = 0.0;
    for (std::int64_t q = 0; q < 96; ++q)
      for (std::int64_t k = q / 32 * 32 + 2; k < q / 32 * 32 + q % 32 / 8 * 8; ++k)
        expected += rows[static_cast<std::size_t>(q)][static_cast<std::size_t>(k)] / 96;
    const HeadLocality head = head_locality(in, 1, 4, 0, {}, {blocks, all});
    QCOMPARE(head.quantized_mass.size(), std::size_t{2});
    QVERIFY2(std::fabs(head.quantized_mass[0] - expected) < 1e-5, qPrintable(QString::number(head.quantized_mass[0])));
    QVERIFY(std::fabs(head.quantized_mass[1] - 1.0) < 1e-4);
  }

  void pooledMapsKeepTheMaximumAndTheMass() {
    const AttentionInput in = test::attention_input(1, 1, 130, 8, 7);
    const PooledAttention pooled = pooled_attention(in, 0, 40);
    QCOMPARE(pooled.factor, std::int64_t{4});
    const auto rows = brute(in, 0);
    double largest = 0, mass = 0;
    for (std::int64_t q = 8; q < 12; ++q)
      for (std::int64_t k = 0; k < 4; ++k)
        largest = std::max(largest, rows[static_cast<std::size_t>(q)][static_cast<std::size_t>(k)]),
        mass += rows[static_cast<std::size_t>(q)][static_cast<std::size_t>(k)];
    QVERIFY(std::fabs(pooled.max.data[2 * 33] - largest) < 1e-5);
    QVERIFY(std::fabs(pooled.mean.data[2 * 33] - mass / 16) < 1e-5);
    QCOMPARE(pooled_attention(in, 0, 200).factor, std::int64_t{1});
  }

  void tokenAttentionIsARowAndAColumn() {
    const AttentionInput in = test::attention_input(2, 2, 60, 8, 3);
    const TokenAttention t = token_attention(in, 1, 20);
    const auto rows = brute(in, 1);
    QVERIFY(std::fabs(t.given[0] - rows[20][0]) < 1e-5);
    QVERIFY(std::fabs(t.received[45] - rows[45][20]) < 1e-5);
    QCOMPARE(t.received[3], 0.0f);
    QCOMPARE(t.given[21], 0.0f);
  }

  void whatDoesNotFitIsRefused() {
    AttentionInput in = test::attention_input(2, 2, 20, 8, 3);
    QVERIFY_EXCEPTION_THROWN(attention_tile(in, 2, 0, 1, 0, 1), Error);
    QVERIFY_EXCEPTION_THROWN(attention_tile(in, 0, 0, 21, 0, 1), Error);
    QVERIFY_EXCEPTION_THROWN(token_attention(in, 0, 20), Error);
    in.key = test::gaussian({3, 20, 8}, 1);
    QVERIFY_EXCEPTION_THROWN(head_locality(in, 0, 4, 0), Error);
  }
};

QTEST_APPLESS_MAIN(TestAnalysisLocality)
#include "tst_analysis_locality.moc"
