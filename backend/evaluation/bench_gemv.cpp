#include "backend/evaluation/bench_gemv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <utility>

#include "backend/model/model.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

using kernels::DenseType;
using kernels::GemvArgs;
using kernels::KernelSet;

constexpr std::int64_t kGroup = 128;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kSizes[][2] = {{512, 2048}, {2048, 8192}, {4096, 16384}, {8192, 32768}, {12288, 49152}};

/// A kernel on rows [args.row_begin, args.row_end).
using Rows = std::function<void(const KernelSet&, const GemvArgs&)>;

/// `count` elements of a short random run over and over: as long in memory as the real thing, and quickly made.
at::Tensor repeated(const at::Tensor& run, std::int64_t count) {
  return run.repeat({(count + run.numel() - 1) / run.numel()}).narrow(0, 0, count).contiguous();
}

/// The least of some calls after a first one: other work on the machine only ever adds.
double fastest_seconds(const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  call();
  double fastest = std::numeric_limits<double>::infinity();
  const auto begin = Clock::now();
  for (int calls = 0; calls < 7 || (calls < 200 && seconds_since(begin) < 0.1); ++calls) {
    const auto start = Clock::now();
    call();
    fastest = std::min(fastest, seconds_since(start));
  }
  return fastest;
}

/// Seconds by number of threads.
struct Times {
  double seconds[2] = {kNone, kNone};
};

class SizeBench {
 public:
  SizeBench(std::int64_t out, std::int64_t in, int threads, const double (&bandwidth)[2])
      : out_(out), in_(in), threads_{1, threads}, bandwidth_{bandwidth[0], bandwidth[1]} {
    x_ = at::randn({1, in});
    y_ = at::empty({1, out}, at::kFloat);
  }

  void run(const JobContext& job) {
    add_dense(job);
    for (const int bits : {4, 3, 2}) {
      job.checkpoint(0, 1, "Matrix-vector products");
      add_packed(bits);
      add_planes(bits);
    }
  }

  std::vector<GemvBenchRow> rows() const {
    std::vector<GemvBenchRow> rows;
    for (std::size_t t = 0; t < (threads_[1] > 1 ? 2 : 1); ++t) {
      for (const Measured& measured : measured_) {
        const double seconds = measured.times.seconds[t];
        rows.push_back({.storage = measured.storage,
                        .out_features = out_,
                        .in_features = in_,
                        .threads = threads_[t],
                        .ms = 1e3 * seconds,
                        .bandwidth_share = measured.bytes / seconds / bandwidth_[t],
                        .times_f32 = dense_[0].seconds[t] / seconds,
                        .times_f16 = dense_[1].seconds[t] / seconds,
                        .times_bf16 = dense_[2].seconds[t] / seconds,
                        .times_torch_f32 = torch_[0].seconds[t] / seconds,
                        .times_torch_f16 = torch_[1].seconds[t] / seconds,
                        .times_torch_bf16 = torch_[2].seconds[t] / seconds});
      }
    }
    return rows;
  }

 private:
  struct Measured {
    std::string storage;
    double bytes = 0.0;
    Times times;
  };

  Times time(const std::function<void()>& call) const {
    Times times;
    for (std::size_t t = 0; t < (threads_[1] > 1 ? 2 : 1); ++t) {
      at::set_num_threads(threads_[t]);
      times.seconds[t] = fastest_seconds(call);
    }
    return times;
  }

  /// As the linear layers do: tiles of 64 rows shared among the threads.
  Times time_rows(const Rows& rows) {
    const GemvArgs all{x_.data_ptr<float>(), 1, y_.data_ptr<float>(), 0, out_};
    return time([&] {
      at::parallel_for(0, (out_ + 63) / 64, 4, [&](std::int64_t begin, std::int64_t end) {
        GemvArgs part = all;
        part.row_begin = begin * 64;
        part.row_end = std::min(end * 64, out_);
        rows(kernels::kernel_set(), part);
      });
    });
  }

  void add(std::string storage, double bytes, const Rows& rows, double tolerance = 1e-3) {
    check(storage, rows, tolerance);
    measured_.push_back({std::move(storage), bytes, time_rows(rows)});
  }

  /// The first rows against the scalar form.
  void check(const std::string& storage, const Rows& rows, double tolerance) {
    const std::int64_t count = std::min<std::int64_t>(out_, 64);
    at::Tensor expected = at::empty_like(y_);
    rows(*kernels::kernel_set(kernels::SetName::Scalar),
         {x_.data_ptr<float>(), 1, expected.data_ptr<float>(), 0, count});
    rows(kernels::kernel_set(), {x_.data_ptr<float>(), 1, y_.data_ptr<float>(), 0, count});
    const at::Tensor reference = expected.narrow(1, 0, count);
    const double error = ((y_.narrow(1, 0, count) - reference).norm() / reference.norm()).item<double>();
    if (error <= tolerance) return;
    throw Error(ErrorCode::Internal, "The kernel for '" + storage + "' differs from its scalar form by " +
                                         std::to_string(error) + " of the result. Please report this.");
  }

  void add_dense(const JobContext& job) {
    const at::ScalarType types[] = {at::kFloat, at::kHalf, at::kBFloat16};
    const DenseType stored[] = {DenseType::F32, DenseType::F16, DenseType::BF16};
    const char* const names[] = {"dense f32", "dense f16", "dense bf16"};
    for (std::size_t i = 0; i < 3; ++i) {
      job.checkpoint(0, 1, "Matrix-vector products");
      const at::Tensor w = repeated(at::randn({65536 - 128}).to(types[i]), out_ * in_).view({out_, in_});
      const void* const data = w.data_ptr();
      add(names[i], static_cast<double>(out_ * in_ * static_cast<std::int64_t>(w.element_size())),
          [&](const KernelSet& set, const GemvArgs& args) { set.dense_gemv(stored[i], data, in_, out_, args); });
      dense_[i] = measured_.back().times;
      const at::Tensor x = x_.to(types[i]);
      try {
        torch_[i] = time([&] { at::Tensor y = at::matmul(x, w.t()); });
      } catch (const c10::Error&) {
        torch_[i] = {};  // LibTorch 1.13 does not multiply f16 on the CPU
      }
    }
  }

  void add_packed(int bits) {
    const std::int64_t bytes = out_ * kernels::packed_row_bytes(in_, bits), groups = out_ * in_ / kGroup;
    const at::Tensor codes = repeated(at::randint(0, 256, {65521}, at::kByte), bytes),
                     scale = repeated(at::rand({4093}).to(at::kHalf), groups),
                     zero = repeated(at::randint(0, 1 << bits, {4093}, at::kByte), groups);
    const kernels::PackedWeight weight{.bits = bits,
                                       .out_features = out_,
                                       .in_features = in_,
                                       .group_size = kGroup,
                                       .codes = codes.data_ptr<std::uint8_t>(),
                                       .scale = static_cast<const std::uint16_t*>(scale.data_ptr()),
                                       .zero_point = zero.data_ptr<std::uint8_t>()};
    add("packed, " + std::to_string(bits) + " bits", static_cast<double>(bytes + 3 * groups),
        [&](const KernelSet& set, const GemvArgs& args) { set.packed_gemv(weight, args); });
  }

  void add_planes(int bits) {
    const std::int64_t words = out_ * bits * kernels::plane_words(in_), alphas = out_ * bits * in_ / kGroup;
    const at::Tensor planes = repeated(at::randint(0, 256, {4 * 65521}, at::kByte), 4 * words),
                     alpha = repeated(at::rand({4093}).to(at::kHalf), alphas);
    const kernels::BitPlaneWeight weight{.bits = bits,
                                         .out_features = out_,
                                         .in_features = in_,
                                         .group_size = kGroup,
                                         .planes = reinterpret_cast<const std::uint32_t*>(planes.data_ptr()),
                                         .scale_type = DenseType::F16,
                                         .alpha = alpha.data_ptr()};
    const std::string name = "LUT-GEMM, " + std::to_string(bits) + " bits";
    const std::pair<const char*, kernels::LutArithmetic> tables[] = {{"f32", kernels::LutArithmetic::F32},
                                                                     {"int16", kernels::LutArithmetic::Int16},
                                                                     {"int8", kernels::LutArithmetic::Int8}};
    for (const auto& [table, arithmetic] : tables) {
      add(name + ", " + table + " tables", static_cast<double>(4 * words + 2 * alphas),
          [&weight, how = arithmetic](const KernelSet& set, const GemvArgs& args) { set.lut_gemm(weight, args, how); });
    }
  }

  std::int64_t out_, in_;
  int threads_[2];
  double bandwidth_[2];
  at::Tensor x_, y_;
  std::vector<Measured> measured_;
  Times dense_[3], torch_[3];
};

}  // namespace

std::vector<GemvBenchRow> bench_gemv(int threads, const double (&bandwidth)[2], const JobContext& job) {
  std::vector<GemvBenchRow> rows;
  double all = 0.0, done = 0.0;
  for (const auto& [out, in] : kSizes) all += static_cast<double>(out * in);
  for (const auto& [out, in] : kSizes) {
    const double size = static_cast<double>(out * in);
    // The f32 weight and what LibTorch makes of it.
    if (2 * 4 * out * in > available_memory()) break;
    SizeBench bench(out, in, threads, bandwidth);
    bench.run(job.part(done / all, (done + size) / all));
    done += size;
    for (GemvBenchRow& row : bench.rows()) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace qs
