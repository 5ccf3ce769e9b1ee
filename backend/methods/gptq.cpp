#include "backend/methods/gptq.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/methods/column_order.h"
#include "backend/methods/column_sweep.h"
#include "backend/methods/hessian.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

/// Ranges of all groups while they are found: group after group, each with one entry a row, padded to whole tiles.
struct GroupRanges {
  std::int64_t rows = 0;
  at::Tensor scale, stored, zero_point;  ///< f32 [groups, padded rows]

  GroupRanges(std::int64_t groups, std::int64_t out_features, std::int64_t padded_rows)
      : rows(out_features),
        scale(at::ones({groups, padded_rows}, at::kFloat)),
        stored(at::ones_like(scale)),
        zero_point(at::zeros_like(scale)) {}

  void fit(std::int64_t group, const at::Tensor& columns, const AffineQuantizer& quantizer) {
    const AffineRange range = affine_weight_range(columns, quantizer);
    const at::Tensor kept = stored_scale(range.scale, quantizer.scale_type);
    at::Tensor used = range.scale;
    if (quantizer.store_then_quantize) used = at::where(kept > 0, kept, used);
    const auto of_group = [&](const at::Tensor& t) { return t[group].narrow(0, 0, rows); };
    of_group(scale).copy_(used.view({-1}));
    of_group(stored).copy_(kept.view({-1}));
    of_group(zero_point).copy_(range.zero_point.view({-1}));
  }
};

constexpr std::int64_t kRows = kernels::kSweepRows;
constexpr std::int64_t kBlock = 128;  // its sums stay in the first cache

class Gptq {
 public:
  Gptq(const at::Tensor& weight, const GptqOptions& options)
      : options_(options),
        out_(weight.size(0)),
        in_(weight.size(1)),
        group_size_(options.group_size > 0 ? std::min(options.group_size, in_) : in_),
        groups_(group_count(in_, options.group_size)),
        ranges_(groups_, out_, (out_ + kRows - 1) / kRows * kRows),
        order_(at::arange(in_, at::kLong)) {}

  GptqResult run(const at::Tensor& weight, const at::Tensor& hessian, const JobContext& job) {
    if (fixed_ranges()) fit_all(weight);
    const bool known = hessian.defined() && at::diagonal(hessian).any().item<bool>();
    if (!known || !prepare(hessian, job.part(0.0, 0.4))) round_to_nearest(known);
    ColumnSweep sweep(result_.dead_columns > 0 ? weight.masked_fill(dead_, 0.0) : weight, order_, upper_);
    codes_ = at::empty({sweep.tiles(), in_, kRows}, at::kByte);
    row_loss_ = at::zeros({sweep.padded_rows()}, at::kDouble);
    squared_ = at::zeros_like(row_loss_);
    quantize(sweep, job.part(0.4, 1.0));
    return finish(weight, hessian, sweep);
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
    dead_ = (at::diagonal(hessian) == 0).unsqueeze(0);
    result_.dead_columns = dead_.sum().item<std::int64_t>();
    at::Tensor h = hessian;
    if (result_.dead_columns > 0) {
      h = hessian.clone();
      h.diagonal().masked_fill_(dead_.view({-1}), 1.0);
    }
    if (options_.act_order) {
      order_ = order_by_diagonal(h);
      h = h.index_select(0, order_).index_select(1, order_);
    }
    const DampedFactor factor = damped_factor(h, options_.percdamp, {}, job);
    result_.damping = factor.damping;
    added_ = factor.added;
    result_.notes.insert(result_.notes.end(), factor.notes.begin(), factor.notes.end());
    if (!factor.upper.defined()) return false;
    upper_ = factor.upper;
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

  /// Where the block that begins at `begin` ends. It matters for ranges that follow the updates alone: fresh ones need
  /// all of them at the start of a group.
  std::int64_t block_end(std::int64_t begin) const {
    if (fixed_ranges()) return std::min(begin + kBlock, in_);
    std::int64_t end = std::min(begin + options_.block_size, in_);
    if (options_.fresh_statistics) {
      end = std::min(end, (begin / group_size_ + 1) * group_size_);
    }
    return end;
  }

  void quantize(ColumnSweep& sweep, const JobContext& job) {
    const std::vector<std::int32_t> groups = column_groups();
    for (std::int64_t begin = 0; begin < in_;) {
      const std::int64_t end = block_end(begin), known = end_of_groups(begin, end);
      sweep.start_block(begin, known, job);
      if (!fixed_ranges()) fit_groups(sweep, begin, end);
      quantize_block(sweep, begin, end, groups);
      begin = end;
    }
  }

  /// Where the last group that begins in the block ends: its range needs the expected weights up to there.
  std::int64_t end_of_groups(std::int64_t begin, std::int64_t end) const {
    const std::int64_t last = (end - 1) / group_size_ * group_size_;
    return fixed_ranges() || last < begin ? end : std::max(end, std::min(last + group_size_, in_));
  }

  /// The published code reads the matrix, which the updates inside the block have not reached.
  void fit_groups(ColumnSweep& sweep, std::int64_t begin, std::int64_t end) {
    std::int64_t first = (begin + group_size_ - 1) / group_size_ * group_size_;
    if (first >= end) return;
    const at::Tensor expected = sweep.expected();
    for (; first < end; first += group_size_) {
      const std::int64_t columns = std::min(group_size_, in_ - first);
      ranges_.fit(first / group_size_, expected.narrow(1, first - begin, columns).contiguous(), options_.affine);
    }
  }

  /// Group of each column of the processing order.
  std::vector<std::int32_t> column_groups() const {
    std::vector<std::int32_t> groups(static_cast<std::size_t>(in_));
    const auto* order = order_.data_ptr<std::int64_t>();
    for (std::int64_t j = 0; j < in_; ++j) {
      groups[static_cast<std::size_t>(j)] =
          static_cast<std::int32_t>((options_.static_groups ? order[j] : j) / group_size_);
    }
    return groups;
  }

  void quantize_block(ColumnSweep& sweep, std::int64_t begin, std::int64_t end,
                      const std::vector<std::int32_t>& groups) {
    kernels::SweepGrid block;
    block.scale = ranges_.scale.data_ptr<float>();
    block.zero_point = ranges_.zero_point.data_ptr<float>();
    block.group = groups.data() + begin;
    block.group_stride = ranges_.scale.size(1);
    block.top = static_cast<float>((1 << options_.affine.bits) - 1);
    block.codes = codes_.data_ptr<std::uint8_t>();
    block.loss = row_loss_.data_ptr<double>();
    block.squared = squared_.data_ptr<double>();
    const kernels::QuantizeColumnsInOrder quantize_columns = kernels::kernel_set().quantize_columns_in_order;
    sweep.for_tiles(1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t t = first; t < last; ++t) {
        kernels::SweepGrid grid = block;
        grid.scale += t * kRows, grid.zero_point += t * kRows;
        grid.codes += (t * in_ + begin) * kRows;
        grid.loss += t * kRows, grid.squared += t * kRows;
        quantize_columns(sweep.tile(t, begin, end, end), grid);
      }
    });
  }

  GptqResult finish(const at::Tensor& weight, const at::Tensor& hessian, const ColumnSweep& sweep) {
    const at::Tensor position = options_.static_groups ? at::arange(in_, at::kLong) : at::argsort(order_);
    result_.order = order_;
    result_.group_index = at::floor_divide(position, group_size_).to(at::kInt);
    result_.scale = ranges_.stored.narrow(1, 0, out_).t().contiguous();
    result_.zero_point = ranges_.zero_point.narrow(1, 0, out_).t().contiguous();
    result_.codes = at::empty({out_, in_}, at::kByte);
    result_.values = at::empty({out_, in_}, at::kFloat);
    const std::vector<std::int32_t> groups = column_groups();
    const float* const stored = ranges_.stored.data_ptr<float>();
    const float* const zeros = ranges_.zero_point.data_ptr<float>();
    const std::int64_t stride = ranges_.stored.size(1), in = in_;
    auto* const codes = result_.codes.data_ptr<std::uint8_t>();
    float* const values = result_.values.data_ptr<float>();
    for_tiled_rows(sweep, codes_.data_ptr<std::uint8_t>(), order_,
                   [&](std::int64_t row, std::int64_t place, std::int64_t column, std::uint8_t code) {
                     const std::int64_t at = groups[static_cast<std::size_t>(place)] * stride + row;
                     codes[row * in + column] = code;
                     values[row * in + column] = stored[at] * (static_cast<float>(code) - zeros[at]);
                   });
    if (result_.rounded_to_nearest) {
      const at::Tensor difference = weight - result_.values;
      const at::Tensor h = hessian.defined() ? hessian : at::zeros({in_, in_}, at::kFloat);
      result_.row_loss = at::mm(difference, h).mul_(difference).sum(1, false, at::kDouble).mul_(0.5);
      result_.loss = result_.undamped_loss = result_.row_loss.sum().item<double>();
    } else {
      result_.row_loss = row_loss_.narrow(0, 0, out_).clone();
      result_.loss = result_.row_loss.sum().item<double>();
      result_.undamped_loss = std::max(0.0, result_.loss - 0.5 * added_ * squared_.sum().item<double>());
    }
    return std::move(result_);
  }

  const GptqOptions& options_;
  const std::int64_t out_, in_, group_size_, groups_;
  GroupRanges ranges_;
  at::Tensor dead_, upper_, order_;
  at::Tensor codes_;               ///< uint8 [tiles, in_features, kSweepRows]
  at::Tensor row_loss_, squared_;  ///< f64 [padded rows]: ½ Σ e² and Σ (w - ŵ)²
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
