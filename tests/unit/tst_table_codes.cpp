#include <QtTest>
#include <cmath>
#include <random>

#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"
#include "tests/support/kv_segments.h"

using namespace qs::kernels;
using kernel_fixture::normal_values;
using kernel_fixture::to_half;

namespace {

/// A table segment with rotation and sparse elements, with its storage.
struct TableFixture {
  std::int64_t head_dim, tokens;
  std::vector<float> table, channel_scale, channel_zero, rotation;
  std::vector<std::uint16_t> scale, zero;
  std::vector<std::uint8_t> codes, packed;
  std::vector<SparseElement> sparse;
  TableRows rows;
  Segment segment;

  TableFixture(int bits, std::int64_t head_dim, std::int64_t tokens, std::int64_t half, bool per_channel, unsigned seed)
      : head_dim(head_dim), tokens(tokens), table(kTableSize) {
    std::mt19937 random(seed);
    const std::vector<float> entries = normal_values(1 << bits, seed);
    fill_table(entries.data(), 1 << bits, table.data());
    channel_scale = normal_values(head_dim, seed + 1);
    channel_zero = normal_values(head_dim, seed + 2);
    scale = to_half(normal_values(tokens, seed + 3));
    zero = to_half(normal_values(tokens, seed + 4));
    const std::int64_t row_bytes = bit_stream_bytes(head_dim, bits);
    codes.resize(static_cast<std::size_t>(tokens * head_dim));
    packed.resize(static_cast<std::size_t>(tokens * row_bytes));
    for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random() % (1U << bits));
    for (std::int64_t t = 0; t < tokens; ++t)
      pack_bit_stream(codes.data() + t * head_dim, head_dim, bits, packed.data() + t * row_bytes);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        if (random() % 50 == 0)
          sparse.push_back({static_cast<std::uint16_t>(t), static_cast<std::uint16_t>(d), 0.1F * (random() % 100)});
      }
    }
    rows.table = table.data();
    rows.sparse = sparse.data();
    rows.sparse_count = static_cast<std::int64_t>(sparse.size());
    if (per_channel) {
      rows.channel_scale = channel_scale.data();
      rows.channel_zero = channel_zero.data();
    }
    if (half > 0) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (const bool sine : {false, true}) {
          for (std::int64_t i = 0; i < half; ++i) {
            const double angle = 0.37 * static_cast<double>(t) / static_cast<double>(1 + i);
            rotation.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
          }
        }
      }
      rows.rotation = rotation.data();
      rows.half = half;
    }
    segment = {.storage = Storage::Table,
               .bits = bits,
               .tokens = tokens,
               .data = packed.data(),
               .stride = row_bytes,
               .scale = scale.data(),
               .group_min = zero.data(),
               .scale_stride = 1,
               .rows = &rows};
  }

  /// What a token is, in double precision.
  std::vector<double> row(std::int64_t t, bool rotated) const {
    std::vector<double> x(static_cast<std::size_t>(head_dim));
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const double s = rows.channel_scale != nullptr ? channel_scale[d] : f16_to_f32(scale[t]);
      const double z = rows.channel_scale != nullptr ? channel_zero[d] : f16_to_f32(zero[t]);
      x[d] = table[codes[t * head_dim + d]] * s + z;
    }
    for (const SparseElement& element : sparse)
      if (element.token == t) x[element.channel] += element.excess;
    for (std::int64_t i = 0; rotated && i < rows.half; ++i) {
      const double c = rotation[t * 2 * rows.half + i], s = rotation[t * 2 * rows.half + rows.half + i];
      const double a = x[i], b = x[i + rows.half];
      x[i] = a * c - b * s;
      x[i + rows.half] = b * c + a * s;
    }
    return x;
  }
};

}  // namespace

class TestTableCodes : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void bitStreamsAreReadBack() {
    std::mt19937 random(1);
    for (int bits = 1; bits <= 8; ++bits) {
      for (const std::int64_t count : {0, 1, 7, 8, 31, 32, 100}) {
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(count)), back(codes.size());
        for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random() % (1U << bits));
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(bit_stream_bytes(count, bits)), 0xFF);
        pack_bit_stream(codes.data(), count, bits, bytes.data());
        unpack_bit_stream(bytes.data(), count, bits, back.data());
        QVERIFY(back == codes);
      }
    }
  }

  void aBitStreamIsTheContainerOfTheSpecification() {
    std::mt19937 random(2);
    std::vector<std::uint8_t> codes(64);
    std::vector<std::uint32_t> words(16), stream(16);
    for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random() % 4);
    for (const int bits : {2, 3, 4}) {
      std::fill(stream.begin(), stream.end(), 0U);
      std::fill(words.begin(), words.end(), 0U);
      pack_bit_stream(codes.data(), 64, bits, reinterpret_cast<std::uint8_t*>(stream.data()));
      bits == 3 ? pack_i32_3bit(codes.data(), 64, words.data()) : pack_i32_lsb(codes.data(), 64, bits, words.data());
      QVERIFY(stream == words);
    }
  }

  void everySetScoresAndSumsWhatTheTableSays_data() {
    QTest::addColumn<int>("set");
    QTest::addRow("scalar") << static_cast<int>(SetName::Scalar);
    QTest::addRow("avx2") << static_cast<int>(SetName::Avx2);
    QTest::addRow("avx512") << static_cast<int>(SetName::Avx512);
  }
  void everySetScoresAndSumsWhatTheTableSays() {
    QFETCH(int, set);
    const KernelSet* const kernels = kernel_set(static_cast<SetName>(set));
    if (kernels == nullptr) QSKIP("this processor does not have the set");
    unsigned seed = 0;
    for (const int bits : {2, 3, 4, 5}) {
      for (const std::int64_t head_dim : {8, 16, 32, 48, 64, 96, 128, 256}) {
        for (const std::int64_t half : {std::int64_t{0}, head_dim / 4, head_dim / 2}) {
          for (const std::int64_t queries : {1, 2, 3, 4}) {
            const std::int64_t tokens = 1 + (++seed * 37) % kTileTokens;
            TableFixture keys(bits, head_dim, tokens, half, true, seed);
            const std::int64_t begin = seed % 3 == 0 ? tokens / 3 : 0;
            TileArgs tile{&keys.segment, begin, tokens - begin, queries, head_dim};
            const std::vector<float> query = normal_values(queries * head_dim, seed);
            std::vector<float> scores(kTileQueries * kTileTokens + kTilePadding, -1.0F);
            kernels->key_scores(tile, query.data(), scores.data());
            for (std::int64_t t = 0; t < tile.count; ++t) {
              const std::vector<double> row = keys.row(begin + t, true);
              for (std::int64_t i = 0; i < queries; ++i) {
                double expected = 0.0, size = 1.0;
                for (std::int64_t d = 0; d < head_dim; ++d) {
                  expected += row[d] * query[i * head_dim + d];
                  size += std::fabs(row[d] * query[i * head_dim + d]);
                }
                QVERIFY2(std::fabs(scores[i * kTileTokens + t] - expected) < 1e-6 * size,
                         qPrintable(QString("bits %1 head_dim %2").arg(bits).arg(head_dim)));
              }
            }
            TableFixture values(bits, head_dim, tokens, 0, false, seed + 1000);
            tile.segment = &values.segment;
            std::vector<float> weights = normal_values(kTileQueries * kTileTokens + kTilePadding, seed + 5);
            std::vector<float> out(static_cast<std::size_t>(queries * head_dim), 0.5F);
            kernels->value_sums(tile, weights.data(), out.data());
            std::vector<double> expected(out.size(), 0.5), size(out.size(), 1.0);
            for (std::int64_t t = 0; t < tile.count; ++t) {
              const std::vector<double> row = values.row(begin + t, false);
              for (std::int64_t i = 0; i < queries; ++i)
                for (std::int64_t d = 0; d < head_dim; ++d) {
                  expected[i * head_dim + d] += weights[i * kTileTokens + t] * row[d];
                  size[i * head_dim + d] += std::fabs(weights[i * kTileTokens + t] * row[d]);
                }
            }
            for (std::size_t i = 0; i < out.size(); ++i)
              QVERIFY2(std::fabs(out[i] - expected[i]) < 2e-6 * size[i],
                       qPrintable(QString("bits %1 head_dim %2").arg(bits).arg(head_dim)));
          }
        }
      }
    }
  }

  void aSegmentDecodesToWhatItScores() {
    const TableFixture keys(3, 64, 50, 0, true, 7);
    std::vector<float> rows(50 * 64);
    decode_segment(keys.segment, 64, rows.data(), 64);
    for (std::int64_t t = 0; t < 50; ++t) {
      const std::vector<double> expected = keys.row(t, false);
      for (std::int64_t d = 0; d < 64; ++d) QVERIFY(std::fabs(rows[t * 64 + d] - expected[d]) < 1e-5);
    }
  }

  void everySetChoosesTheSameNearestLevels() {
    std::mt19937 random(3);
    for (const int bits : {2, 3, 4, 5}) {
      std::vector<float> levels = normal_values(1 << bits, static_cast<unsigned>(bits));
      std::sort(levels.begin(), levels.end());
      levels[1] = levels[0];  // the smaller code of two equal levels
      std::vector<float> y = normal_values(1003, 9);
      for (std::size_t i = 0; i + 1 < levels.size(); ++i) y[i] = 0.5F * (levels[i] + levels[i + 1]);  // ties
      std::vector<std::uint8_t> expected(y.size()), codes(y.size());
      nearest_levels_scalar(y.data(), 1003, levels.data(), 1 << bits, expected.data());
      for (std::size_t i = 0; i < y.size(); ++i) {
        for (std::size_t level = 0; level < levels.size(); ++level) {
          const float chosen = std::fabs(y[i] - levels[expected[i]]), other = std::fabs(y[i] - levels[level]);
          QVERIFY(level < expected[i] ? other > chosen : other >= chosen);
        }
      }
      for (const SetName set : {SetName::Avx2, SetName::Avx512}) {
        const KernelSet* const kernels = kernel_set(set);
        if (kernels == nullptr) continue;
        kernels->nearest_levels(y.data(), 1003, levels.data(), 1 << bits, codes.data());
        QVERIFY(codes == expected);
      }
    }
  }
};

QTEST_APPLESS_MAIN(TestTableCodes)
#include "tst_table_codes.moc"
