#include <QTest>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"

using namespace qs::kernels;

namespace {

/// A statistic and what it decodes to.
struct Statistic {
  std::vector<std::uint8_t> packed;
  std::vector<std::uint16_t> scale, zero, plain;
  std::vector<float> values;  ///< [groups][out_features]
  SpqrStatistic form;
};

struct Scene {
  SpqrWeight weight;
  Statistic scales, zeros;
  std::vector<std::uint8_t> packed;
  std::vector<std::int32_t> rows;
  std::vector<std::uint16_t> columns, kept;
  std::vector<double> dense;  ///< [out_features][in_features]: what the product is of
};

std::uint16_t half(float x) {
  std::uint16_t bits = 0;
  f32_to_f16_scalar(&x, &bits, 1);
  return bits;
}

template <typename T>
T pick(std::mt19937_64& generator, std::initializer_list<T> values) {
  return values.begin()[generator() % values.size()];
}

/// @param kind  0: second level, 1: plain, 2: one constant
void fill(Statistic& statistic, std::mt19937_64& generator, const SpqrWeight& weight, int kind, float low, float high) {
  std::uniform_real_distribution<float> uniform(low, high);
  const std::int64_t groups = weight.in_features / weight.group_size, out = weight.out_features;
  statistic.values.resize(static_cast<std::size_t>(groups * out));
  if (kind == 2) {
    statistic.form.constant = uniform(generator);
    std::fill(statistic.values.begin(), statistic.values.end(), statistic.form.constant);
  } else if (kind == 1) {
    for (float& value : statistic.values) {
      statistic.plain.push_back(half(uniform(generator)));
      value = f16_to_f32(statistic.plain.back());
    }
    statistic.form.plain = statistic.plain.data();
  } else {
    statistic.form.bits = pick(generator, {1, 3, 3, 3, 4, 5, 8});
    const int codes = 1 << statistic.form.bits;
    std::vector<std::uint8_t> raw(statistic.values.size());
    for (std::int64_t i = 0; i < groups * (out / weight.run); ++i) {
      statistic.scale.push_back(half((high - low) / static_cast<float>(codes)));
      statistic.zero.push_back(half(-low / ((high - low) / static_cast<float>(codes)) + 0.1F * uniform(generator)));
    }
    for (std::size_t i = 0; i < raw.size(); ++i) {
      raw[i] = static_cast<std::uint8_t>(generator() % static_cast<unsigned>(codes));
      const std::int64_t group = static_cast<std::int64_t>(i) / out, row = static_cast<std::int64_t>(i) % out;
      const auto second = static_cast<std::size_t>(group * (out / weight.run) + row / weight.run);
      statistic.values[i] =
          f16_to_f32(statistic.scale[second]) * (static_cast<float>(raw[i]) - f16_to_f32(statistic.zero[second]));
    }
    statistic.packed.resize(static_cast<std::size_t>(bit_stream_bytes(groups * out, statistic.form.bits)));
    pack_bit_stream(raw.data(), groups * out, statistic.form.bits, statistic.packed.data());
    statistic.form.codes = statistic.packed.data();
    statistic.form.scale = statistic.scale.data();
    statistic.form.zero = statistic.zero.data();
  }
}

void build(Scene& scene, std::mt19937_64& generator) {
  SpqrWeight& weight = scene.weight;
  weight.bits = pick(generator, {2, 3, 3, 3, 4, 8});
  weight.group_size = pick<std::int64_t>(generator, {8, 16, 16, 16, 24, 32, 64});
  weight.in_features = weight.group_size * static_cast<std::int64_t>(1 + generator() % 9);
  weight.out_features = pick<std::int64_t>(generator, {1, 5, 8, 16, 24, 40, 48, 72, 80});
  weight.run = pick<std::int64_t>(generator, {1, weight.out_features, weight.out_features % 8 == 0 ? 8 : 1,
                                              weight.out_features % 16 == 0 ? 16 : 1});
  fill(scene.scales, generator, weight, static_cast<int>(generator() % 2), 0.01F, 0.1F);
  for (float& scale : scene.scales.values) scale = f16_to_f32(half(scale));
  const float top = static_cast<float>((1 << weight.bits) - 1);
  fill(scene.zeros, generator, weight, static_cast<int>(generator() % 3), -0.2F * top, 1.1F * top);
  weight.scales = scene.scales.form, weight.zeros = scene.zeros.form;

  const std::int64_t in = weight.in_features, out = weight.out_features;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(in * out));
  std::uniform_real_distribution<float> uniform(-3.0F, 3.0F);
  scene.rows.push_back(0);
  const unsigned rarity = pick(generator, {2U, 20U, 100U, 1000000U});
  for (std::int64_t o = 0; o < out; ++o) {
    for (std::int64_t i = 0; i < in; ++i) {
      const auto at = static_cast<std::size_t>(i / weight.group_size * out + o);
      const float scale = scene.scales.values[at], zero = scene.zeros.values[at];
      std::uint8_t& code = codes[static_cast<std::size_t>(o * in + i)];
      if (generator() % rarity == 0) {
        code = static_cast<std::uint8_t>(std::min(top, std::max(0.0F, std::nearbyint(zero))));
        scene.columns.push_back(static_cast<std::uint16_t>(i));
        scene.kept.push_back(half(uniform(generator)));
        scene.dense.push_back(f16_to_f32(scene.kept.back()));
      } else {
        code = static_cast<std::uint8_t>(generator() % (1U << weight.bits));
        scene.dense.push_back(static_cast<double>(scale) * (static_cast<double>(code) - static_cast<double>(zero)));
      }
    }
    scene.rows.push_back(static_cast<std::int32_t>(scene.columns.size()));
  }
  scene.packed.resize(static_cast<std::size_t>(out * packed_row_bytes(in, weight.bits)));
  pack_weight(codes.data(), out, in, weight.bits, scene.packed.data());
  weight.codes = scene.packed.data();
  weight.outlier_rows = scene.rows.data();
  weight.outlier_columns = scene.columns.data();
  weight.outlier_values = scene.kept.data();
}

}  // namespace

class TestSpqrProduct : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void equalsTheDequantizedProduct_data() {
    QTest::addColumn<int>("seed");
    for (int seed = 0; seed < 150; ++seed) QTest::addRow("%d", seed) << seed;
  }

  /// Every kernel set against f64, over random shapes, widths, runs, shares of outliers and numbers of tokens, with the
  /// rows in two parts.
  void equalsTheDequantizedProduct() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    Scene scene;
    build(scene, generator);
    const SpqrWeight& weight = scene.weight;
    const std::int64_t in = weight.in_features, out = weight.out_features, groups = in / weight.group_size;
    const auto tokens = static_cast<std::int64_t>(1 + generator() % 12);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> x(static_cast<std::size_t>(tokens * in)), sums(static_cast<std::size_t>(tokens * groups));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = normal(generator);
      sums[i / static_cast<std::size_t>(weight.group_size)] += x[i];
    }
    for (const SetName name : {SetName::Scalar, SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(name);
      if (set == nullptr) continue;
      std::vector<float> y(static_cast<std::size_t>(tokens * out), -7.0F);
      const std::int64_t middle = out / 2 / kWeightTileRows * kWeightTileRows;
      set->spqr_gemv(weight, {x.data(), tokens, y.data(), 0, middle}, sums.data());
      set->spqr_gemv(weight, {x.data(), tokens, y.data(), middle, out}, sums.data());
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t o = 0; o < out; ++o) {
          double expected = 0.0, size = 0.0;
          for (std::int64_t i = 0; i < in; ++i) {
            const double term =
                scene.dense[static_cast<std::size_t>(o * in + i)] * x[static_cast<std::size_t>(t * in + i)];
            expected += term;
            size += std::abs(term);
          }
          const double error = std::abs(y[static_cast<std::size_t>(t * out + o)] - expected);
          // f32 sums whose parts, codes and zeros apart, are larger than the terms.
          QVERIFY2(error <= 2e-5 * (size + 1.0),
                   qPrintable(QString("%1 row %2: %3 of %4").arg(set->name).arg(o).arg(error).arg(size)));
        }
      }
    }
  }
};

QTEST_GUILESS_MAIN(TestSpqrProduct)
#include "tst_spqr_product.moc"
