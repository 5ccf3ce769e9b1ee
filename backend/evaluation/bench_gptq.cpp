#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>

#include "backend/evaluation/bench.h"
#include "backend/methods/gptq.h"
#include "backend/methods/hessian.h"
#include "backend/methods/packed_linear.h"
#include "backend/methods/spqr.h"
#include "backend/methods/spqr_linear.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/threads.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Clock = std::chrono::steady_clock;

template <typename Call>
double seconds_of(Call&& call) {
  const auto begin = Clock::now();
  call();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The published program, statement by statement in LibTorch: the baseline of the bench.
struct Transcription {
  at::Tensor h;
  std::int64_t sequences = 0;

  void add_batch(const at::Tensor& x) {
    at::Tensor input = x.t().to(at::kFloat);
    if (!h.defined()) h = at::zeros({input.size(0), input.size(0)}, at::kFloat);
    h.mul_(static_cast<double>(sequences) / static_cast<double>(sequences + 1));
    ++sequences;
    input = input * std::sqrt(2.0 / static_cast<double>(sequences));
    h.add_(at::matmul(input, input.t()));
  }

  at::Tensor factor() const {
    at::Tensor damped = h.clone();
    at::Tensor diagonal = damped.diagonal();
    diagonal.masked_fill_(diagonal == 0, 1.0);
    diagonal.add_(0.01 * diagonal.mean().item<double>());
    return at::linalg_cholesky(at::cholesky_inverse(at::linalg_cholesky(damped)), true);
  }

  static at::Tensor codes(const at::Tensor& weight, const at::Tensor& inverse, int bits, std::int64_t block_size) {
    at::Tensor w = weight.clone(), result = at::zeros(weight.sizes(), at::kFloat), losses = at::zeros_like(w);
    const double top = (1 << bits) - 1;
    const at::Tensor low = w.amin(1).clamp_max(0), high = w.amax(1).clamp_min(0);
    const at::Tensor scale = ((high - low) / top).unsqueeze(1), zero = at::round(-low.unsqueeze(1) / scale);
    const std::int64_t columns = w.size(1);
    for (std::int64_t begin = 0; begin < columns; begin += block_size) {
      const std::int64_t end = std::min(begin + block_size, columns), count = end - begin;
      at::Tensor block = w.narrow(1, begin, count).clone(), errors = at::zeros_like(block),
                 block_losses = at::zeros_like(block);
      const at::Tensor u = inverse.narrow(0, begin, count).narrow(1, begin, count);
      for (std::int64_t i = 0; i < count; ++i) {
        const at::Tensor column = block.select(1, i);
        const double d = u[i][i].item<double>();
        const at::Tensor q = at::clamp(at::round(column.unsqueeze(1) / scale) + zero, 0, top);
        const at::Tensor value = (scale * (q - zero)).flatten();
        result.select(1, begin + i).copy_(q.flatten());
        block_losses.select(1, i).copy_((column - value).square() / (d * d));
        const at::Tensor error = (column - value) / d;
        block.narrow(1, i, count - i).sub_(at::matmul(error.unsqueeze(1), u[i].narrow(0, i, count - i).unsqueeze(0)));
        errors.select(1, i).copy_(error);
      }
      losses.narrow(1, begin, count).copy_(block_losses / 2);
      w.narrow(1, end, columns - end)
          .sub_(at::matmul(errors, inverse.narrow(0, begin, count).narrow(1, end, columns - end)));
    }
    return result.to(at::kByte);
  }
};

constexpr int kRounds = 2;
constexpr int kProducts = 30;
constexpr std::int64_t kGroup = 128;

template <typename Call>
double best_ms(Call&& call) {
  double best = seconds_of(call);
  for (int i = 1; i < kProducts; ++i) best = std::min(best, seconds_of(call));
  return 1e3 * best;
}

/// The same weight in the forms that a packed layer takes; what the codes are does not matter for the time.
void bench_products(const at::Tensor& weight, const at::Tensor& hessian, GptqBench& bench, const JobContext& job) {
  const std::int64_t features = weight.size(1);
  const at::Tensor x = at::randn({1, features});
  job.checkpoint(0, 4, "SpQR");
  SpqrOptions options;
  options.outlier_threshold = 0.2;
  SpqrResult spqr_result;
  bench.spqr_seconds = seconds_of([&] { spqr_result = spqr(weight, hessian, options, "w", job.part(0.0, 0.8)); });
  bench.spqr_outliers = spqr_result.outlier_share;

  WeightQuantizer quantizer;
  quantizer.affine.bits = bench.bits;
  quantizer.granularity = Granularity::Group;
  quantizer.group_size = kGroup;
  WeightCodes codes = quantize_weight_codes(weight, quantizer, "w");
  const PackedLinear plain(codes, quantizer, {}, {});
  codes.order = at::randperm(features, at::kLong);
  const PackedLinear ordered(codes, quantizer, {}, {});
  const SpqrLinear sparse(spqr_result, options, {});

  job.checkpoint(3, 4, "Products");
  const at::Tensor half = weight.to(at::kBFloat16), half_x = x.to(at::kBFloat16);
  const double f32 = best_ms([&] { at::linear(x, weight); }), bf16 = best_ms([&] { at::linear(half_x, half); });
  const auto add = [&](std::string name, double ms) {
    bench.products.push_back({std::move(name), ms, f32 / ms, bf16 / ms});
  };
  const std::string packed = "GPTQ, " + std::to_string(bench.bits) + " bits, groups of " + std::to_string(kGroup);
  add("torch f32", f32);
  add("torch bf16", bf16);
  add(packed, best_ms([&] { plain.apply(x); }));
  add(packed + ", act_order", best_ms([&] { ordered.apply(x); }));
  add("SpQR, 3 bits, groups of 16", best_ms([&] { sparse.apply(x); }));
}

}  // namespace

GptqBench bench_gptq(const GptqBenchRequest& request, const JobContext& job) {
  if (request.size < 16 || request.tokens < 1) {
    throw Error(ErrorCode::InvalidArgument, "bench gptq needs a size of at least 16 and at least one token.");
  }
  const c10::InferenceMode no_gradients;
  at::manual_seed(request.seed);
  const at::Tensor x = at::randn({request.tokens, request.size}) * at::exp(0.5 * at::randn({request.size}));
  const at::Tensor weight = at::randn({request.size, request.size}) * 0.02;
  GptqBench bench;
  bench.size = request.size;
  bench.tokens = request.tokens;
  bench.bits = request.bits;
  bench.threads = threads();

  GptqOptions options;
  options.affine.bits = request.bits;
  options.affine.scale_type = ScaleType::F32;
  at::Tensor hessian, codes;
  GptqResult result;
  const auto keep = [](double& best, int round, double seconds) {
    best = round == 0 ? seconds : std::min(best, seconds);
  };
  for (int round = 0; round < kRounds; ++round) {
    const JobContext part = job.part(0.45 * round, 0.45 * (round + 1));
    HessianSum sum(request.size);
    keep(bench.hessian_seconds, round, seconds_of([&] {
           sum.add(x, 1, part.part(0.0, 0.1));
           hessian = sum.matrix("x");
         }));
    keep(bench.factor_seconds, round, seconds_of([&] { damped_factor(hessian, 0.01, {}, part.part(0.1, 0.2)); }));
    keep(bench.layer_seconds, round,
         seconds_of([&] { result = gptq(weight, hessian, options, "w", part.part(0.2, 0.4)); }));

    Transcription baseline;
    at::Tensor inverse;
    part.checkpoint(4, 10, "Published program: Hessian");
    keep(bench.baseline_hessian_seconds, round, seconds_of([&] { baseline.add_batch(x); }));
    part.checkpoint(5, 10, "Published program: factor");
    const double factor = seconds_of([&] { inverse = baseline.factor(); });
    keep(bench.baseline_factor_seconds, round, factor);
    part.checkpoint(6, 10, "Published program: sweep");
    const double sweep =
        seconds_of([&] { codes = Transcription::codes(weight, inverse, request.bits, options.block_size); });
    keep(bench.baseline_layer_seconds, round, factor + sweep);
  }
  bench.equal_codes = (codes == result.codes).to(at::kDouble).mean().item<double>();
  if (request.size % kGroup == 0) bench_products(weight, hessian, bench, job.part(0.9, 1.0));
  job.checkpoint(1, 1, "Benching");
  return bench;
}

}  // namespace qs
