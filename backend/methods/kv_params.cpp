#include "backend/methods/kv_params.h"

#include "backend/types/error.h"
#include "kernels/kv_attention.h"

namespace qs {

ParamSpec compute_spec() {
  return {.key = "compute",
          .label = "Arithmetic",
          .help = "f32 is exact; f16 rounds after every step as a half-precision program does.",
          .fallback = std::string("f32"),
          .domain = Choices{{"f32", "f16"}},
          .advanced = true};
}

ParamSpec store_spec() {
  return {.key = "store",
          .label = "Stored scales",
          .help = "Type of scales, minima and unquantized tokens; f32 is for verification and doubles their memory.",
          .fallback = std::string("f16"),
          .domain = Choices{{"f16", "f32"}},
          .advanced = true};
}

int int_param(const ParamSet& params, const std::string& key) { return std::get<int>(params.at(key)); }

const std::string& word_param(const ParamSet& params, const std::string& key) {
  return std::get<std::string>(params.at(key));
}

GroupCompute compute_param(const ParamSet& params) {
  return word_param(params, "compute") == "f16" ? GroupCompute::F16 : GroupCompute::F32;
}

GroupStore store_param(const ParamSet& params) {
  return word_param(params, "store") == "f32" ? GroupStore::F32 : GroupStore::F16;
}

void check_code_width(const std::string& method, const std::string& key, int bits, bool one_bit) {
  if (bits == 2 || bits == 3 || bits == 4 || bits == 8 || (one_bit && bits == 1)) return;
  throw Error(ErrorCode::InvalidArgument, "'" + key + "' of " + method + " must be " + (one_bit ? "1, " : "") +
                                              "2, 3, 4 or 8, found " + std::to_string(bits) + "; the nearest is " +
                                              (bits < 2    ? "2"
                                               : bits <= 5 ? "4"
                                                           : "8") +
                                              ".");
}

void check_head_counts(const CacheShape& shape) {
  if (shape.kv_heads > 0 && shape.head_dim > 0 && shape.heads > 0 && shape.heads % shape.kv_heads == 0) return;
  throw Error(
      ErrorCode::InvalidArgument,
      "A cache needs positive counts and kv_heads dividing heads, found heads = " + std::to_string(shape.heads) +
          ", kv_heads = " + std::to_string(shape.kv_heads) + ", head_dim = " + std::to_string(shape.head_dim) + ".");
}

void check_packed_head_dim(const std::string& method, const CacheShape& shape) {
  if (shape.head_dim % 8 == 0 && shape.head_dim <= kernels::kMaxHeadDim) return;
  throw Error(ErrorCode::InvalidArgument, method + " packs heads whose head_dim is a multiple of 8 and at most " +
                                              std::to_string(kernels::kMaxHeadDim) + ", found " +
                                              std::to_string(shape.head_dim) +
                                              ". Leave this model's cache in full precision.");
}

}  // namespace qs
