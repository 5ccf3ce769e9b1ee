#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "backend/evaluation/bench.h"
#include "backend/evaluation/median_time.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/generate.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "kernels/copy_bandwidth.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

/// Random tokens that setups with a calibration learn from.
constexpr std::int64_t kCalibrationTokens = 512;

struct Token {
  at::Tensor query, key, value;
};

/// Median seconds of one decode step through all layers. Each step appends a token, as decoding does.
double time_steps(std::vector<std::unique_ptr<KvCache>>& layers, const std::vector<Token>& tokens) {
  std::vector<double> seconds;
  for (const Token& token : tokens) {
    const auto start = std::chrono::steady_clock::now();
    for (auto& layer : layers) layer->append_and_attend(token.query, token.key, token.value);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

double time_torch(const DecodeBenchRequest& request, const at::Tensor& key, const at::Tensor& value,
                  const at::Tensor& query) {
  const std::int64_t shared = request.heads / request.kv_heads;
  const at::Tensor k = key.to(at::kFloat).contiguous(), v = value.to(at::kFloat).contiguous();
  const at::Tensor q = query.view({request.kv_heads, shared, request.head_dim});
  return static_cast<double>(request.layers) * median_seconds([&] {
           const at::Tensor scores =
               at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(request.head_dim));
           at::Tensor out = at::matmul(at::softmax(scores, -1), v);
         });
}

}  // namespace

DecodeBench bench_decode(const DecodeBenchRequest& request, const JobContext& job) {
  const c10::InferenceMode no_grad;
  const CacheShape shape{.heads = request.heads, .kv_heads = request.kv_heads, .head_dim = request.head_dim};
  if (request.kv_heads <= 0 || request.heads % request.kv_heads != 0) {
    throw Error(ErrorCode::InvalidArgument, "--heads must be a multiple of --kv-heads, found " +
                                                std::to_string(request.heads) + " and " +
                                                std::to_string(request.kv_heads) + ".");
  }
  std::vector<std::unique_ptr<KvMethod>> methods;
  for (const Setup& setup : request.setups) {
    at::Generator generator = at::detail::createCPUGenerator(request.seed);
    const auto sample = [&] { return at::randn({request.kv_heads, kCalibrationTokens, request.head_dim}, generator); };
    methods.push_back(
        make_kv_method_for(setup, {.query = {}, .key = sample(), .value = sample(), .shape = shape}, request.seed));
    methods.back()->check_fits(shape);
    if (const std::string why = methods.back()->cannot_stream(); !why.empty()) throw Error(ErrorCode::Unsupported, why);
  }
  const std::int64_t longest = *std::max_element(request.contexts.begin(), request.contexts.end());
  const std::int64_t row = request.kv_heads * request.head_dim;
  if (const std::int64_t needed = longest * row * (request.layers * 4 + 2 * (2 + 4 + 4)); needed > available_memory()) {
    throw Error(ErrorCode::OutOfMemory, "A context of " + std::to_string(longest) + " tokens needs about " +
                                            std::to_string(needed >> 20) + " MiB, " +
                                            std::to_string(available_memory() >> 20) +
                                            " MiB are available. Lower --context or --layers.");
  }

  DecodeBench bench{.kernel_set = kernels::kernel_set_name(),
                    .threads = at::get_num_threads(),
                    .layers = request.layers,
                    .heads = request.heads,
                    .kv_heads = request.kv_heads,
                    .head_dim = request.head_dim};
  job.checkpoint(0, 1, "Copy bandwidth");
  bench.copy_bandwidth = kernels::measure_copy_bandwidth(at::get_num_threads());
  at::Generator generator = at::detail::createCPUGenerator(request.seed);
  std::vector<Token> tokens;
  for (std::int64_t i = 0; i < request.steps; ++i) {
    tokens.push_back({at::randn({request.heads, request.head_dim}, generator),
                      at::randn({request.kv_heads, request.head_dim}, generator),
                      at::randn({request.kv_heads, request.head_dim}, generator)});
  }
  const std::int64_t rounds = static_cast<std::int64_t>(request.contexts.size() * (methods.size() + 1));
  std::int64_t round = 0;
  for (const std::int64_t context : request.contexts) {
    const at::Tensor key = at::randn({request.kv_heads, context, request.head_dim}, generator).to(at::kHalf);
    const at::Tensor value = at::randn({request.kv_heads, context, request.head_dim}, generator).to(at::kHalf);
    const double torch_seconds = time_torch(request, key, value, tokens.front().query);
    double f16_seconds = 0.0;
    for (std::size_t i = 0; i <= methods.size(); ++i) {  // the f16 cache first, then each setup
      const std::string name = i == 0 ? "f16" : format_setup(request.setups[i - 1], kv_method_infos());
      job.checkpoint(round++, rounds, "Decode " + name + " at " + std::to_string(context) + " tokens");
      std::vector<std::unique_ptr<KvCache>> layers;
      for (std::int64_t layer = 0; layer < request.layers; ++layer) {
        layers.push_back(i == 0 ? make_full_precision_cache(shape, at::kHalf) : methods[i - 1]->make_cache(shape));
        layers.back()->observe_prompt(
            tokens.front().query.unsqueeze(1).expand({request.heads, context, request.head_dim}));
        layers.back()->prefill(key, value);
      }
      const double seconds = time_steps(layers, tokens);
      if (i == 0) f16_seconds = seconds;
      CacheStats stats;
      for (const auto& layer : layers) stats += layer->stats();
      bench.rows.push_back(
          {.setup = name,
           .context = context,
           .attention_ms = 1e3 * seconds,
           .tokens_per_second = 1.0 / seconds,
           .times_f16 = f16_seconds / seconds,
           .times_torch = torch_seconds / seconds,
           .cache_bytes = stats.bytes(),
           .bytes_per_cached_token = static_cast<double>(stats.bytes()) / static_cast<double>(stats.tokens),
           .effective_bits = stats.effective_bits(),
           .bandwidth_share = static_cast<double>(stats.bytes()) / seconds / bench.copy_bandwidth});
    }
  }
  job.checkpoint(1, 1, "Decode");
  return bench;
}

std::vector<ModelBenchRow> bench_model(const std::vector<const Variant*>& variants,
                                       const std::vector<std::int64_t>& prompt, std::int64_t new_tokens,
                                       const JobContext& job) {
  SamplingOptions greedy;
  greedy.max_tokens = static_cast<int>(new_tokens);
  greedy.stop_at_eos = false;
  std::vector<ModelBenchRow> rows;
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const JobContext part = job.part(static_cast<double>(i) / static_cast<double>(variants.size()),
                                     static_cast<double>(i + 1) / static_cast<double>(variants.size()));
    generate(*variants[i], prompt, greedy, {}, part);  // warm-up
    const GenerationResult run = generate(*variants[i], prompt, greedy, {}, part);
    rows.push_back({.variant = variants[i]->label().text(),
                    .prompt_tokens = static_cast<std::int64_t>(prompt.size()),
                    .new_tokens = static_cast<std::int64_t>(run.ids.size()),
                    .prefill_tokens_per_second = static_cast<double>(prompt.size()) / run.seconds_prefill,
                    .decode_tokens_per_second = run.tokens_per_second(),
                    .kv_bytes = run.cache.bytes(),
                    .kv_bytes_f16 = run.cache.bytes_if_f16});
    rows.back().times_full_precision = rows.back().decode_tokens_per_second / rows.front().decode_tokens_per_second;
  }
  return rows;
}

}  // namespace qs
