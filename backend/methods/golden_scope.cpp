#include <ATen/ATen.h>

#include "backend/methods/declared_methods.h"
#include "backend/methods/golden_kv_support.h"
#include "backend/methods/scope.h"
#include "backend/methods/scope_cache.h"

namespace qs {
namespace {

using nlohmann::json;

/// The case's parameters; `delta` is turned into the longest output that gives it.
Scope scope_of(const json& params) {
  const int window = params.at("decoding_window_size").get<int>(),
            recent = params.at("decoding_recent_size").get<int>();
  ParamSet set;
  set["strategy"] = params.at("strategy").get<std::string>();
  set["prefill"] = params.at("prefill_method").get<std::string>();
  set["prompt"] = std::max(1, params.at("max_capacity_prompt").get<int>());
  set["observation"] = params.at("window_size").get<int>();
  set["window"] = window;
  set["recent"] = recent;
  set["max_out"] = recent + params.at("delta").get<int>() * (window - recent);
  set["pooling"] = std::string(params.value("pooling", "maxpool") == "avgpool" ? "avg" : "max");
  set["kernel"] = params.value("kernel_size", 7);
  set["h2o_mask"] = params.value("h2o_mask", "causal");
  set["store"] = std::string("f32");
  return Scope(with_fallbacks(scope_method().info.params, std::move(set)));
}

GoldenOutput run_scope(const GoldenCase& golden, const JobContext& job) {
  const json& params = golden.entry.at("params");
  const auto prompt = params.at("prefill").get<std::int64_t>(), steps = params.at("decode_steps").get<std::int64_t>();
  const at::Tensor query = golden.inputs.at("query")[0], key = golden.inputs.at("key")[0];
  const Scope method = scope_of(params);
  const auto cache = method.make_scope_cache({.heads = query.size(0),
                                              .kv_heads = key.size(0),
                                              .head_dim = key.size(2),
                                              .layers = params.value("num_layers", std::int64_t{1})});
  at::Tensor kept_ids = at::full_like(golden.expected.at("kept_ids"), -1), kept_len = at::empty({steps + 1}, at::kInt);
  const auto note = [&](std::int64_t row) {
    kept_len[row] = cache->tokens();
    const std::int64_t columns = std::min(cache->tokens(), kept_ids.size(2));
    kept_ids[row].narrow(1, 0, columns).copy_(cache->kept_positions().narrow(1, 0, columns));
  };
  cache->observe_prompt(query.narrow(1, 0, prompt));
  cache->prefill(key.narrow(1, 0, prompt), key.narrow(1, 0, prompt));  // values do not matter here
  note(0);
  for (std::int64_t step = 0; step < steps; ++step) {
    job.checkpoint(step, steps, "Decoding");
    const at::Tensor token = key.select(1, prompt + step).contiguous();
    cache->append_and_attend(query.select(1, prompt + step).contiguous(), token, token);
    note(step + 1);
  }
  GoldenOutput output;
  output.tensors = {{"kept_ids", kept_ids}, {"kept_len", kept_len}};
  return output;
}

}  // namespace

GoldenRunner golden_scope() { return {"scope", run_scope}; }

}  // namespace qs
