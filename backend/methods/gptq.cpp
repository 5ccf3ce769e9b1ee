#include "backend/methods/gptq.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/methods/column_order.h"
#include "backend/methods/column_sweep.h"
#include "backend/methods/hessian.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kTileRows = 64;

/// Ranges of all groups while they are found: group after group, each with one entry a row.
struct GroupRanges {
  at::Tensor scale, stored, zero_point;  ///< f32 [groups, out_features]

  void fit(std::int64_t group, const at::Tensor& columns, const AffineQuantizer& quantizer) {
    const AffineRange range = affine_weight_range(columns, quantizer);
    const at::Tensor kept = stored_scale(range.scale, quantizer.scale_type);
    at::Tensor used = range.scale;
    if (quantizer.store_then_quantize) used = at::where(kept > 0, kept, used);
    scale[group].copy_(used.view({-1}));
    stored[group].copy_(kept.view({-1}));
    zero_point[group].copy_(range.zero_point.view({-1}));
  }
};

class Gptq {
 public:
  Gptq(const at::Tensor& weight, const GptqOptions& options)
      : options_(options),
        out_(weight.size(0)),
        in_(weight.size(1)),
        group_size_(options.group_size > 0 ? std::min(options.group_size, in_) : in_),
        groups_(group_count(in_, options.group_size)) {
    ranges_.scale = at::empty({groups_, out_}, at::kFloat);
    ranges_.stored = at::empty_like(ranges_.scale);
    ranges_.zero_point = at::empty_like(ranges_.scale);
  }

  GptqResult run(const at::Tensor& weight, const at::Tensor& hessian, const JobContext& job) {
    weight_ = weight.clone();
    if (fixed_ranges()) fit_all(weight_);
    const bool known = hessian.defined() && at::diagonal(hessian).any().item<bool>();
    if (!known || !prepare(hessian, job.part(0.0, 0.5))) round_to_nearest(known);
    codes_ = at::empty({in_, out_}, at::kByte);
    row_loss_ = at::zeros({out_}, at::kDouble);
    sweep(job.part(0.5, 1.0));
    return finish(weight, hessian);
  }

 private:
  /// Per-row ranges and static groups come from the untouched weight, dead columns included.
  bool fixed_ranges() const { return groups_ == 1 || options_.static_groups; }

  void fit_all(const at::Tensor& weight) {
    for (std::int64_t group = 0; group < groups_; ++group) fit(group, weight);
  }

  void fit(std::int64_t group, const at::Tensor& weight) {
    const std::int64_t begin = group * group_size_;
    ranges_.fit(group, weight.narrow(1, begin, std::min(group_size_, in_ - begin)).contiguous(), options_.affine);
  }

  bool prepare(const at::Tensor& hessian, const JobContext& job) {
    at::Tensor h = hessian.to(at::kFloat).clone();
    at::Tensor diagonal = h.diagonal();
    dead_ = (diagonal == 0).unsqueeze(0);
    result_.dead_columns = dead_.sum().item<std::int64_t>();
    diagonal.masked_fill_(dead_.view({-1}), 1.0);
    at::Tensor order = at::arange(in_, at::kLong);
    if (options_.act_order) {
      order = order_by_diagonal(h);
      h = h.index_select(0, order).index_select(1, order);
    }
    const DampedFactor factor = damped_inverse_factor(h, options_.percdamp, {}, job);
    result_.damping = factor.damping;
    added_ = factor.added;
    result_.notes.insert(result_.notes.end(), factor.notes.begin(), factor.notes.end());
    if (!factor.upper.defined()) return false;
    weight_.masked_fill_(dead_, 0.0);
    if (options_.act_order) weight_ = weight_.index_select(1, order).contiguous();
    upper_ = factor.upper;
    order_ = order;
    if (result_.dead_columns > 0) {
      result_.notes.push_back(std::to_string(result_.dead_columns) + " of " + std::to_string(in_) +
                              " input columns are always 0; their weights become 0.");
    }
    return true;
  }

  void round_to_nearest(bool known) {
    result_.rounded_to_nearest = true;
    result_.damping = added_ = 0.0;
    result_.dead_columns = 0;
    result_.notes.emplace_back(known ? "Rounded to nearest instead."
                                     : "No input reached this layer; it was rounded to nearest.");
    upper_ = at::Tensor();
    order_ = at::arange(in_, at::kLong);
  }

  /// Where the block that begins at `begin` ends. Fresh statistics need all updates at the start of a group.
  std::int64_t block_end(std::int64_t begin) const {
    std::int64_t end = std::min(begin + options_.block_size, in_);
    if (options_.fresh_statistics && !fixed_ranges()) {
      end = std::min(end, (begin / group_size_ + 1) * group_size_);
    }
    return end;
  }

  void sweep(const JobContext& job) {
    const std::vector<std::int64_t> groups = column_groups();
    for (std::int64_t begin = 0; begin < in_;) {
      job.checkpoint(begin, in_, "Quantizing columns");
      const std::int64_t end = block_end(begin);
      if (!fixed_ranges()) {
        // The published code reads the matrix, which the updates inside the block have not reached.
        for (std::int64_t j = begin; j < end; ++j) {
          if (j % group_size_ == 0) fit(j / group_size_, weight_);
        }
      }
      const at::Tensor errors = sweep_columns(begin, end, groups);
      if (upper_.defined()) propagate_block(weight_, upper_, errors, begin, end, job);
      begin = end;
    }
  }

  /// Group of each column of the processing order.
  std::vector<std::int64_t> column_groups() const {
    std::vector<std::int64_t> groups(static_cast<std::size_t>(in_));
    const auto* order = order_.data_ptr<std::int64_t>();
    for (std::int64_t j = 0; j < in_; ++j) {
      groups[static_cast<std::size_t>(j)] = (options_.static_groups ? order[j] : j) / group_size_;
    }
    return groups;
  }

  at::Tensor sweep_columns(std::int64_t begin, std::int64_t end, const std::vector<std::int64_t>& groups) {
    at::Tensor errors = at::empty({out_, end - begin}, at::kFloat);
    // Rounding to nearest is the sweep with U = 1.
    const at::Tensor upper = upper_.defined() ? upper_ : identity();
    const float* const u = upper.data_ptr<float>();
    const std::int64_t in = in_, out = out_;
    const float* const scales = ranges_.scale.data_ptr<float>();
    const float* const zeros = ranges_.zero_point.data_ptr<float>();
    auto* const codes = codes_.data_ptr<std::uint8_t>();
    auto* const losses = row_loss_.data_ptr<double>();
    const float top = static_cast<float>((1 << options_.affine.bits) - 1);
    sweep_block(weight_.data_ptr<float>(), out, in, u, begin, end, kTileRows, errors.data_ptr<float>(),
                [&](const SweepTile& tile, std::int64_t j, float* error) {
                  const std::int64_t group = groups[static_cast<std::size_t>(begin + j)] * out + tile.first_row;
                  const float* const s = scales + group;
                  const float* const z = zeros + group;
                  const float* const w = tile.column(j);
                  std::uint8_t* const code = codes + (begin + j) * out + tile.first_row;
                  double* const loss = losses + tile.first_row;
                  const float d = u[(begin + j) * in + begin + j];
                  float level[kTileRows];
                  for (std::int64_t r = 0; r < tile.rows; ++r) {
                    level[r] = std::min(top, std::max(0.0F, round_half_even(w[r] / s[r]) + z[r]));
                    error[r] = (w[r] - s[r] * (level[r] - z[r])) / d;
                  }
                  for (std::int64_t r = 0; r < tile.rows; ++r) {
                    code[r] = static_cast<std::uint8_t>(level[r]);
                    loss[r] += 0.5 * static_cast<double>(error[r]) * static_cast<double>(error[r]);
                  }
                });
    return errors;
  }

  const at::Tensor& identity() {
    if (!identity_.defined()) identity_ = at::eye(in_, at::kFloat);
    return identity_;
  }

  GptqResult finish(const at::Tensor& weight, const at::Tensor& hessian) {
    const at::Tensor inverse = at::argsort(order_);
    const at::Tensor position = options_.static_groups ? at::arange(in_, at::kLong) : inverse;
    const at::Tensor group = at::floor_divide(position, group_size_);
    result_.order = order_;
    result_.group_index = group.to(at::kInt);
    result_.codes = codes_.index_select(0, inverse).t().contiguous();
    result_.scale = ranges_.stored.t().contiguous();
    result_.zero_point = ranges_.zero_point.t().contiguous();
    const auto of_column = [&](const at::Tensor& t) { return groups_ == 1 ? t : t.index_select(1, group); };
    result_.values = result_.codes.to(at::kFloat).sub_(of_column(result_.zero_point)).mul_(of_column(result_.scale));
    if (result_.rounded_to_nearest) {
      const at::Tensor difference = weight - result_.values;
      const at::Tensor h = hessian.defined() ? hessian : at::zeros({in_, in_}, at::kFloat);
      row_loss_ = at::mm(difference, h).mul_(difference).sum(1, false, at::kDouble).mul_(0.5);
      result_.loss = result_.undamped_loss = row_loss_.sum().item<double>();
    } else {
      result_.loss = row_loss_.sum().item<double>();
      const double squared =
          (weight - result_.values).masked_fill_(dead_, 0.0).square().sum(at::kDouble).item<double>();
      result_.undamped_loss = std::max(0.0, result_.loss - 0.5 * added_ * squared);
    }
    result_.row_loss = row_loss_;
    return std::move(result_);
  }

  const GptqOptions& options_;
  const std::int64_t out_, in_, group_size_, groups_;
  GroupRanges ranges_;
  at::Tensor weight_, dead_, upper_, order_, codes_, row_loss_, identity_;
  double added_ = 0.0;
  GptqResult result_;
};

}  // namespace

std::int64_t group_count(std::int64_t in_features, std::int64_t group_size) {
  return group_size > 0 && group_size < in_features ? (in_features + group_size - 1) / group_size : 1;
}

GptqResult gptq(const at::Tensor& weight, const at::Tensor& hessian, const GptqOptions& options,
                const std::string& name, const JobContext& job) {
  if (options.static_groups && options.group_size <= 0) {
    throw Error(ErrorCode::InvalidArgument,
                "gptq: static_groups=true fixes the ranges of groups before the sweep, so it needs a group_size; found "
                "-1 (the whole row).");
  }
  const at::Tensor wide = finite_weight(weight, name);
  return Gptq(wide, options).run(wide, hessian, job);
}

}  // namespace qs
