#include "backend/methods/bcq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/bcq_search.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kStepWork = 4'000'000;  ///< weights times rounds between two checkpoints: some 50 ms
constexpr std::int64_t kThreadWork = 65536;

/// -1 when the whole row is nearest.
std::int64_t nearest_bcq_group(std::int64_t features, std::int64_t wanted) {
  std::int64_t best = features;
  for (std::int64_t candidate = 8; candidate < features; candidate += 8) {
    if (features % candidate == 0 && std::abs(candidate - wanted) < std::abs(best - wanted)) best = candidate;
  }
  return best == features ? -1 : best;
}

void check_sign_count(std::int64_t signs) {
  if (signs % 8 == 0) return;
  throw Error(ErrorCode::InvalidArgument,
              "Eight equal runs need a multiple of 8 signs; this weight has " + std::to_string(signs) + ".");
}

}  // namespace

BcqAssign parse_bcq_assign(const std::string& id) {
  if (id == "nearest") return BcqAssign::Nearest;
  if (id == "greedy") return BcqAssign::Greedy;
  throw Error(ErrorCode::InvalidArgument, "assign must be nearest or greedy; it is '" + id + "'.");
}

void check_bcq_group(std::int64_t in_features, std::int64_t group_size, const std::string& name) {
  if (group_size < 0 || group_size == in_features) return;
  if (group_size > 0 && group_size % 8 == 0 && in_features % group_size == 0) return;
  const std::int64_t nearest = nearest_bcq_group(in_features, group_size);
  throw Error(ErrorCode::InvalidArgument,
              "group_size=" + std::to_string(group_size) + " must be a multiple of 8 that divides the " +
                  std::to_string(in_features) + " input features of '" + name + "', or -1 for the whole row. " +
                  "The nearest that fits is " + std::to_string(nearest) + ".");
}

BcqWeight bcq(const at::Tensor& weight, const BcqOptions& options, const std::string& name, const JobContext& job) {
  const at::Tensor wide = finite_weight(weight, name);
  const std::int64_t out = wide.size(0), in = wide.size(1);
  check_bcq_group(in, options.group_size, name);
  const std::int64_t group = options.group_size > 0 ? options.group_size : in, groups = out * in / group;
  BcqWeight result;
  result.codes = at::empty({out, in}, at::kByte);
  at::Tensor alpha = at::empty({out, in / group, options.bits}, at::kFloat);
  const float* const w = wide.data_ptr<float>();
  auto* const codes = result.codes.data_ptr<std::uint8_t>();
  float* const alphas = alpha.data_ptr<float>();
  const std::int64_t step = std::max<std::int64_t>(1, kStepWork / (group * (options.rounds + 1)));
  for (std::int64_t begin = 0; begin < groups; begin += step) {
    job.checkpoint(begin, groups, "Searching binary codes");
    const std::int64_t end = std::min(begin + step, groups);
    at::parallel_for(begin, end, std::max<std::int64_t>(1, kThreadWork / (group * (options.rounds + 1))),
                     [&](std::int64_t from, std::int64_t to) {
                       BcqGroupSearch search(options, group);
                       for (std::int64_t i = from; i < to; ++i)
                         search.run(w + i * group, codes + i * group, alphas + i * options.bits);
                     });
  }
  job.checkpoint(groups, groups, "Searching binary codes");
  result.alpha = stored_scale(alpha, options.scale_type);
  result.values = bcq_values(result.codes, result.alpha, {});
  return result;
}

BcqWeight bcq_from_codes(const WeightCodes& codes, int bits, ScaleType scale_type, const std::string& name) {
  if (codes.order.defined()) {
    throw Error(ErrorCode::InvalidArgument, "The codes of '" + name +
                                                "' lie in processing order; planes need the original order of "
                                                "columns. Use static groups or no activation order.");
  }
  const std::int64_t out = codes.codes.size(0);
  const double top = static_cast<double>((1 << bits) - 1);
  const at::Tensor scale = codes.scale.expand({out, codes.scale.size(1)}).to(at::kFloat),
                   zero = codes.zero_point.expand({out, codes.zero_point.size(1)}).to(at::kFloat);
  at::Tensor powers = at::empty({bits}, at::kFloat);
  for (int i = 0; i < bits; ++i) powers[i] = std::ldexp(0.5, i);
  BcqWeight result;
  result.codes = codes.codes.contiguous();
  result.alpha = stored_scale((scale.unsqueeze(-1) * powers).contiguous(), scale_type);
  result.offset = stored_scale((scale * (top / 2.0 - zero)).contiguous(), scale_type);
  result.values = bcq_values(result.codes, result.alpha, result.offset);
  return result;
}

at::Tensor bcq_values(const at::Tensor& codes, const at::Tensor& alpha, const at::Tensor& offset) {
  const std::int64_t out = codes.size(0), in = codes.size(1), groups = alpha.size(1), group = in / groups;
  const int bits = static_cast<int>(alpha.size(2));
  at::Tensor values = at::empty({out, in}, at::kFloat);
  const auto* const code = codes.data_ptr<std::uint8_t>();
  const float* const a = alpha.data_ptr<float>();
  const float* const shift = offset.defined() ? offset.data_ptr<float>() : nullptr;
  float* const value = values.data_ptr<float>();
  at::parallel_for(0, out * groups, std::max<std::int64_t>(1, kThreadWork / group),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i)
                       for (std::int64_t k = i * group; k < (i + 1) * group; ++k)
                         value[k] = bcq_value(code[k], a + i * bits, bits, 1, shift != nullptr ? shift[i] : 0.0F);
                   });
  return values;
}

double bcq_effective_bits(int bits, std::int64_t group_size, std::int64_t in_features, ScaleType scale_type,
                          bool with_offset) {
  const auto group = static_cast<double>(group_size > 0 ? group_size : in_features);
  return bits + (bits + (with_offset ? 1 : 0)) * 8.0 * static_cast<double>(scale_bytes(scale_type)) / group;
}

at::Tensor pack_sign_runs(const at::Tensor& codes, int bits) {
  const std::int64_t signs = codes.numel() * bits, run = signs / 8;
  check_sign_count(signs);
  const at::Tensor contiguous = codes.contiguous();
  const auto* const code = contiguous.data_ptr<std::uint8_t>();
  at::Tensor packed = at::zeros({run}, at::kByte);
  auto* const bytes = packed.data_ptr<std::uint8_t>();
  for (std::int64_t k = 0; k < signs; ++k) {
    const int sign = code[k / bits] >> (k % bits) & 1;
    bytes[k % run] = static_cast<std::uint8_t>(bytes[k % run] | sign << (k / run));
  }
  return packed;
}

at::Tensor unpack_sign_runs(const at::Tensor& packed, std::int64_t out_features, std::int64_t in_features, int bits) {
  const std::int64_t signs = out_features * in_features * bits, run = packed.numel();
  if (run * 8 != signs) {
    throw Error(ErrorCode::BadFormat, "Signs of " + std::to_string(out_features) + " x " + std::to_string(in_features) +
                                          " weights in " + std::to_string(bits) + " planes take " +
                                          std::to_string(signs / 8) + " bytes, found " + std::to_string(run) + ".");
  }
  const at::Tensor contiguous = packed.contiguous();
  const auto* const bytes = contiguous.data_ptr<std::uint8_t>();
  at::Tensor codes = at::zeros({out_features, in_features}, at::kByte);
  auto* const code = codes.data_ptr<std::uint8_t>();
  for (std::int64_t k = 0; k < signs; ++k) {
    const int sign = bytes[k % run] >> (k / run) & 1;
    code[k / bits] = static_cast<std::uint8_t>(code[k / bits] | sign << (k % bits));
  }
  return codes;
}

}  // namespace qs
