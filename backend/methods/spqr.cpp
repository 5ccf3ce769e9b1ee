#include "backend/methods/spqr.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/methods/column_sweep.h"
#include "backend/methods/hessian.h"
#include "backend/methods/spqr_grid.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

constexpr std::int64_t kRows = kernels::kSweepRows;
constexpr double kNone = std::numeric_limits<double>::infinity();

/// Statistics as the sweep finds them, group after group with one entry a row. Scale and zero have whole tiles of rows.
struct Statistics {
  at::Tensor scale, zero, scale_codes, zero_codes, scale_scale, scale_zero, zero_scale, zero_zero;
};

class Spqr {
 public:
  Spqr(const at::Tensor& weight, const at::Tensor& hessian, const SpqrOptions& options, const at::Tensor& order,
       const JobContext& job)
      : options_(options),
        out_(weight.size(0)),
        in_(weight.size(1)),
        group_(options.group_of(in_)),
        groups_(in_ / group_),
        original_(weight) {
    for (std::int64_t j = 0; j < in_; ++j) group_of_.push_back(static_cast<std::int32_t>(j / group_));
    prepare(hessian, order, job);
  }

  SpqrResult run(double outlier_threshold, const JobContext& job) {
    threshold_ = base_.rounded_to_nearest ? kNone : outlier_threshold * outlier_scale();
    if (std::isnan(threshold_)) threshold_ = kNone;
    ColumnSweep sweep(prepared_, at::arange(in_, at::kLong), upper_);
    allocate(sweep);
    quantize(sweep, job);
    return finish(sweep);
  }

 private:
  void prepare(const at::Tensor& hessian, const at::Tensor& order, const JobContext& job) {
    order_ = at::arange(in_, at::kLong);
    const bool known = hessian.defined() && at::diagonal(hessian).any().item<bool>();
    if (order.defined()) {
      order_ = order;
    } else if (options_.order == ColumnOrder::ActOrder && known) {
      order_ = order_by_diagonal(hessian);
    } else if (options_.order == ColumnOrder::Spearman) {
      order_ = order_by_rank_correlation(original_);
    }
    prepared_ = original_.index_select(1, order_).contiguous();
    if (known) {
      const at::Tensor h = hessian.to(at::kFloat).index_select(0, order_).index_select(1, order_);
      const at::Tensor dead = at::diagonal(h) == 0;
      const DampedFactor factor = damped_factor(h, options_.percdamp, dead, job);
      base_.notes = factor.notes;
      base_.damping = factor.damping;
      added_ = factor.added;
      upper_ = factor.upper;
      if (upper_.defined()) {
        dead_ = dead.unsqueeze(0);
        prepared_.masked_fill_(dead_, 0.0);
        base_.dead_columns = dead.sum().item<std::int64_t>();
        if (base_.dead_columns > 0) {
          base_.notes.push_back(std::to_string(base_.dead_columns) + " of " + std::to_string(in_) +
                                " input columns are always 0; their weights become 0.");
        }
      }
    }
    if (!upper_.defined()) {
      base_.rounded_to_nearest = true;
      base_.damping = added_ = 0.0;
      base_.notes.emplace_back(known ? "Rounded to nearest without outliers instead."
                                     : "No input reached this layer; it was rounded to nearest without outliers.");
    }
    diagonal_ = upper_.defined() ? at::diagonal(upper_).reciprocal() : at::ones({in_}, at::kFloat);
  }

  /// mean_j Var_o(W_:j) / U_jj² (Q1).
  double outlier_scale() const {
    if (out_ < 2) return kNone;
    return (prepared_.var(at::IntArrayRef{0}, true) / diagonal_.square()).mean().item<double>();
  }

  void allocate(const ColumnSweep& sweep) {
    const auto floats = [&](std::int64_t rows) { return at::zeros({groups_, rows}, at::kFloat); };
    const std::int64_t runs = out_ / options_.qq_group_size;
    found_ = {
        at::ones({groups_, sweep.padded_rows()}, at::kFloat), floats(sweep.padded_rows()), {}, {}, {}, {}, {}, {}};
    if (options_.quantizes_scales()) {
      found_.scale_codes = at::zeros({groups_, out_}, at::kByte);
      found_.scale_scale = floats(runs), found_.scale_zero = floats(runs);
    }
    if (options_.quantizes_zeros()) {
      found_.zero_codes = at::zeros({groups_, out_}, at::kByte);
      found_.zero_scale = floats(runs), found_.zero_zero = floats(runs);
    }
    codes_ = at::empty({sweep.tiles(), in_, kRows}, at::kByte);
    outliers_ = threshold_ == kNone ? at::Tensor() : at::empty_like(codes_);
    kept_ = threshold_ == kNone ? at::Tensor() : at::empty({sweep.tiles(), in_, kRows}, at::kFloat);
    row_loss_ = at::zeros({sweep.padded_rows()}, at::kDouble);
    squared_ = at::zeros_like(row_loss_);
  }

  /// Tiles whose rows are whole second-level runs.
  std::int64_t tiles_together() const {
    const bool runs = options_.quantizes_scales() || options_.quantizes_zeros();
    const std::int64_t tiles = (out_ + kRows - 1) / kRows;
    return runs ? std::min(std::lcm(options_.qq_group_size, kRows) / kRows, tiles) : 1;
  }

  std::int64_t block_end(std::int64_t begin) const {
    const std::int64_t block = std::max<std::int64_t>(1, options_.block_size);
    if (group_ <= block) return std::min(begin + block / group_ * group_, in_);
    return std::min(begin + block, (begin / group_ + 1) * group_);
  }

  void quantize(ColumnSweep& sweep, const JobContext& job) {
    for (std::int64_t begin = 0; begin < in_;) {
      const std::int64_t end = block_end(begin);
      // A group that is longer than a block is fitted where it begins.
      sweep.start_block(begin, begin % group_ == 0 ? std::max(end, begin + group_) : end, job);
      sweep.for_tiles(tiles_together(), [&](std::int64_t first, std::int64_t last) {
        std::vector<float> expected(static_cast<std::size_t>(tiles_together() * group_ * kRows));
        for (std::int64_t t = first; t < last; t += tiles_together()) {
          quantize_tiles(sweep, t, std::min(t + tiles_together(), last), begin, end, expected.data());
        }
      });
      begin = end;
    }
  }

  /// Columns [begin, end) of the rows of some tiles, group after group. @param expected  scratch
  void quantize_tiles(ColumnSweep& sweep, std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end,
                      float* expected) {
    const kernels::KernelSet& set = kernels::kernel_set();
    for (std::int64_t column = begin; column < end;) {
      const std::int64_t group = column / group_, stop = std::min(end, (group + 1) * group_);
      if (column % group_ == 0) {
        for (std::int64_t t = first; t < last; ++t) {
          set.expect_weights(sweep.tile(t, column, column + group_, end), expected + (t - first) * group_ * kRows);
        }
        fit_group(group, first * kRows, std::min(last * kRows, out_) - first * kRows, expected);
      }
      for (std::int64_t t = first; t < last; ++t) {
        set.quantize_columns_in_order(sweep.tile(t, column, stop, end), grid(t, begin));
      }
      column = stop;
    }
  }

  /// Grids of tile t; columns count from `begin`.
  kernels::SweepGrid grid(std::int64_t t, std::int64_t begin) {
    const std::int64_t row = t * kRows, place = (t * in_ + begin) * kRows;
    kernels::SweepGrid grid;
    grid.scale = found_.scale.data_ptr<float>() + row;
    grid.zero_point = found_.zero.data_ptr<float>() + row;
    grid.group = group_of_.data() + begin;
    grid.group_stride = found_.scale.size(1);
    grid.top = static_cast<float>((1 << options_.bits) - 1);
    grid.real_zero = true;
    grid.codes = codes_.data_ptr<std::uint8_t>() + place;
    if (threshold_ != kNone) {
      grid.threshold = static_cast<float>(threshold_);
      grid.outliers = outliers_.data_ptr<std::uint8_t>() + place;
      grid.kept = kept_.data_ptr<float>() + place;
    }
    grid.loss = row_loss_.data_ptr<double>() + row;
    grid.squared = squared_.data_ptr<double>() + row;
    return grid;
  }

  /// @param expected  the group's weights in tiles, [rows / kRows][group][kRows]
  void fit_group(std::int64_t group, std::int64_t first_row, std::int64_t rows, const float* expected) {
    float* const scale = found_.scale.data_ptr<float>() + group * found_.scale.size(1) + first_row;
    float* const zero = found_.zero.data_ptr<float>() + group * found_.zero.size(1) + first_row;
    const float* const factor = diagonal_.data_ptr<float>() + group * group_;
    std::vector<float> row(static_cast<std::size_t>(group_)), gain(row.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* const values = expected + r / kRows * group_ * kRows + r % kRows;
      for (std::int64_t k = 0; k < group_; ++k) row[static_cast<std::size_t>(k)] = values[k * kRows];
      if (threshold_ != kNone && !options_.simplified_outliers) {
        leave_one_out_gains(row.data(), factor, group_, options_.bits, options_.symmetric, gain.data());
        replace_likely_outliers(row, gain);
      }
      const auto [low, high] = std::minmax_element(row.begin(), row.end());
      const RealZeroGrid grid = real_zero_grid(*low, *high, options_.bits, options_.symmetric, options_.round_zero);
      scale[r] = grid.scale;
      zero[r] = grid.zero;
    }
    const auto second_level = [&](float* values, int bits, bool symmetric, at::Tensor& codes, at::Tensor& grid_scale,
                                  at::Tensor& grid_zero) {
      const std::int64_t run = options_.qq_group_size, runs = out_ / run;
      for (std::int64_t r = 0; r < rows; r += run) {
        const std::int64_t first = first_row + r;
        const RealZeroGrid grid = quantize_statistics(values + r, run, bits, symmetric,
                                                      codes.data_ptr<std::uint8_t>() + group * out_ + first);
        grid_scale.data_ptr<float>()[group * runs + first / run] = grid.scale;
        grid_zero.data_ptr<float>()[group * runs + first / run] = grid.zero;
      }
    };
    if (options_.quantizes_scales()) {
      second_level(scale, options_.qq_scale_bits, false, found_.scale_codes, found_.scale_scale, found_.scale_zero);
    }
    if (options_.quantizes_zeros()) {
      second_level(zero, options_.qq_zero_bits, options_.qq_zero_sym, found_.zero_codes, found_.zero_scale,
                   found_.zero_zero);
    }
  }

  /// Weights that are better left out of the range become the mean of the others.
  void replace_likely_outliers(std::vector<float>& row, const std::vector<float>& gain) const {
    double sum = 0.0;
    std::int64_t remaining = 0;
    for (std::size_t k = 0; k < row.size(); ++k) {
      if (gain[k] > threshold_) continue;
      sum += row[k];
      ++remaining;
    }
    if (remaining == static_cast<std::int64_t>(row.size())) return;
    const auto mean = static_cast<float>(sum / static_cast<double>(std::max<std::int64_t>(1, remaining)));
    for (std::size_t k = 0; k < row.size(); ++k) {
      if (gain[k] > threshold_) row[k] = mean;
    }
  }

  SpqrResult finish(const ColumnSweep& sweep) {
    SpqrResult result = base_;
    result.order = order_;
    result.codes = at::empty({out_, in_}, at::kByte);
    const at::Tensor places = at::arange(in_, at::kLong);
    auto* const codes = result.codes.data_ptr<std::uint8_t>();
    for_tiled_rows(sweep, codes_.data_ptr<std::uint8_t>(), places,
                   [&](std::int64_t row, std::int64_t place, std::int64_t, std::uint8_t code) {
                     codes[row * in_ + place] = code;
                   });
    store_statistics(result);
    store_outliers(result, sweep);
    result.threshold = threshold_;
    result.outlier_share =
        static_cast<double>(result.outlier_values.numel()) / (static_cast<double>(out_) * static_cast<double>(in_));
    result.average_bits = options_.average_bits(in_, result.outlier_share);
    result.values = spqr_values(result);
    if (!base_.rounded_to_nearest) {
      result.loss = row_loss_.sum().item<double>();
      result.undamped_loss = std::max(0.0, result.loss - 0.5 * added_ * squared_.sum().item<double>());
    }
    return result;
  }

  /// The second level is kept in scale_type, and so is the scale that follows from it, which packed products use.
  void store_statistics(SpqrResult& result) const {
    const std::int64_t run = options_.qq_group_size;
    const ScaleType type = options_.scale_type;
    // Nearly equal statistics have a zero too large for 16 bits: such a run keeps its smallest value alone.
    const auto second_level = [&](const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero) {
      const at::Tensor huge = zero.abs() > (type == ScaleType::F16 ? 6e4 : 1e30);
      return SecondLevel{codes.masked_fill(huge.repeat_interleave(run, 1), 0),
                         stored_scale(at::where(huge, -(scale * zero), scale), type),
                         stored_scale(zero.masked_fill(huge, -1.0), type)};
    };
    if (options_.quantizes_scales()) {
      result.scales = second_level(found_.scale_codes, found_.scale_scale, found_.scale_zero);
    } else {
      result.scale = found_.scale.narrow(1, 0, out_).contiguous();
    }
    if (options_.quantizes_zeros()) {
      result.zeros = second_level(found_.zero_codes, found_.zero_scale, found_.zero_zero);
    } else {
      const at::Tensor zero = found_.zero.narrow(1, 0, out_).contiguous();
      result.zero_point = options_.round_zero || options_.symmetric ? zero : stored_scale(zero, type);
    }
    rebuild_statistics(result, run, type);
  }

  void store_outliers(SpqrResult& result, const ColumnSweep& sweep) const {
    result.outlier_rows = at::zeros({out_ + 1}, at::kInt);
    auto* const first = result.outlier_rows.data_ptr<std::int32_t>();
    const at::Tensor places = at::arange(in_, at::kLong);
    const std::uint8_t* const mask = threshold_ == kNone ? nullptr : outliers_.data_ptr<std::uint8_t>();
    if (mask != nullptr) {
      for_tiled_rows(sweep, mask, places, [&](std::int64_t row, std::int64_t, std::int64_t, std::uint8_t outlier) {
        first[row + 1] += outlier;
      });
    }
    std::partial_sum(first, first + out_ + 1, first);
    result.outlier_columns = at::empty({first[out_]}, at::kInt);
    at::Tensor values = at::empty({first[out_]}, at::kFloat);
    if (mask != nullptr) {
      std::vector<std::int32_t> next(first, first + out_);
      auto* const columns = result.outlier_columns.data_ptr<std::int32_t>();
      float* const kept = values.data_ptr<float>();
      const float* const all = kept_.data_ptr<float>();
      for_tiled_rows(sweep, mask, places,
                     [&](std::int64_t row, std::int64_t place, std::int64_t, std::uint8_t outlier) {
                       if (outlier == 0) return;
                       const std::int32_t k = next[static_cast<std::size_t>(row)]++;
                       columns[k] = static_cast<std::int32_t>(place);
                       kept[k] = all[((row / kRows) * in_ + place) * kRows + row % kRows];
                     });
    }
    result.outlier_values = stored_scale(values, options_.scale_type);
  }

  const SpqrOptions& options_;
  const std::int64_t out_, in_, group_, groups_;
  const at::Tensor original_;
  std::vector<std::int32_t> group_of_;  ///< of each column
  at::Tensor prepared_;                 ///< permuted, dead columns 0
  at::Tensor order_, upper_, dead_;
  at::Tensor diagonal_;  ///< 1 / V_jj, which is U_jj
  double added_ = 0.0, threshold_ = 0.0;
  SpqrResult base_;                ///< what does not depend on the threshold
  at::Tensor codes_, outliers_;    ///< uint8 [tiles, in_features, kSweepRows]
  at::Tensor kept_;                ///< f32, as codes_
  at::Tensor row_loss_, squared_;  ///< f64 [padded rows]: ½ Σ e² and Σ (w - ŵ)²
  Statistics found_;
};

void check_options(const at::Tensor& weight, const SpqrOptions& options, const at::Tensor& order,
                   const std::string& name) {
  check_group_divides(weight.size(1), options.group_of(weight.size(1)), name);
  if ((options.quantizes_scales() || options.quantizes_zeros()) && weight.size(0) % options.qq_group_size != 0) {
    throw Error(ErrorCode::InvalidArgument, "qq_group_size=" + std::to_string(options.qq_group_size) +
                                                " does not divide the " + std::to_string(weight.size(0)) +
                                                " output features of '" + name +
                                                "'. Choose a divisor, or qq_scale_bits=0,qq_zero_bits=0 to keep the "
                                                "statistics in 16 bits.");
  }
  if (!order.defined()) return;
  const bool permutation = order.dim() == 1 && order.size(0) == weight.size(1) &&
                           std::get<0>(at::sort(order.to(at::kLong))).equal(at::arange(weight.size(1), at::kLong));
  if (!permutation) {
    throw Error(ErrorCode::InvalidArgument, "The order given for '" + name + "' is no permutation of its " +
                                                std::to_string(weight.size(1)) + " columns.");
  }
}

}  // namespace

double SpqrOptions::average_bits(std::int64_t in_features, double outlier_share) const {
  const double g = static_cast<double>(group_of(in_features)), runs = g * static_cast<double>(qq_group_size);
  const double plain = 8.0 * static_cast<double>(scale_bytes(scale_type));
  double result = bits + 2.0 * plain * outlier_share;
  result += quantizes_scales() ? qq_scale_bits / g + 2.0 * plain / runs : plain / g;
  if (quantizes_zeros()) {
    result += qq_zero_bits / g + 2.0 * plain / runs;
  } else if (!symmetric) {
    result += (round_zero ? bits : plain) / g;
  }
  return result;
}

SpqrResult spqr(const at::Tensor& weight, const at::Tensor& hessian, const SpqrOptions& options,
                const std::string& name, const JobContext& job, const at::Tensor& order) {
  const at::Tensor wide = finite_weight(weight, name);
  check_options(wide, options, order, name);
  return Spqr(wide, hessian, options, order.defined() ? order.to(at::kLong) : order, job.part(0.0, 0.4))
      .run(options.outlier_threshold, job.part(0.4, 1.0));
}

void rebuild_statistics(SpqrResult& result, std::int64_t run, ScaleType type) {
  const auto rebuilt = [&](const SecondLevel& level) {
    return level.codes.to(at::kFloat)
        .sub_(level.zero.repeat_interleave(run, 1))
        .mul_(level.scale.repeat_interleave(run, 1));
  };
  if (result.scales.codes.defined()) result.scale = rebuilt(result.scales);
  if (result.zeros.codes.defined()) result.zero_point = rebuilt(result.zeros);
  result.scale = stored_scale(result.scale, type);
}

at::Tensor spqr_values(const SpqrResult& result) {
  const std::int64_t out = result.codes.size(0), in = result.codes.size(1), groups = result.scale.size(0);
  const auto of_row = [](const at::Tensor& t) { return t.t().contiguous().unsqueeze(-1); };
  at::Tensor values = result.codes.to(at::kFloat)
                          .view({out, groups, in / groups})
                          .sub_(of_row(result.zero_point))
                          .mul_(of_row(result.scale))
                          .view({out, in});
  const auto* const rows = result.outlier_rows.data_ptr<std::int32_t>();
  const auto* const columns = result.outlier_columns.data_ptr<std::int32_t>();
  const auto* const kept = result.outlier_values.data_ptr<float>();
  float* const all = values.data_ptr<float>();
  for (std::int64_t row = 0; row < out; ++row) {
    for (std::int32_t k = rows[row]; k < rows[row + 1]; ++k) all[row * in + columns[k]] = kept[k];
  }
  return values.index_select(1, at::argsort(result.order));
}

SpqrThreshold find_outlier_threshold(const std::vector<SpqrLayer>& layers, SpqrOptions options, double target_bits,
                                     const JobContext& job) {
  constexpr int kSteps = 10;
  constexpr double kLow = 1e-3, kHigh = 100.0;
  double floor_bits = 0.0, total = 0.0;
  std::vector<Spqr> prepared;
  const auto count = static_cast<std::int64_t>(layers.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const SpqrLayer& layer = layers[static_cast<std::size_t>(i)];
    const at::Tensor wide = finite_weight(layer.weight, layer.name);
    check_options(wide, options, {}, layer.name);
    prepared.emplace_back(wide, layer.hessian, options, at::Tensor(), job.part(0.3 * i / count, 0.3 * (i + 1) / count));
    const double size = static_cast<double>(wide.numel());
    floor_bits += size * options.average_bits(wide.size(1), 0.0);
    total += size;
  }
  floor_bits /= total;
  if (!(target_bits > floor_bits)) {
    throw Error(ErrorCode::InvalidArgument, "spqr: target_bits=" + std::to_string(target_bits) +
                                                " leaves nothing for outliers: codes and statistics alone take " +
                                                std::to_string(floor_bits) +
                                                ". Ask for more, or lower bits or raise group_size.");
  }
  double low = std::log(kLow), high = std::log(kHigh);
  SpqrThreshold best{kHigh, floor_bits};
  for (int step = 0; step < kSteps; ++step) {
    const double middle = 0.5 * (low + high), threshold = std::exp(middle);
    double bits = 0.0;
    for (Spqr& layer : prepared) {
      const SpqrResult result =
          layer.run(threshold, job.part(0.3 + 0.7 * step / kSteps, 0.3 + 0.7 * (step + 1) / kSteps));
      bits += result.average_bits * static_cast<double>(result.codes.numel());
    }
    bits /= total;
    if (std::fabs(bits - target_bits) < std::fabs(best.average_bits - target_bits)) best = {threshold, bits};
    (bits > target_bits ? low : high) = middle;
  }
  return best;
}

}  // namespace qs
