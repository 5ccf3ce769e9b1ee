#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs {

/// One kernel on one shape. All times of one run, the median of repeats.
struct KernelBenchRow {
  std::string kernel, shape;
  double ns_per_element = 0.0;
  double bytes_per_second = 0.0;  ///< of what the kernel must read and write
  double bandwidth_share = 0.0;   ///< of the copy bandwidth measured in the same run
  double times_scalar = 0.0;      ///< scalar time over this time
  double times_torch_f32 = 0.0;   ///< LibTorch's f32 time for the same product over this time; NaN when it has none
  double times_torch_bf16 = 0.0;  ///< likewise in bfloat16
};

/// One token times a weight [out_features, in_features] in one storage, against dense floating-point weights of the
/// same shape: by the kernels of the set in use and by LibTorch. Ratios are the other's time over this time, of one run
/// on as many threads; NaN where LibTorch does not multiply that type.
struct GemvBenchRow {
  std::string storage;  ///< "LUT-GEMM, 4 bits", "packed, 4 bits", "dense f16"
  std::int64_t out_features = 0, in_features = 0;
  int threads = 1;
  double ms = 0.0;
  double bandwidth_share = 0.0;  ///< bytes of the weight read a second over the copy bandwidth of as many threads
  double times_f32 = 0.0, times_f16 = 0.0, times_bf16 = 0.0;
  double times_torch_f32 = 0.0, times_torch_f16 = 0.0, times_torch_bf16 = 0.0;
};

struct KernelBench {
  std::string kernel_set, torch_version;
  int threads = 1;              ///< of `rows`
  double copy_bandwidth = 0.0;  ///< bytes read plus written a second
  std::vector<KernelBenchRow> rows;
  std::vector<GemvBenchRow> gemv;
};

/// Decode attention of one setup at one context length, on random keys and values.
struct DecodeBenchRow {
  std::string setup;  ///< "f16" for the full-precision cache
  std::int64_t context = 0;
  double attention_ms = 0.0;       ///< one token through all layers, the median
  double tokens_per_second = 0.0;  ///< as if attention were all there is
  double times_f16 = 0.0;          ///< f16 cache's time over this time
  double times_torch = 0.0;        ///< LibTorch f32 attention's time over this time
  std::int64_t cache_bytes = 0;    ///< allocated, all layers
  double bytes_per_cached_token = 0.0;
  double effective_bits = 16.0;
  double bandwidth_share = 0.0;  ///< cache bytes read a second over the copy bandwidth
};

struct DecodeBench {
  std::string kernel_set;
  int threads = 1;
  std::int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double copy_bandwidth = 0.0;
  std::vector<DecodeBenchRow> rows;
};

/// One token times a quantized layer, against LibTorch's product with the weight in floating point.
struct GptqBenchProduct {
  std::string weight;
  double ms = 0.0;
  double times_f32 = 0.0, times_bf16 = 0.0;  ///< LibTorch's time over this time
};

/// GPTQ of one square layer against the published program written in LibTorch, in one run on as many threads. Times are
/// the better of two rounds that take turns.
struct GptqBench {
  std::int64_t size = 0, tokens = 0;
  int bits = 4, threads = 1;
  double hessian_seconds = 0.0;  ///< accumulating H
  double factor_seconds = 0.0;   ///< damping and factor of the inverse alone
  double layer_seconds = 0.0;    ///< everything from H to codes, the factor included
  double baseline_hessian_seconds = 0.0, baseline_factor_seconds = 0.0, baseline_layer_seconds = 0.0;
  double equal_codes = 0.0;    ///< share of the codes that both make
  double spqr_seconds = 0.0;   ///< SpQR of the layer, 3 bits, groups of 16, from H on; 0: the size does not fit
  double spqr_outliers = 0.0;  ///< share of its weights
  std::vector<GptqBenchProduct> products;
  /// From H's factor to codes.
  double sweep_seconds() const { return layer_seconds - factor_seconds; }
  double baseline_sweep_seconds() const { return baseline_layer_seconds - baseline_factor_seconds; }
  double times_baseline() const { return baseline_layer_seconds / layer_seconds; }
};

/// Prefill and decode of a whole model under one setup.
struct ModelBenchRow {
  std::string variant;
  std::int64_t prompt_tokens = 0, new_tokens = 0;
  double prefill_tokens_per_second = 0.0, decode_tokens_per_second = 0.0;
  double times_full_precision = 0.0;  ///< decode speed over the full-precision variant's
  std::int64_t kv_bytes = 0, kv_bytes_f16 = 0;
};

}  // namespace qs
