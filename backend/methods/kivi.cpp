#include "backend/methods/kivi.h"

#include "backend/methods/declared_methods.h"
#include "backend/methods/kivi_cache.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/kv_reference.h"
#include "backend/types/error.h"

namespace qs {
Kivi::Kivi(const ParamSet& params) {
  key_quantizer_ = {
      .bits = int_param(params, "k_bits"), .compute = compute_param(params), .store = store_param(params)};
  value_quantizer_ = key_quantizer_;
  value_quantizer_.bits = int_param(params, "v_bits");
  group_size_ = int_param(params, "group_size");
  residual_length_ = int_param(params, "residual_length");
  check_code_width("kivi", "k_bits", key_quantizer_.bits);
  check_code_width("kivi", "v_bits", value_quantizer_.bits);
  if (residual_length_ < group_size_ || residual_length_ % group_size_ != 0) {
    const std::int64_t nearest =
        std::max<std::int64_t>(1, (residual_length_ + group_size_ / 2) / group_size_) * group_size_;
    throw Error(ErrorCode::InvalidArgument,
                "'residual_length' of kivi must be a multiple of group_size = " + std::to_string(group_size_) +
                    ", found " + std::to_string(residual_length_) + "; the nearest is " + std::to_string(nearest) +
                    ".");
  }
}

QuantizedTensor Kivi::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  job.checkpoint(0, 1, "KIVI");
  if (role == KvRole::Key) return quantize_channel_blocks(x, group_size_, key_quantizer_);
  if (x.size(2) % group_size_ != 0) check_fits({.heads = x.size(0), .kv_heads = x.size(0), .head_dim = x.size(2)});
  return quantize_token_runs_per_head(x, group_size_, value_quantizer_);
}

TokenRange Kivi::seen_by_query(KvRole role, std::int64_t position) const {
  // The query's own token joins the residual before attention; the flush comes after it.
  return after_prefill(role, position);
}

TokenRange Kivi::after_prefill(KvRole role, std::int64_t tokens) const {
  if (role == KvRole::Key) return {0, tokens / residual_length_ * residual_length_};
  return {0, std::max<std::int64_t>(0, tokens - residual_length_)};
}

at::Tensor Kivi::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, key_quantizer_.store).to(x.scalar_type());
}

ScaleGroups Kivi::scale_groups(KvRole role, const CacheShape& shape) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (role == KvRole::Key) return {.tokens = group_size_, .starts = even_starts(channels, 1), .order = {}};
  return {.tokens = 1, .starts = even_starts(channels, group_size_), .order = {}};
}

std::unique_ptr<KvCache> Kivi::make_cache(const CacheShape& shape) const {
  check_fits(shape);
  return make_kivi_cache(*this, shape);
}

double Kivi::element_bits(KvRole role) const {
  const double parameter_bits = 8.0 * static_cast<double>(quantizer(role).parameter_bytes());
  return quantizer(role).bits + 2.0 * parameter_bits / static_cast<double>(group_size_);
}

double Kivi::role_bits(KvRole role, std::int64_t tokens) const {
  const double held_bits = 8.0 * static_cast<double>(quantizer(role).parameter_bytes());
  const double all = static_cast<double>(tokens), quantized = static_cast<double>(after_prefill(role, tokens).size());
  return (quantized * element_bits(role) + (all - quantized) * held_bits) / all;
}

double Kivi::effective_bits(const CacheShape&, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  return (role_bits(KvRole::Key, tokens) + role_bits(KvRole::Value, tokens)) / 2.0;
}

void Kivi::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  check_packed_head_dim("kivi", shape);
  if (shape.head_dim % group_size_ == 0) return;
  const std::int64_t nearest = nearest_divisor(shape.head_dim, group_size_, 8, 16, 256);
  throw Error(ErrorCode::InvalidArgument,
              "kivi: group_size = " + std::to_string(group_size_) +
                  " does not divide head_dim = " + std::to_string(shape.head_dim) + ". " +
                  (nearest > 0 ? "The nearest that fits is " + std::to_string(nearest) + "."
                               : "No group size of 16 or more fits this model; use another method, such as rtn."));
}

KvMethodEntry kivi_method() {
  return {{.id = "kivi",
           .title = "KIVI",
           .family = MethodFamily::Kv,
           .paper = "arXiv:2402.02750",
           .citation = "Liu et al., KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, ICML 2024",
           .summary = "Keys per channel, values per token, the newest tokens in full precision; no calibration.",
           .params = {{.key = "k_bits",
                       .label = "Key bits",
                       .help = "Width of a key's code: 2, 3, 4 or 8; fewer is smaller and worse.",
                       .fallback = 2,
                       .domain = IntRange{2, 8},
                       .unit = "bit",
                       .aliases = {"k"}},
                      {.key = "v_bits",
                       .label = "Value bits",
                       .help = "Width of a value's code: 2, 3, 4 or 8; fewer is smaller and worse.",
                       .fallback = 2,
                       .domain = IntRange{2, 8},
                       .unit = "bit",
                       .aliases = {"v"}},
                      {.key = "group_size",
                       .label = "Group size",
                       .help = "Tokens of a key channel, or channels of a value, that share one scale; smaller is "
                               "better and larger in memory.",
                       .fallback = 32,
                       .domain = IntRange{16, 256},
                       .aliases = {"g"}},
                      {.key = "residual_length",
                       .label = "Residual length",
                       .help = "Newest tokens kept in full precision, a multiple of the group size; longer is better "
                               "and larger in memory.",
                       .fallback = 128,
                       .domain = IntRange{16, 65536},
                       .unit = "tokens",
                       .aliases = {"r"}},
                      compute_spec(),
                      store_spec()},
           .presets = {{.label = "KIVI-2, paper setting",
                        .params = {{"k_bits", 2}, {"v_bits", 2}, {"group_size", 32}, {"residual_length", 128}},
                        .source = "arXiv:2402.02750"},
                       {.label = "KIVI-4, paper setting",
                        .params = {{"k_bits", 4}, {"v_bits", 4}, {"group_size", 32}, {"residual_length", 128}},
                        .source = "arXiv:2402.02750"},
                       {.label = "KIVI-2, residual 32",
                        .params = {{"k_bits", 2}, {"v_bits", 2}, {"group_size", 32}, {"residual_length", 32}},
                        .source = "jy-yuan/KIVI, example scripts"},
                       {.label = "KIVI-4, residual 32",
                        .params = {{"k_bits", 4}, {"v_bits", 4}, {"group_size", 32}, {"residual_length", 32}},
                        .source = "jy-yuan/KIVI, example scripts"}},
           .effective_bits_formula =
               "quantized element: bits + 32 / group_size; the newest tokens (keys 0 to R-1, values R) at 16"},
          [](const ParamSet& params, const KvLayerArtifact*) -> std::unique_ptr<KvMethod> {
            return std::make_unique<Kivi>(params);
          }};
}

}  // namespace qs
