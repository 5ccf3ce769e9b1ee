#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <QtTest>

#include "backend/evaluation/median_time.h"
#include "backend/methods/bcq.h"
#include "backend/methods/lut_linear.h"

using namespace qs;

/// Time of a layer by number of tokens: where dequantizing blocks of rows overtakes the look-ups, and what searching
/// planes costs.
class BenchLutLinear : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void crossoverOfTokens() {
    const c10::InferenceMode no_grad;
    constexpr std::int64_t kSize = 4096;
    const at::Tensor dense = at::randn({kSize, kSize});
    for (const int bits : {2, 3, 4}) {
      const BcqWeight planes = bcq(dense, {bits, 128, 0, BcqAssign::Nearest, ScaleType::F16}, "w", {});
      for (const kernels::LutArithmetic arithmetic : {kernels::LutArithmetic::F32, kernels::LutArithmetic::Int16}) {
        const LutLinear layer(planes, ScaleType::F16, {}, arithmetic);
        for (const std::int64_t tokens : {1, 2, 4, 6, 8, 12, 16, 17, 32, 128}) {
          const at::Tensor x = at::randn({tokens, kSize});
          qInfo("%d bits, %s tables, %lld tokens, %d threads: %.2f ms, dense f32 %.2f ms", bits,
                arithmetic == kernels::LutArithmetic::F32 ? "f32" : "int16", static_cast<long long>(tokens),
                at::get_num_threads(), 1e3 * median_seconds([&] { at::Tensor y = layer.apply(x); }),
                1e3 * median_seconds([&] { at::Tensor y = at::matmul(x, dense.t()); }));
        }
      }
    }
  }

  void searchOfPlanes() {
    const at::Tensor w = at::randn({1024, 4096});
    for (const int bits : {2, 3, 4, 8})
      for (const int rounds : {0, 1, 30}) {
        const auto begin = std::chrono::steady_clock::now();
        const BcqWeight planes = bcq(w, {bits, 128, rounds, BcqAssign::Nearest, ScaleType::F16}, "w", {});
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        qInfo("%d bits, %d rounds, %d threads: %.1f ns a weight, mean squared error %.5f", bits, rounds,
              at::get_num_threads(), 1e9 * seconds / static_cast<double>(w.numel()),
              (planes.values - w).square().mean().item<double>());
      }
  }
};

QTEST_GUILESS_MAIN(BenchLutLinear)
#include "tst_bench_lut_linear.moc"
