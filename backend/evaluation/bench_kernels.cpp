#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <limits>

#include "backend/evaluation/bench.h"
#include "backend/evaluation/bench_gemv.h"
#include "backend/evaluation/median_time.h"
#include "kernels/copy_bandwidth.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

using kernels::KernelSet;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Runs `call` with the set in use and with the scalar one and fills a row.
template <typename Call>
KernelBenchRow time_kernel(std::string name, std::string shape, double elements, double bytes, double bandwidth,
                           Call&& call, double torch_f32 = kNone, double torch_bf16 = kNone) {
  const double seconds = median_seconds([&] { call(kernels::kernel_set()); });
  const double scalar = median_seconds([&] { call(*kernels::kernel_set(kernels::SetName::Scalar)); });
  return {.kernel = std::move(name),
          .shape = std::move(shape),
          .ns_per_element = 1e9 * seconds / elements,
          .bytes_per_second = bytes / seconds,
          .bandwidth_share = bytes / seconds / bandwidth,
          .times_scalar = scalar / seconds,
          .times_torch_f32 = torch_f32 / seconds,
          .times_torch_bf16 = torch_bf16 / seconds};
}

/// Gives LibTorch its number of threads back.
class ThreadCount {
 public:
  ThreadCount() : threads_(at::get_num_threads()) {}
  ~ThreadCount() { at::set_num_threads(threads_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int threads_;
};

at::Tensor random_codes(at::IntArrayRef shape, int bits) { return at::randint(0, 1 << bits, shape, at::kByte); }

at::Tensor random_half(at::IntArrayRef shape) { return at::rand(shape).mul(0.1).to(at::kHalf).contiguous(); }

const std::uint16_t* half_bits(const at::Tensor& t) { return static_cast<const std::uint16_t*>(t.data_ptr()); }

void add_quantizers(KernelBench& bench) {
  constexpr std::int64_t kRows = 4096, kColumns = 1024;
  const at::Tensor x = at::randn({kRows, kColumns});
  at::Tensor codes = at::empty({kRows, kColumns}, at::kByte), scale = at::empty({kRows * kColumns / 32}),
             low = at::empty_like(scale);
  const double elements = kRows * kColumns, bytes = elements * (4 + 1 + 8.0 / 32);
  const auto args = [&](auto groups, int bits) {
    groups.x = x.data_ptr<float>(), groups.rows = kRows, groups.columns = kColumns, groups.row_stride = kColumns,
    groups.group_size = 32;
    groups.bits = bits, groups.codes = codes.data_ptr<std::uint8_t>(), groups.scale = scale.data_ptr<float>();
    groups.group_min = low.data_ptr<float>();
    return groups;
  };
  const auto torch_quantize = [&](std::int64_t axis, int bits) {
    const at::Tensor view = axis == 1 ? x.view({kRows, -1, 32}) : x.view({-1, 32, kColumns});
    return median_seconds([&] {
      const std::int64_t dim = axis == 1 ? 2 : 1;
      const at::Tensor low_t = view.amin(dim, true), step = (view.amax(dim, true) - low_t) / ((1 << bits) - 1);
      at::Tensor q = ((view - low_t) / step).clamp(0, (1 << bits) - 1).round().to(at::kByte);
    });
  };
  bench.rows.push_back(time_kernel(
      "quantize per token, 4 bit", "4096x1024 g32", elements, bytes, bench.copy_bandwidth,
      [&](const KernelSet& set) { set.quantize_rows(args(kernels::RowGroups{}, 4)); }, torch_quantize(1, 4)));
  bench.rows.push_back(time_kernel(
      "quantize per channel, 2 bit", "4096x1024 g32", elements, bytes, bench.copy_bandwidth,
      [&](const KernelSet& set) { set.quantize_columns(args(kernels::ColumnGroups{}, 2)); }, torch_quantize(0, 2)));
}

/// KIVI-shaped attention of one KV head read by four query heads, from codes or from f16 rows.
void add_attention(KernelBench& bench, int bits) {
  constexpr std::int64_t kTokens = 16384, kDim = 128, kGroup = 32, kQueries = 4;
  std::vector<std::uint8_t> keys, values;
  at::Tensor key_scale, key_min, value_scale, value_min, key_rows, value_rows;
  kernels::Segment key{.tokens = kTokens}, value{.tokens = kTokens};
  double bytes = 0.0;
  if (bits == 16) {
    key_rows = random_half({kTokens, kDim}), value_rows = random_half({kTokens, kDim});
    key.storage = value.storage = kernels::Storage::F16;
    key.data = key_rows.data_ptr(), value.data = value_rows.data_ptr();
    key.stride = value.stride = kDim * 2;
    bytes = 2.0 * kTokens * kDim * 2;
  } else {
    const std::int64_t row_bytes = kernels::packed_row_bytes(kDim, bits);
    keys.resize(static_cast<std::size_t>(kTokens * row_bytes)), values.resize(keys.size());
    const at::Tensor codes = random_codes({kTokens, kDim}, bits);
    const auto* code = codes.data_ptr<std::uint8_t>();
    for (std::int64_t t = 0; t < kTokens; t += kGroup) {
      kernels::pack_block(code + t * kDim, kDim, kGroup, kDim, bits, keys.data() + t * row_bytes);
    }
    for (std::int64_t t = 0; t < kTokens; ++t)
      kernels::pack_row(code + t * kDim, kDim, bits, values.data() + t * row_bytes);
    key_scale = random_half({kTokens / kGroup, kDim}), key_min = random_half({kTokens / kGroup, kDim});
    value_scale = random_half({kTokens, kDim / kGroup}), value_min = random_half({kTokens, kDim / kGroup});
    key.storage = kernels::Storage::PerChannel, value.storage = kernels::Storage::PerToken;
    key.bits = value.bits = bits, key.group_size = value.group_size = kGroup;
    key.data = keys.data(), key.stride = kGroup * row_bytes, key.scale = half_bits(key_scale),
    key.group_min = half_bits(key_min);
    key.scale_stride = kDim;
    value.data = values.data(), value.stride = row_bytes, value.scale = half_bits(value_scale),
    value.group_min = half_bits(value_min);
    value.scale_stride = kDim / kGroup;
    bytes = 2.0 * kTokens * kDim * (bits + 32.0 / kGroup) / 8;
  }
  const at::Tensor query = at::randn({kQueries, kDim}).mul(1.0 / std::sqrt(double(kDim)));
  std::vector<float> top(kQueries), sum(kQueries), out(kQueries * kDim);
  const kernels::AttentionPartial partial{top.data(), sum.data(), out.data()};
  const auto torch_attention = [&](at::ScalarType type) {
    const at::Tensor k = at::randn({kTokens, kDim}).to(type), v = at::randn({kTokens, kDim}).to(type),
                     q = query.to(type);
    return median_seconds([&] { at::Tensor o = at::matmul(at::softmax(at::matmul(q, k.t()), -1), v); });
  };
  bench.rows.push_back(time_kernel(
      bits == 16 ? "decode attention, f16 cache" : "decode attention, " + std::to_string(bits) + "-bit KIVI cache",
      "16384 tokens x 128, 4 query heads", 2.0 * kTokens * kDim, bytes, bench.copy_bandwidth,
      [&](const KernelSet& set) {
        kernels::HeadAttention args{.query = query.data_ptr<float>(),
                                    .queries = kQueries,
                                    .head_dim = kDim,
                                    .keys = &key,
                                    .values = &value,
                                    .key_segments = 1,
                                    .value_segments = 1,
                                    .token_begin = 0,
                                    .token_end = kTokens};
        kernels::reset_partial(partial, kQueries, kDim);
        kernels::attend_head(set, args, partial);
      },
      torch_attention(at::kFloat), torch_attention(at::kBFloat16)));
}

double torch_product(std::int64_t tokens, std::int64_t out, std::int64_t in, at::ScalarType type) {
  const at::Tensor w = at::randn({out, in}).to(type), x = at::randn({tokens, in}).to(type);
  return median_seconds([&] { at::Tensor y = at::matmul(x, w.t()); });
}

void add_gemv(KernelBench& bench, int bits) {
  constexpr std::int64_t kOut = 4096, kIn = 4096, kGroup = 128;
  const at::Tensor codes = random_codes({kOut, kIn}, bits);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(kOut * kernels::packed_row_bytes(kIn, bits)));
  kernels::pack_weight(codes.data_ptr<std::uint8_t>(), kOut, kIn, bits, packed.data());
  const at::Tensor scale = random_half({kOut, kIn / kGroup}), zero = random_codes({kOut, kIn / kGroup}, bits),
                   x = at::randn({1, kIn});
  at::Tensor y = at::empty({1, kOut});
  const kernels::PackedWeight weight{.bits = bits,
                                     .out_features = kOut,
                                     .in_features = kIn,
                                     .group_size = kGroup,
                                     .codes = packed.data(),
                                     .scale = half_bits(scale),
                                     .zero_point = zero.data_ptr<std::uint8_t>()};
  const kernels::GemvArgs args{
      .x = x.data_ptr<float>(), .tokens = 1, .y = y.data_ptr<float>(), .row_begin = 0, .row_end = kOut};
  bench.rows.push_back(time_kernel(
      "matrix-vector, " + std::to_string(bits) + "-bit weight", "4096x4096 g128, 1 token", double(kOut) * kIn,
      double(kOut) * kIn * (bits + 24.0 / kGroup) / 8, bench.copy_bandwidth,
      [&](const KernelSet& set) { set.packed_gemv(weight, args); }, torch_product(1, kOut, kIn, at::kFloat),
      torch_product(1, kOut, kIn, at::kBFloat16)));
}

void add_int8_gemm(KernelBench& bench) {
  constexpr std::int64_t kTokens = 64, kOut = 2048, kIn = 2048;
  const at::Tensor weight = at::randint(-127, 128, {kOut, kIn}, at::kChar), row_scale = at::rand({kOut}),
                   x = at::randn({kTokens, kIn});
  at::Tensor sums = at::empty({kOut}, at::kInt), codes = at::empty({kTokens, kIn}, at::kByte),
             scale = at::empty({kTokens});
  at::Tensor zero = at::empty({kTokens}, at::kInt), code_sum = at::empty({kTokens}, at::kInt),
             y = at::empty({kTokens, kOut});
  kernels::sum_rows(weight.data_ptr<std::int8_t>(), kOut, kIn, sums.data_ptr<std::int32_t>());
  const kernels::Int8Weight w{.out_features = kOut,
                              .in_features = kIn,
                              .codes = weight.data_ptr<std::int8_t>(),
                              .scale = row_scale.data_ptr<float>(),
                              .zero_point = nullptr,
                              .code_sum = sums.data_ptr<std::int32_t>()};
  const kernels::QuantizedActivations a{.codes = codes.data_ptr<std::uint8_t>(),
                                        .scale = scale.data_ptr<float>(),
                                        .zero_point = zero.data_ptr<std::int32_t>(),
                                        .code_sum = code_sum.data_ptr<std::int32_t>()};
  bench.rows.push_back(time_kernel(
      "W8A8 product with quantization", "64 tokens, 2048x2048", double(kTokens) * kOut * kIn,
      double(kOut) * kIn + 5.0 * kTokens * kIn + 4.0 * kTokens * kOut, bench.copy_bandwidth,
      [&](const KernelSet& set) {
        set.quantize_activations(x.data_ptr<float>(), kTokens, kIn, 8, kernels::ActivationRange::Affine, a);
        set.int8_gemm(w, a, kTokens, 0, kOut, y.data_ptr<float>());
      },
      torch_product(kTokens, kOut, kIn, at::kFloat), torch_product(kTokens, kOut, kIn, at::kBFloat16)));
}

}  // namespace

KernelBench bench_kernels(const JobContext& job) {
  const c10::InferenceMode no_grad;
  const ThreadCount restored;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  KernelBench bench{.kernel_set = kernels::kernel_set_name(), .torch_version = QS_TORCH_VERSION, .threads = 1};
  // Products of whole weights come last and take most of the time.
  const JobContext part = job.part(0.0, 0.2);
  part.checkpoint(0, 9, "Copy bandwidth");
  bench.copy_bandwidth = kernels::measure_copy_bandwidth(1);
  part.checkpoint(1, 9, "Quantizers");
  add_quantizers(bench);
  std::int64_t done = 2;
  for (const int bits : {16, 8, 4, 2}) {
    part.checkpoint(done++, 9, "Decode attention");
    add_attention(bench, bits);
  }
  for (const int bits : {8, 4, 2}) {
    part.checkpoint(done++, 9, "Matrix-vector products");
    add_gemv(bench, bits);
  }
  add_int8_gemm(bench);
  const double bandwidth[2] = {bench.copy_bandwidth, kernels::measure_copy_bandwidth(threads)};
  bench.gemv = bench_gemv(threads, bandwidth, job.part(0.2, 1.0));
  job.checkpoint(9, 9, "Kernels");
  return bench;
}

}  // namespace qs
