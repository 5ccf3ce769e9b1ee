#include <QtTest>
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

using namespace qs::kernels;

namespace {

/// Random packed tokens of some heads, and a segment of one of them.
struct Scene {
  std::int64_t head_dim = 0, tokens = 0;
  std::vector<std::uint8_t> codes;
  std::vector<std::uint8_t> scale, group_min;  ///< bytes of either format
  std::vector<std::int32_t> group_of;
  Segment segment;
};

template <typename T>
T pick(std::mt19937_64& generator, std::initializer_list<T> values) {
  return values.begin()[generator() % values.size()];
}

std::vector<std::uint8_t> parameters(std::mt19937_64& generator, ParameterFormat format, std::int64_t count,
                                     float low) {
  std::uniform_real_distribution<float> uniform(low, 2.0F);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = generator() % 9 == 0 ? 0.001F * uniform(generator) : uniform(generator);
  std::vector<std::uint8_t> bytes(values.size() * (format == ParameterFormat::F32   ? 4
                                                   : format == ParameterFormat::F16 ? 2
                                                                                    : 1));
  if (format == ParameterFormat::F32)
    std::copy_n(reinterpret_cast<const std::uint8_t*>(values.data()), bytes.size(), bytes.data());
  if (format == ParameterFormat::F16)
    f32_to_f16_scalar(values.data(), reinterpret_cast<std::uint16_t*>(bytes.data()), count);
  if (format == ParameterFormat::E4M3) f32_to_e4m3(values.data(), bytes.data(), count);
  if (format == ParameterFormat::E5M2) f32_to_e5m2(values.data(), bytes.data(), count);
  return bytes;
}

Scene random_scene(std::mt19937_64& generator) {
  Scene scene;
  scene.head_dim = pick<std::int64_t>(generator, {8, 16, 24, 32, 64, 96, 128});
  scene.tokens = pick<std::int64_t>(generator, {1, 2, 7, 64, 128});
  const std::int64_t heads = pick<std::int64_t>(generator, {1, 2, 5}),
                     head = static_cast<std::int64_t>(generator() % heads);
  const int bits = pick(generator, {kTritBits, kTritBits, 2, 2, 3, 4, 8});
  const std::int64_t width = heads * scene.head_dim,
                     groups = pick<std::int64_t>(generator, {1, 2, 3, 8, 9, 16, 20, 33, 64});
  const std::int64_t row = bits == kTritBits ? u8_trit5_bytes(width) : packed_row_bytes(scene.head_dim, bits);
  const std::int64_t stride = bits == kTritBits ? row : heads * row;
  scene.codes.resize(static_cast<std::size_t>(scene.tokens * stride));
  for (std::uint8_t& byte : scene.codes)
    byte = static_cast<std::uint8_t>(generator() % (bits == kTritBits ? 243 : 256));
  const auto format =
      pick(generator, {ParameterFormat::F16, ParameterFormat::F32, ParameterFormat::E4M3, ParameterFormat::E5M2});
  scene.scale = parameters(generator, format, scene.tokens * groups, 0.0F);
  scene.group_min = parameters(generator, format, scene.tokens * groups, -2.0F);
  const int kind = static_cast<int>(generator() % 3);
  for (std::int64_t d = 0; d < scene.head_dim; ++d) {
    const std::int64_t place = kind == 0   ? d / 16
                               : kind == 1 ? d * groups / scene.head_dim
                                           : static_cast<std::int64_t>(generator());
    scene.group_of.push_back(
        static_cast<std::int32_t>(static_cast<std::uint64_t>(place) % static_cast<std::uint64_t>(groups)));
  }
  const auto [least, most] = std::minmax_element(scene.group_of.begin(), scene.group_of.end());
  const std::int64_t first = *least, count = *most - *least + 1;
  bool in_sixteens = true;
  for (std::int64_t d = 0; d < scene.head_dim; ++d) {
    scene.group_of[d] -= static_cast<std::int32_t>(first);
    in_sixteens = in_sixteens && scene.group_of[d] == scene.group_of[d / 16 * 16];
  }
  scene.segment = {.storage = Storage::Grouped,
                   .bits = bits,
                   .tokens = scene.tokens,
                   .data = scene.codes.data() + (bits == kTritBits ? 0 : head * row),
                   .stride = stride,
                   .grouped = {.scale = scene.scale.data(),
                               .group_min = scene.group_min.data(),
                               .format = format,
                               .groups = groups,
                               .first_group = first,
                               .head_groups = count,
                               .group_of = scene.group_of.data(),
                               .in_sixteens = in_sixteens,
                               .first_channel = head * scene.head_dim,
                               .plane_bytes = row}};
  return scene;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double(a[i]) - double(b[i])));
  return most;
}

}  // namespace

class TestKernelsGrouped : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void kernelSetsAgree_data() {
    QTest::addColumn<int>("seed");
    for (int seed = 0; seed < 200; ++seed) QTest::addRow("%d", seed) << seed;
  }
  void kernelSetsAgree() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    std::normal_distribution<float> normal(0.0F, 1.0F);
    const Scene scene = random_scene(generator);
    const std::int64_t begin = static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(scene.tokens)),
                       count = scene.tokens - begin;
    const std::int64_t queries = 1 + static_cast<std::int64_t>(generator() % 4);
    std::vector<float> query(static_cast<std::size_t>(queries * scene.head_dim)),
        weights(kTileQueries * kTileTokens + kTilePadding);
    for (float& value : query) value = normal(generator);
    for (float& value : weights) value = static_cast<float>(generator() % 1000) / 1000.0F;
    const TileArgs tile{
        .segment = &scene.segment, .begin = begin, .count = count, .queries = queries, .head_dim = scene.head_dim};

    // Keys rotated by a random table, with positions counted or listed.
    std::vector<std::int64_t> positions(static_cast<std::size_t>(scene.tokens + 5));
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int64_t>(3 * i % 50 + i);
    const std::int64_t half = scene.head_dim / pick<std::int64_t>(generator, {2, 2, 4});
    std::vector<float> table(static_cast<std::size_t>((scene.tokens + 60) * 2 * half));
    for (float& value : table) value = normal(generator);
    const KeyRotation rotation{table.data(), half, generator() % 2 == 0 ? positions.data() : nullptr};
    TileArgs turned = tile;
    turned.rotation = &rotation;
    turned.token = begin + 2;

    const auto run = [&](const KernelSet& set, std::vector<float>& rows, std::vector<float>& scores,
                         std::vector<float>& rotated, std::vector<float>& out) {
      rows.assign(static_cast<std::size_t>(count * (scene.head_dim + 8)), -7.0F);
      scores.assign(kTileQueries * kTileTokens + kTilePadding, 0.0F);
      out.assign(static_cast<std::size_t>(queries * scene.head_dim), 0.5F);
      set.decode_grouped(scene.segment, begin, count, scene.head_dim, rows.data(), scene.head_dim + 8);
      set.key_scores(tile, query.data(), scores.data());
      set.value_sums(tile, weights.data(), out.data());
      rotated.assign(scores.size(), 0.0F);
      set.key_scores(turned, query.data(), rotated.data());
    };
    std::vector<float> rows, scores, rotated, out;
    run(*kernel_set(SetName::Scalar), rows, scores, rotated, out);
    // The scalar form against the definition, once more by hand.
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(scene.head_dim));
    for (std::int64_t t = 0; t < count; ++t) {
      unpack_grouped_row(scene.segment, begin + t, scene.head_dim, codes.data());
      const GroupedParameters& p = scene.segment.grouped;
      for (std::int64_t d = 0; d < scene.head_dim; ++d) {
        const std::int64_t at = (begin + t) * p.groups + p.first_group + p.group_of[d];
        const float value =
            float(codes[d]) * read_parameter(p.format, p.scale, at) + read_parameter(p.format, p.group_min, at);
        QCOMPARE(rows[static_cast<std::size_t>(t * (scene.head_dim + 8) + d)], value);
      }
      QCOMPARE(rows[static_cast<std::size_t>(t * (scene.head_dim + 8) + scene.head_dim)], -7.0F);
    }
    for (const SetName id : {SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(id);
      if (set == nullptr) continue;
      std::vector<float> their_rows, their_scores, their_rotated, their_out;
      run(*set, their_rows, their_scores, their_rotated, their_out);
      QVERIFY2(their_rows == rows, set->name);
      const double size = scene.segment.bits == 8 ? 255.0 : 16.0;
      QVERIFY2(largest_difference(their_scores, scores) < 1e-5 * size * static_cast<double>(scene.head_dim), set->name);
      QVERIFY2(largest_difference(their_rotated, rotated) < 4e-5 * size * static_cast<double>(scene.head_dim),
               set->name);
      QVERIFY2(largest_difference(their_out, out) < 1e-5 * size * static_cast<double>(count + 1), set->name);
    }
  }
};

QTEST_APPLESS_MAIN(TestKernelsGrouped)
#include "tst_kernels_grouped.moc"
