#include <ATen/ATen.h>

#include <array>
#include <string>

#include "backend/methods/golden_kv_support.h"
#include "backend/methods/kivi.h"

namespace qs {
namespace {

using nlohmann::json;

Kivi kivi_of(const json& params) {
  const int bits = params.value("bits", 2);
  const int group_size = params.value("group_size", 32);
  ParamSet set = precision_params(params);
  set["k_bits"] = params.value("k_bits", bits);
  set["v_bits"] = params.value("v_bits", params.value("k_bits", bits));
  set["group_size"] = group_size;
  set["residual_length"] = params.value("residual_length", params.value("residual", group_size));
  return Kivi(set);
}

void quantize_role(const Kivi& method, const at::Tensor& x, KvRole role, GoldenOutput& output, const JobContext& job) {
  const std::string prefix = role == KvRole::Key ? "k_" : "v_";
  const QuantizedTensor quantized = method.quantize(heads_of(x), role, job);
  const std::int64_t whole = role == KvRole::Key ? x.size(-2) / method.group_size() * method.group_size() : x.size(-2);
  const at::Tensor codes = quantized.codes.narrow(1, 0, whole);
  const int bits = method.quantizer(role).bits;
  output.tensors[prefix + "dequant"] = quantized.values;
  output.tensors[prefix + "codes"] = codes;
  output.tensors[prefix + "scale"] = quantized.scale;
  output.tensors[prefix + "min"] = quantized.group_min;
  output.tensors[prefix + "packed_trans"] = pack_words(codes.transpose(1, 2), bits);
  // Both layouts of keys run along tokens: [D, T / (32 / bits)] and [T / (32 / bits), D]; values run along channels.
  output.tensors[prefix + "packed"] = role == KvRole::Key
                                          ? pack_words(codes.transpose(1, 2), bits).transpose(1, 2).contiguous()
                                          : pack_words(codes, bits);
}

std::array<std::int32_t, 5> lengths_of(const KvCache& cache) {
  const auto tokens = static_cast<std::int32_t>(cache.tokens());
  const auto keys = static_cast<std::int32_t>(cache.quantized(KvRole::Key).size());
  const auto values = static_cast<std::int32_t>(cache.quantized(KvRole::Value).size());
  return {tokens, keys, tokens - keys, values, tokens - values};
}

GoldenOutput stream(const GoldenCase& golden, const Kivi& method) {
  const json& params = golden.entry.at("params");
  const at::Tensor key = golden.inputs.at("key"), value = golden.inputs.at("value");
  const at::Tensor query = golden.inputs.at("query_last").select(2, 0);
  const auto prompt = params.at("prefill").get<std::int64_t>(), steps = params.at("decode_steps").get<std::int64_t>();
  std::vector<at::Tensor> keys, values, outputs;
  std::vector<std::int32_t> lengths;
  for (std::int64_t sequence = 0; sequence < key.size(0); ++sequence) {
    lengths.clear();
    const auto cache = method.make_cache({.heads = query.size(1), .kv_heads = key.size(1), .head_dim = key.size(3)});
    cache->prefill(key[sequence].narrow(1, 0, prompt), value[sequence].narrow(1, 0, prompt));
    const auto note = [&] {
      for (const std::int32_t length : lengths_of(*cache)) lengths.push_back(length);
    };
    note();
    at::Tensor output;
    for (std::int64_t token = prompt; token < prompt + steps; ++token) {
      output =
          cache->append_and_attend(query[sequence], key[sequence].select(1, token), value[sequence].select(1, token));
      note();
    }
    outputs.push_back(output);
    const auto [seen_keys, seen_values] = cache->materialize();
    keys.push_back(seen_keys);
    values.push_back(seen_values);
  }
  GoldenOutput result;
  result.tensors = {{"attn_last", at::stack(outputs)},
                    {"k_final", at::stack(keys)},
                    {"v_final", at::stack(values)},
                    {"lengths", at::tensor(lengths, at::kInt)}};
  return result;
}

GoldenOutput run_kivi(const GoldenCase& golden, const JobContext& job) {
  const json params = golden.entry.value("params", json::object());
  GoldenOutput output;
  if (const auto codes = golden.inputs.find("codes"); codes != golden.inputs.end()) {
    const int bits = params.at("bits").get<int>();
    output.tensors["packed_last"] = pack_words(codes->second, bits);
    output.tensors["packed_token"] = pack_words(codes->second.transpose(-1, -2), bits).transpose(-1, -2).contiguous();
    return output;
  }
  const Kivi method = kivi_of(params);
  if (golden.entry.value("kind", "") == "formula") {
    output.numbers["quantized_element_bits"] = method.element_bits(KvRole::Key);
    // The residual is at its longest, R tokens, on the value side at every length and on the key side just before a
    // flush.
    if (params.contains("tokens")) {
      output.numbers["steady_state_bits_worst_residual"] =
          method.role_bits(KvRole::Value, params["tokens"].get<std::int64_t>());
    }
    return output;
  }
  if (params.contains("prefill")) return stream(golden, method);
  if (golden.inputs.count("key")) quantize_role(method, golden.inputs.at("key"), KvRole::Key, output, job);
  if (golden.inputs.count("value")) quantize_role(method, golden.inputs.at("value"), KvRole::Value, output, job);
  return output;
}

}  // namespace

GoldenRunner golden_kivi() { return {"kivi", run_kivi}; }

}  // namespace qs
