#include <ATen/ATen.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/methods/golden.h"
#include "backend/methods/kivi.h"
#include "backend/methods/rtn_kv.h"
#include "backend/types/error.h"
#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

using nlohmann::json;

/// Packs runs of the last axis: i32-lsb, or i32-3bit at 3 bits.
at::Tensor pack_words(const at::Tensor& codes, int bits) {
  const at::Tensor rows = codes.to(at::kByte).contiguous();
  const std::int64_t length = codes.size(-1), count = length > 0 ? codes.numel() / length : 0;
  const std::int64_t words = bits == 3 ? kernels::i32_3bit_words(length) : kernels::i32_lsb_words(length, bits);
  std::vector<std::int64_t> shape = codes.sizes().vec();
  shape.back() = words;
  at::Tensor packed = at::empty(shape, at::kInt);
  for (std::int64_t row = 0; row < count; ++row) {
    const std::uint8_t* const from = rows.data_ptr<std::uint8_t>() + row * length;
    auto* const to = reinterpret_cast<std::uint32_t*>(packed.data_ptr<std::int32_t>() + row * words);
    if (bits == 3) {
      kernels::pack_i32_3bit(from, length, to);
    } else {
      kernels::pack_i32_lsb(from, length, bits, to);
    }
  }
  return packed;
}

/// [B, H, T, D] as [B * H, T, D] in f32.
at::Tensor heads_of(const at::Tensor& x) { return x.reshape({-1, x.size(-2), x.size(-1)}).to(at::kFloat); }

ParamSet precision_params(const json& params) {
  return {{"compute", params.value("compute_dtype", "f32")}, {"store", params.value("store_dtype", "f16")}};
}

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

GoldenOutput run_rtn(const GoldenCase& golden, const JobContext& job) {
  const json params = golden.entry.value("params", json::object());
  GoldenOutput output;
  for (const auto& [name, expected] : golden.expected) {
    const std::string input = name.substr(0, name.find('_'));
    if (!golden.inputs.count(input)) continue;
    const bool per_channel = name.find("per_channel") != std::string::npos;
    const bool symmetric = name.find("_sym") != std::string::npos;
    ParamSet set = precision_params(params);
    set["scheme"] = std::string(per_channel ? "channel_asym" : symmetric ? "token_sym" : "token_asym");
    set["bits"] = params.at("bits").get<int>();
    set["group_size"] = per_channel ? params.value("block", 0) : params.value("group_size", 0);
    const RtnKv method(set);
    std::vector<at::Tensor> sequences;
    for (const at::Tensor& sequence : golden.inputs.at(input).unbind(0)) {
      sequences.push_back(
          method.quantize(sequence.to(at::kFloat), per_channel ? KvRole::Key : KvRole::Value, job).values);
    }
    output.tensors[name] = at::stack(sequences);
  }
  return output;
}

GoldenOutput run_fp8(const GoldenCase& golden, const JobContext&) {
  GoldenOutput output;
  if (golden.inputs.count("x") == 0) {
    at::Tensor bytes = at::arange(256, at::kInt).to(at::kByte);
    output.tensors["e4m3"] = at::empty({256}, at::kFloat);
    output.tensors["e5m2"] = at::empty({256}, at::kFloat);
    kernels::e4m3_to_f32(bytes.data_ptr<std::uint8_t>(), output.tensors["e4m3"].data_ptr<float>(), 256);
    kernels::e5m2_to_f32(bytes.data_ptr<std::uint8_t>(), output.tensors["e5m2"].data_ptr<float>(), 256);
    return output;
  }
  const at::Tensor x = golden.inputs.at("x").to(at::kFloat).contiguous();
  const std::int64_t count = x.numel();
  at::Tensor e4m3 = at::empty({count}, at::kByte), e5m2 = at::empty({count}, at::kByte);
  kernels::f32_to_e4m3(x.data_ptr<float>(), e4m3.data_ptr<std::uint8_t>(), count);
  kernels::f32_to_e5m2(x.data_ptr<float>(), e5m2.data_ptr<std::uint8_t>(), count);
  at::Tensor e4m3_value = at::empty({count}, at::kFloat), e5m2_value = at::empty({count}, at::kFloat);
  kernels::e4m3_to_f32(e4m3.data_ptr<std::uint8_t>(), e4m3_value.data_ptr<float>(), count);
  kernels::e5m2_to_f32(e5m2.data_ptr<std::uint8_t>(), e5m2_value.data_ptr<float>(), count);
  output.tensors = {{"e4m3_code", e4m3}, {"e4m3_value", e4m3_value}, {"e5m2_code", e5m2}, {"e5m2_value", e5m2_value}};
  return output;
}

}  // namespace

std::vector<GoldenRunner> golden_kv_runners() { return {{"kivi", run_kivi}, {"rtn", run_rtn}, {"fp8", run_fp8}}; }

}  // namespace qs
