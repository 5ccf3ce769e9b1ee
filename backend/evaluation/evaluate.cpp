#include "backend/evaluation/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "backend/evaluation/cache_memory.h"
#include "backend/evaluation/cross_entropy.h"
#include "backend/evaluation/decode_window.h"
#include "backend/evaluation/protocol.h"
#include "backend/evaluation/window_attention.h"
#include "backend/evaluation/windows.h"
#include "backend/method.h"
#include "backend/metrics.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

void check_tasks(const std::vector<std::string>& tasks) {
  if (tasks.empty()) throw Error(ErrorCode::InvalidArgument, "No task was named; there are: ppl, kl, top1.");
  for (const std::string& task : tasks) {
    if (task != "ppl" && task != "kl" && task != "top1") {
      throw Error(ErrorCode::InvalidArgument, "There is no task '" + task + "'; there are: ppl, kl, top1.");
    }
  }
}

void check_logits(const at::Tensor& logits, std::int64_t window, const VariantLabel& label) {
  const at::Tensor finite = at::isfinite(logits).all(1);
  if (finite.all().item<bool>()) return;
  const std::int64_t position = at::argmin(finite.to(at::kByte)).item<std::int64_t>();
  throw Error(ErrorCode::InvalidArgument, "The logits of " + label.text() + " hold NaN or infinity in window " +
                                              std::to_string(window) + " at position " + std::to_string(position) +
                                              ". The setup overflows on this model; use more bits or a wider type.");
}

/// Whether a window must be decoded token by token to be what decoding sees.
bool must_decode(const Variant& variant, KvMode mode) {
  return mode == KvMode::Streaming && variant.kv() && variant.kv()->depends_on_attention();
}

bool is_full_precision(const Variant& variant) { return !variant.kv() && !variant.weight_setup(); }

TaskResult perplexity_task(const std::vector<double>& nll) {
  const MeanError found = mean_with_error(nll);
  TaskResult task{"ppl", "perplexity"};
  task.value = std::exp(found.mean);
  task.standard_error = task.value * found.standard_error;  // delta method
  return task;
}

TaskResult mean_task(const std::string& name, const std::string& metric, const std::vector<double>& items) {
  const MeanError found = mean_with_error(items);
  TaskResult task{name, metric};
  task.value = found.mean;
  task.standard_error = found.standard_error;
  return task;
}

}  // namespace

at::Tensor window_logits(const Variant& variant, const std::vector<std::int64_t>& ids, KvMode mode,
                         const JobContext& job) {
  return translate_torch_errors("Evaluating a window", [&] {
    const at::InferenceMode no_grad;
    const DecoderWeights& weights = variant.weights();
    const RaggedBatch batch = RaggedBatch::single(ids);
    if (!variant.kv()) {
      FullPrecisionWindow attention(weights.attention);
      return forward(variant.model().spec(), weights, batch, attention, LogitRows::All, nullptr, job);
    }
    if (weights.attention.bits < 16) {
      throw Error(ErrorCode::InvalidArgument,
                  "The weight setup quantizes the attention products and the KV setup the cache: keys and values would "
                  "be quantized "
                  "twice. Set quantize_attention=false in the weight setup, or leave out the KV setup.");
    }
    if (must_decode(variant, mode)) return decode_window(variant, ids, job).logits;
    WindowAttention attention(*variant.kv(), mode, variant.model().spec(), JobContext());
    return forward(variant.model().spec(), weights, batch, attention, LogitRows::All, nullptr, job);
  });
}

EvalReport evaluate(const Variant& variant, const Variant& reference, const EvalRequest& request,
                    const JobContext& job) {
  check_tasks(request.tasks);
  const at::InferenceMode no_grad;
  const EvalWindows cut = cut_windows(variant.model(), request);
  const auto count = static_cast<std::int64_t>(cut.windows.size());
  const auto wants = [&](const char* task) {
    return std::find(request.tasks.begin(), request.tasks.end(), task) != request.tasks.end();
  };
  const bool compares = wants("kl") || wants("top1");

  EvalReport report;
  report.variant = variant.label();
  report.protocol = protocol_of(variant.model(), request, cut);
  report.fingerprint = fingerprint(report.protocol);
  report.seed = request.seed;
  report.program_version = QUANTOSCOPE_VERSION;
  report.created_utc = utc_now();
  report.model_fingerprint = variant.model().info().fingerprint;

  CacheStats cache;
  std::vector<double> nll, kl, top1;
  const Clock::time_point start = Clock::now();
  for (std::int64_t i = 0; i < count; ++i) {
    const double from = static_cast<double>(i) / static_cast<double>(count),
                 to = static_cast<double>(i + 1) / static_cast<double>(count);
    job.checkpoint(i, count, "Evaluating windows");
    const JobContext step = job.part(from, to);
    const std::vector<std::int64_t>& ids = cut.windows[static_cast<std::size_t>(i)];
    const JobContext own = step.part(0.0, compares ? 0.5 : 1.0);
    at::Tensor logits;
    if (i == 0 && must_decode(variant, request.kv_mode)) {
      DecodedWindow decoded =
          translate_torch_errors("Evaluating a window", [&] { return decode_window(variant, ids, own); });
      logits = decoded.logits;
      cache = decoded.cache;
    } else {
      logits = window_logits(variant, ids, request.kv_mode, own);
    }
    check_logits(logits, i, report.variant);
    at::Tensor expected;
    if (compares) {
      expected =
          is_full_precision(variant) ? logits : window_logits(reference, ids, request.kv_mode, step.part(0.5, 1.0));
      check_logits(expected, i, reference.label());
    }
    const WindowScores scores = score_window(logits, expected, ids);
    nll.push_back(scores.nll);
    kl.push_back(scores.kl);
    top1.push_back(scores.top1);
  }
  const double seconds = seconds_since(start);
  for (const std::string& name : request.tasks) {
    const std::vector<double>& items = name == "ppl" ? nll : name == "kl" ? kl : top1;
    TaskResult task = name == "ppl" ? perplexity_task(items)
                                    : mean_task(name, name == "kl" ? "kl_divergence_nats" : "top1_agreement", items);
    task.n = count;
    task.seconds = seconds;
    task.per_item = items;
    report.tasks.push_back(std::move(task));
  }

  if (!must_decode(variant, request.kv_mode)) cache = measure_cache(variant, cut.windows.front(), JobContext());
  report.memory.weights_bytes = variant.weights().bytes();
  report.memory.kv_bytes = cache.bytes();
  report.memory.kv_bytes_full_precision = cache.bytes_if_f16;
  report.memory.peak_rss = peak_resident_bytes();
  report.weight_bits = variant.weight_bits();
  report.kv_bits = cache.effective_bits();
  job.checkpoint(count, count, "Evaluating windows");
  return report;
}

}  // namespace qs
