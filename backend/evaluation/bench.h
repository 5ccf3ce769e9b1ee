#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backend/types/bench_result.h"
#include "backend/types/job.h"
#include "backend/types/setup.h"

namespace qs {

class Variant;

/// Each kernel of the set in use against its scalar form and against LibTorch doing the same product in floating point,
/// on one thread, with the copy bandwidth of the same run (kernels specification, section 1).
KernelBench bench_kernels(const JobContext& job);

struct DecodeBenchRequest {
  std::vector<Setup> setups;
  std::vector<std::int64_t> contexts = {1024, 4096, 16384};
  std::int64_t layers = 2, heads = 32, kv_heads = 8, head_dim = 128;
  std::int64_t steps = 16;  ///< decode steps timed at each context
  std::uint64_t seed = 0;
};

/// Decode attention of each setup, of the f16 cache and of LibTorch in f32, on random keys and values of Llama-like
/// shape.
/// @throws Error InvalidArgument when a setup does not fit the shape, OutOfMemory when the largest cache does not fit
DecodeBench bench_decode(const DecodeBenchRequest& request, const JobContext& job);

struct GptqBenchRequest {
  std::int64_t size = 4096, tokens = 2048;
  int bits = 4;
  std::uint64_t seed = 0;
};

/// @throws Error InvalidArgument for a size below 16
GptqBench bench_gptq(const GptqBenchRequest& request, const JobContext& job);

/// Greedy generation with each variant, the first one being the reference.
std::vector<ModelBenchRow> bench_model(const std::vector<const Variant*>& variants,
                                       const std::vector<std::int64_t>& prompt, std::int64_t new_tokens,
                                       const JobContext& job);

}  // namespace qs
