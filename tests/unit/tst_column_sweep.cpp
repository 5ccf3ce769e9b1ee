#include <QTest>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/dispatch.h"

using namespace qs::kernels;

namespace {

/// A weight with a factor V of some positive definite matrix, and groups of columns with grids that fit roughly.
struct Scene {
  std::int64_t rows = 0, columns = 0, groups = 0;
  int bits = 0;
  std::vector<float> weights;  ///< [rows][columns]
  std::vector<float> factor;   ///< [columns][columns], rubbish below the diagonal
  std::vector<float> scale, zero_point;
  std::vector<std::int32_t> group;
  bool real_zero = false;
  float threshold = std::numeric_limits<float>::infinity();

  std::int64_t tiles() const { return (rows + kSweepRows - 1) / kSweepRows; }
};

Scene random_scene(std::mt19937_64& generator) {
  std::normal_distribution<float> normal(0.0F, 1.0F);
  Scene scene;
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(high - low + 1));
  };
  scene.rows = pick(1, 70), scene.columns = pick(1, 90), scene.groups = pick(1, 5);
  scene.bits = static_cast<int>(pick(2, 8));
  scene.real_zero = pick(0, 1) == 1;
  if (pick(0, 1) == 1) scene.threshold = 0.02F;
  scene.weights.resize(static_cast<std::size_t>(scene.rows * scene.columns));
  for (float& w : scene.weights) w = normal(generator);
  scene.factor.resize(static_cast<std::size_t>(scene.columns * scene.columns));
  for (float& v : scene.factor) v = 0.2F * normal(generator);
  for (std::int64_t j = 0; j < scene.columns; ++j)
    scene.factor[static_cast<std::size_t>(j * scene.columns + j)] = 0.5F + 0.1F * static_cast<float>(pick(0, 20));
  const std::int64_t entries = scene.groups * scene.tiles() * kSweepRows;
  for (std::int64_t i = 0; i < entries; ++i) {
    const float steps = static_cast<float>((1 << scene.bits) - 1);
    scene.scale.push_back((3.0F + 0.01F * static_cast<float>(pick(0, 99))) / steps);
    scene.zero_point.push_back(std::nearbyint(steps / 2) + (scene.real_zero ? 0.3F * normal(generator) : 0.0F));
  }
  for (std::int64_t j = 0; j < scene.columns; ++j)
    scene.group.push_back(static_cast<std::int32_t>(pick(0, scene.groups - 1)));
  return scene;
}

/// The matrix of a Scene swept in blocks, everything in tiles.
struct Swept {
  std::vector<float> differences, expected, kept;
  std::vector<std::uint8_t> codes, outliers;
  std::vector<double> loss, squared;

  bool operator==(const Swept&) const = default;
};

/// @param weights  in tiles
Swept sweep(const Scene& scene, std::vector<float> weights, std::int64_t block, const KernelSet& set) {
  const auto count = static_cast<std::size_t>(scene.tiles() * scene.columns * kSweepRows);
  const auto padded = static_cast<std::size_t>(scene.tiles() * kSweepRows);
  Swept swept{{},
              std::vector<float>(count),
              std::vector<float>(count),
              std::vector<std::uint8_t>(count),
              std::vector<std::uint8_t>(count),
              std::vector<double>(padded),
              std::vector<double>(padded)};
  for (std::int64_t begin = 0; begin < scene.columns; begin += block) {
    const std::int64_t columns = std::min(block, scene.columns - begin), wide = sweep_columns(columns);
    std::vector<float> strips(static_cast<std::size_t>(wide * begin));
    std::vector<float> sums(static_cast<std::size_t>(scene.tiles() * wide * kSweepRows));
    pack_factor_strips(scene.factor.data(), scene.columns, begin, begin, columns, 0, wide / kSweepStrip, strips.data());
    set.accumulate_sums({weights.data(), scene.tiles(), scene.columns, begin, strips.data(), columns, sums.data()});
    for (std::int64_t t = 0; t < scene.tiles(); ++t) {
      const std::int64_t place = (t * scene.columns + begin) * kSweepRows;
      SweepTile tile{weights.data() + place,
                     sums.data() + t * wide * kSweepRows,
                     scene.factor.data() + begin * scene.columns + begin,
                     scene.columns,
                     columns,
                     0,
                     columns};
      set.expect_weights(tile, swept.expected.data() + place);
      SweepGrid grid;
      grid.scale = scene.scale.data() + t * kSweepRows;
      grid.zero_point = scene.zero_point.data() + t * kSweepRows;
      grid.group = scene.group.data() + begin;
      grid.group_stride = scene.tiles() * kSweepRows;
      grid.top = static_cast<float>((1 << scene.bits) - 1);
      grid.real_zero = scene.real_zero;
      grid.threshold = scene.threshold;
      grid.codes = swept.codes.data() + place;
      if (std::isfinite(scene.threshold)) {
        grid.outliers = swept.outliers.data() + place;
        grid.kept = swept.kept.data() + place;
      }
      grid.loss = swept.loss.data() + t * kSweepRows;
      grid.squared = swept.squared.data() + t * kSweepRows;
      // In two steps, as a group that ends inside the block makes it.
      tile.last = columns / 2;
      set.quantize_columns_in_order(tile, grid);
      tile.first = tile.last, tile.last = columns;
      set.quantize_columns_in_order(tile, grid);
    }
  }
  swept.differences = weights;
  return swept;
}

std::vector<float> in_tiles(const Scene& scene) {
  std::vector<float> tiled(static_cast<std::size_t>(scene.tiles() * scene.columns * kSweepRows));
  for (std::int64_t row = 0; row < scene.rows; ++row)
    for (std::int64_t j = 0; j < scene.columns; ++j)
      tiled[static_cast<std::size_t>((row / kSweepRows * scene.columns + j) * kSweepRows + row % kSweepRows)] =
          scene.weights[static_cast<std::size_t>(row * scene.columns + j)];
  return tiled;
}

/// U = V⁻¹ by back substitution, in f64.
std::vector<double> inverse_of_factor(const Scene& scene) {
  const std::int64_t n = scene.columns;
  std::vector<double> u(static_cast<std::size_t>(n * n));
  const auto v = [&](std::int64_t i, std::int64_t j) {
    return static_cast<double>(scene.factor[static_cast<std::size_t>(i * n + j)]);
  };
  for (std::int64_t j = 0; j < n; ++j) {
    u[static_cast<std::size_t>(j * n + j)] = 1.0 / v(j, j);
    for (std::int64_t i = j - 1; i >= 0; --i) {
      double sum = 0.0;
      for (std::int64_t k = i + 1; k <= j; ++k) sum += v(i, k) * u[static_cast<std::size_t>(k * n + j)];
      u[static_cast<std::size_t>(i * n + j)] = -sum / v(i, i);
    }
  }
  return u;
}

}  // namespace

class TestColumnSweep : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void setsAndBlocksGiveTheSameBits_data() {
    QTest::addColumn<int>("seed");
    for (int seed = 0; seed < 60; ++seed) QTest::addRow("%d", seed) << seed;
  }

  /// Codes, differences, outliers and losses do not depend on the instruction set, nor on the block.
  void setsAndBlocksGiveTheSameBits() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    const Scene scene = random_scene(generator);
    const std::vector<float> weights = in_tiles(scene);
    const Swept whole = sweep(scene, weights, scene.columns, *kernel_set(SetName::Scalar));
    for (const std::int64_t block : {std::int64_t{1}, std::int64_t{7}, std::int64_t{32}}) {
      Swept blocks = sweep(scene, weights, block, *kernel_set(SetName::Scalar));
      for (const SetName name : {SetName::Avx2, SetName::Avx512}) {
        const KernelSet* const set = kernel_set(name);
        if (set != nullptr) QVERIFY(sweep(scene, weights, block, *set) == blocks);
      }
      // What a block expects before it begins does depend on where it begins.
      blocks.expected = whole.expected;
      QVERIFY(blocks == whole);
    }
  }

  void isAlgorithm1_data() { setsAndBlocksGiveTheSameBits_data(); }

  /// Algorithm 1 as it is printed, with U = V⁻¹ in f64. It follows the codes of the sweep, so that a tie does not part
  /// them, and looks at every weight that was rounded.
  void isAlgorithm1() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    const Scene scene = random_scene(generator);
    const Swept swept = sweep(scene, in_tiles(scene), 16, kernel_set());
    const std::vector<double> u = inverse_of_factor(scene);
    const std::int64_t n = scene.columns;
    const double top = (1 << scene.bits) - 1;
    for (std::int64_t row = 0; row < scene.rows; ++row) {
      std::vector<double> w(scene.weights.begin() + row * n, scene.weights.begin() + (row + 1) * n);
      double loss = 0.0;
      for (std::int64_t j = 0; j < n; ++j) {
        const auto at = static_cast<std::size_t>((row / kSweepRows * n + j) * kSweepRows + row % kSweepRows);
        const auto grid =
            static_cast<std::size_t>(scene.group[static_cast<std::size_t>(j)] * scene.tiles() * kSweepRows + row);
        const double scale = scene.scale[grid], zero = scene.zero_point[grid], x = w[static_cast<std::size_t>(j)];
        const double diagonal = u[static_cast<std::size_t>(j * n + j)];
        double error = 0.0;
        if (swept.outliers[at] != 0) {
          QVERIFY(std::abs(swept.kept[at] - x) < 1e-3 * (1.0 + std::abs(x)));
          QCOMPARE(double(swept.codes[at]), std::min(top, std::max(0.0, std::nearbyint(zero))));
        } else {
          const double code = swept.codes[at], exact = std::min(top, std::max(0.0, x / scale + zero));
          QVERIFY2(std::abs(code - exact) < 0.5 + 1e-3 * top, qPrintable(QString("%1 %2").arg(code).arg(exact)));
          error = (x - scale * (code - zero)) / diagonal;
          QVERIFY(error * error <= static_cast<double>(scene.threshold) * 1.01 + 1e-3);
        }
        loss += 0.5 * error * error;
        for (std::int64_t k = j; k < n; ++k)
          w[static_cast<std::size_t>(k)] -= error * u[static_cast<std::size_t>(j * n + k)];
      }
      const double own = swept.loss[static_cast<std::size_t>(row)];
      QVERIFY2(std::abs(own - loss) <= 1e-3 * (1.0 + loss), qPrintable(QString("%1 %2").arg(own).arg(loss)));
    }
  }

  void withoutAFactorIsRoundingToNearest() {
    std::mt19937_64 generator(3);
    Scene scene = random_scene(generator);
    scene.real_zero = false;
    for (float& zero_point : scene.zero_point) zero_point = std::nearbyint(zero_point);
    std::vector<float> weights = in_tiles(scene);
    const std::vector<float> before = weights;
    std::vector<float> sums(weights.size(), 0.0F);
    std::vector<std::uint8_t> codes(weights.size());
    std::vector<double> loss(kSweepRows), squared(kSweepRows);
    SweepTile tile{weights.data(), sums.data(), nullptr, 0, scene.columns, 0, scene.columns};
    SweepGrid grid;
    grid.scale = scene.scale.data(), grid.zero_point = scene.zero_point.data();
    grid.group = scene.group.data(), grid.group_stride = scene.tiles() * kSweepRows;
    grid.top = static_cast<float>((1 << scene.bits) - 1);
    grid.codes = codes.data(), grid.loss = loss.data(), grid.squared = squared.data();
    kernel_set().quantize_columns_in_order(tile, grid);
    for (std::int64_t j = 0; j < scene.columns; ++j) {
      for (std::int64_t r = 0; r < kSweepRows; ++r) {
        const auto at = static_cast<std::size_t>(j * kSweepRows + r);
        const auto of = static_cast<std::size_t>(scene.group[static_cast<std::size_t>(j)] * grid.group_stride + r);
        const float code = std::nearbyint(before[at] / scene.scale[of]) + scene.zero_point[of];
        QCOMPARE(static_cast<float>(codes[at]), std::min(grid.top, std::max(0.0F, code)));
      }
    }
  }
};

QTEST_GUILESS_MAIN(TestColumnSweep)
#include "tst_column_sweep.moc"
