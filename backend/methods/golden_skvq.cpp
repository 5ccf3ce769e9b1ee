#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <string>

#include "backend/methods/golden_kv_support.h"
#include "backend/methods/k_means.h"
#include "backend/methods/skvq.h"
#include "backend/methods/skvq_calibration.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

using nlohmann::json;

std::string bits_word(const json& params, const std::string& key) {
  const double bits = params.value(key, params.value("bits", 2.0));
  return bits == 1.5 ? "1.5" : std::to_string(static_cast<int>(bits));
}

std::string store_word(const json& params) {
  if (params.contains("scale_bits")) return params["scale_bits"] == 8 ? "e4m3" : "f16";
  const std::string fallback = params.value("fp8", false) ? "e4m3" : "f16";
  return params.value("store_dtype", fallback);
}

ParamSet params_of(const json& params) {
  return {{"k_bits", bits_word(params, "k_bits")},
          {"v_bits", bits_word(params, "v_bits")},
          {"group_size", params.value("group_size", 128)},
          {"window", params.value("window", 0)},
          {"sink_tokens", params.value("sink", 0)},
          {"reorder", params.value("reorder", false)},
          {"smooth", params.value("smooth", false)},
          {"pre_rope", false},
          {"clip", params.value("clip", 1.0)},
          {"clip_rule", std::string("fixed")},
          {"clip_mode", params.value("clip_mode", std::string("zero"))},
          {"statistic", std::string("minmax")},
          {"rounded_parameters", params.value("quantize_with_rounded_params", false)},
          {"container", std::string("trit5")},
          {"keep", std::string("none")},
          {"quantized_share", 1.0},
          {"store", store_word(params)},
          {"compute", params.value("compute_dtype", std::string("f32"))}};
}

Skvq method_of(const GoldenCase& golden, const json& params) {
  KvLayerArtifact artifact;
  for (const char* side : {"k_", "v_"}) {
    const std::string prefix = side;
    for (const auto& [theirs, ours] :
         {std::pair{"reorder", "order"}, std::pair{"group_start", "start"}, std::pair{"smooth", "smooth"}}) {
      const auto found = golden.inputs.find(prefix + theirs);
      if (found != golden.inputs.end()) artifact[prefix + ours] = found->second;
    }
  }
  return Skvq(params_of(params), artifact.empty() ? nullptr : &artifact);
}

void quantize_role(const Skvq& method, const at::Tensor& batch, KvRole role, GoldenOutput& output,
                   const JobContext& job) {
  const std::string prefix = role == KvRole::Key ? "k_" : "v_";
  std::vector<at::Tensor> values, codes, scales, minima;
  for (const at::Tensor& x : batch.unbind(0)) {
    const QuantizedTensor quantized = method.quantize(x.to(at::kFloat), role, job);
    const std::int64_t width = x.size(0) * x.size(2);
    const std::vector<std::int32_t> order = method.quantizer(role, width).groups.order;
    const at::Tensor index = at::tensor(std::vector<std::int64_t>(order.begin(), order.end()), at::kLong);
    values.push_back(quantized.values);
    codes.push_back(quantized.codes.transpose(0, 1).reshape({x.size(1), width}).index_select(1, index));
    scales.push_back(quantized.scale);
    minima.push_back(quantized.group_min);
  }
  output.tensors[prefix + "dequant"] = at::stack(values);
  output.tensors[prefix + "codes_reordered"] = at::stack(codes);
  output.tensors[prefix + "scale"] = at::stack(scales);
  output.tensors[prefix + "zp"] = at::stack(minima);
}

GoldenOutput stream(const GoldenCase& golden, const Skvq& method, const json& params) {
  const at::Tensor key = golden.inputs.at("key"), value = golden.inputs.at("value");
  const auto prompt = params.at("prefill").get<std::int64_t>(), steps = params.at("decode_steps").get<std::int64_t>();
  std::vector<at::Tensor> keys, values;
  std::vector<std::int32_t> lengths;
  for (std::int64_t sequence = 0; sequence < key.size(0); ++sequence) {
    lengths.clear();
    const CacheShape shape{.heads = key.size(1), .kv_heads = key.size(1), .head_dim = key.size(3)};
    const auto cache = method.make_cache(shape);
    cache->prefill(key[sequence].narrow(1, 0, prompt), value[sequence].narrow(1, 0, prompt));
    const at::Tensor query = at::zeros({shape.heads, shape.head_dim});
    const auto note = [&] {
      const TokenRange quantized = cache->quantized(KvRole::Key);
      const std::int64_t recent = cache->tokens() - quantized.end;
      for (const std::int64_t length : {cache->tokens(), quantized.begin, quantized.size(), recent})
        lengths.push_back(static_cast<std::int32_t>(length));
    };
    note();
    for (std::int64_t token = prompt; token < prompt + steps; ++token) {
      cache->append_and_attend(query, key[sequence].select(1, token), value[sequence].select(1, token));
      note();
    }
    const auto [seen_keys, seen_values] = cache->materialize();
    keys.push_back(seen_keys);
    values.push_back(seen_values);
  }
  GoldenOutput result;
  result.tensors = {
      {"k_final", at::stack(keys)}, {"v_final", at::stack(values)}, {"lengths", at::tensor(lengths, at::kInt)}};
  return result;
}

/// Packs each group of every row on its own, to whole bytes.
GoldenOutput pack_groups(const GoldenCase& golden, const json& params) {
  const at::Tensor codes = golden.inputs.at("codes").to(at::kByte).contiguous();
  const int bits = params.at("bits").get<int>();
  const auto sizes = params.at("group_sizes").get<std::vector<std::int64_t>>();
  std::vector<std::uint8_t> packed;
  for (std::int64_t row = 0; row < codes.size(0); ++row) {
    const std::uint8_t* from = codes.data_ptr<std::uint8_t>() + row * codes.size(1);
    for (const std::int64_t size : sizes) {
      const std::int64_t bytes = kernels::u8_msb_bytes(size, bits);
      packed.resize(packed.size() + static_cast<std::size_t>(bytes));
      kernels::pack_u8_msb(from, size, bits, packed.data() + packed.size() - bytes);
      from += size;
    }
  }
  GoldenOutput output;
  output.tensors["packed"] = at::tensor(packed, at::kByte);
  return output;
}

GoldenOutput cluster(const GoldenCase& golden, const json& params) {
  const ChannelStatistics statistics{
      golden.inputs.at("chan_min").to(at::kDouble), golden.inputs.at("chan_max").to(at::kDouble), {}};
  const std::int64_t width = statistics.least.numel(), clusters = params.at("n_clusters").get<std::int64_t>();
  const ChannelGroups groups = cluster_channels(statistics, ChannelStatistic::MinMax, width / clusters, 42);
  // The sum of squares of the groups themselves, which is what the calibration hands on.
  const at::Tensor points = at::stack({statistics.least, statistics.most}, 1);
  double inertia = 0.0;
  std::vector<bool> seen(static_cast<std::size_t>(width), false);
  for (std::int64_t i = 0; i < groups.groups(); ++i) {
    std::vector<std::int64_t> members(groups.order.begin() + groups.start[i],
                                      groups.order.begin() + groups.start[i + 1]);
    for (const std::int64_t channel : members) seen[static_cast<std::size_t>(channel)] = true;
    if (members.empty()) continue;
    const at::Tensor group = points.index_select(0, at::tensor(members, at::kLong));
    inertia += (group - group.mean(0, true)).square().sum().item<double>();
  }
  const bool whole = groups.start.front() == 0 && groups.start.back() == width &&
                     std::is_sorted(groups.start.begin(), groups.start.end()) &&
                     std::all_of(seen.begin(), seen.end(), [](bool found) { return found; });
  GoldenOutput output;
  output.tensors["inertia_best"] =
      at::full({1}, whole ? inertia : std::numeric_limits<double>::infinity(), at::kDouble);
  return output;
}

GoldenOutput run_skvq(const GoldenCase& golden, const JobContext& job) {
  const json params = golden.entry.value("params", json::object());
  if (golden.inputs.count("codes")) return pack_groups(golden, params);
  if (golden.inputs.count("chan_min")) return cluster(golden, params);
  GoldenOutput output;
  if (golden.entry.value("kind", "") == "formula") {
    const Skvq method(params_of(params), nullptr);
    output.numbers["quantized_element_bits"] = method.nominal_bits(KvRole::Key, method.group_size());
    return output;
  }
  const Skvq method = method_of(golden, params);
  if (params.contains("prefill")) return stream(golden, method, params);
  if (golden.inputs.count("key")) quantize_role(method, golden.inputs.at("key"), KvRole::Key, output, job);
  if (golden.inputs.count("value")) quantize_role(method, golden.inputs.at("value"), KvRole::Value, output, job);
  return output;
}

}  // namespace

GoldenRunner golden_skvq() { return {"skvq", run_skvq}; }

}  // namespace qs
