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

namespace qs {
namespace {

constexpr std::int64_t kTileRows = 64;
constexpr double kNone = std::numeric_limits<double>::infinity();

/// A group of columns inside a tile or inside the matrix.
struct GroupView {
  const float* values = nullptr;
  std::int64_t row_stride = 0, column_stride = 0;
};

/// Statistics as the sweep finds them, group after group with one entry a row.
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
    prepare(hessian, order, job);
  }

  SpqrResult run(double outlier_threshold, const JobContext& job) {
    weight_ = prepared_.clone();
    threshold_ = base_.rounded_to_nearest ? kNone : outlier_threshold * outlier_scale();
    if (std::isnan(threshold_)) threshold_ = kNone;
    allocate();
    sweep(job);
    return finish();
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
      const DampedFactor factor = damped_inverse_factor(h, options_.percdamp, dead, job);
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
      upper_ = at::eye(in_, at::kFloat);
    }
    diagonal_ = at::diagonal(upper_).contiguous();
  }

  /// mean_j Var_o(W_:j) / U_jj² (Q1).
  double outlier_scale() const {
    if (out_ < 2) return kNone;
    return (prepared_.var(at::IntArrayRef{0}, true) / diagonal_.square()).mean().item<double>();
  }

  void allocate() {
    const auto floats = [&](std::int64_t rows) { return at::zeros({groups_, rows}, at::kFloat); };
    const std::int64_t runs = out_ / options_.qq_group_size;
    found_ = {floats(out_), floats(out_), {}, {}, {}, {}, {}, {}};
    if (options_.quantizes_scales()) {
      found_.scale_codes = at::zeros({groups_, out_}, at::kByte);
      found_.scale_scale = floats(runs), found_.scale_zero = floats(runs);
    }
    if (options_.quantizes_zeros()) {
      found_.zero_codes = at::zeros({groups_, out_}, at::kByte);
      found_.zero_scale = floats(runs), found_.zero_zero = floats(runs);
    }
    codes_ = at::empty({in_, out_}, at::kByte);
    outliers_ = at::zeros({in_, out_}, at::kBool);
    kept_ = threshold_ == kNone ? at::Tensor() : at::zeros({in_, out_}, at::kFloat);
    row_loss_ = at::zeros({out_}, at::kDouble);
  }

  /// Tiles hold whole second-level runs, blocks whole groups (or parts of one group that is longer than a block).
  std::int64_t tile_rows() const {
    const std::int64_t run = needs_runs() ? options_.qq_group_size : 1;
    return std::max<std::int64_t>(1, kTileRows / run) * run;
  }
  bool needs_runs() const { return options_.quantizes_scales() || options_.quantizes_zeros(); }

  std::int64_t block_end(std::int64_t begin) const {
    const std::int64_t block = std::max<std::int64_t>(1, options_.block_size);
    if (group_ <= block) return std::min(begin + block / group_ * group_, in_);
    return std::min(begin + block, (begin / group_ + 1) * group_);
  }

  void sweep(const JobContext& job) {
    for (std::int64_t begin = 0; begin < in_;) {
      job.checkpoint(begin, in_, "Quantizing columns");
      const std::int64_t end = block_end(begin);
      at::Tensor errors = at::empty({out_, end - begin}, at::kFloat);
      const float* const weight = weight_.data_ptr<float>();
      sweep_block(weight, out_, in_, upper_.data_ptr<float>(), begin, end, tile_rows(), errors.data_ptr<float>(),
                  [&](const SweepTile& tile, std::int64_t j, float* error) {
                    if ((begin + j) % group_ == 0) {
                      const bool inside = j + group_ <= tile.columns;
                      fit_group((begin + j) / group_, tile,
                                inside ? GroupView{tile.column(j), 1, tile.rows}
                                       : GroupView{weight + tile.first_row * in_ + begin + j, in_, 1});
                    }
                    quantize_column(tile, j, error);
                  });
      propagate_block(weight_, upper_, errors, begin, end, job);
      begin = end;
    }
  }

  void fit_group(std::int64_t group, const SweepTile& tile, const GroupView& view) {
    float* const scale = found_.scale.data_ptr<float>() + group * out_ + tile.first_row;
    float* const zero = found_.zero.data_ptr<float>() + group * out_ + tile.first_row;
    const float* const factor = diagonal_.data_ptr<float>() + group * group_;
    std::vector<float> row(static_cast<std::size_t>(group_)), gain(row.size());
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      for (std::int64_t k = 0; k < group_; ++k) {
        row[static_cast<std::size_t>(k)] = view.values[r * view.row_stride + k * view.column_stride];
      }
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
      for (std::int64_t r = 0; r < tile.rows; r += run) {
        const std::int64_t first = tile.first_row + r;
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

  void quantize_column(const SweepTile& tile, std::int64_t j, float* error) {
    const std::int64_t column = tile.begin + j, at = column / group_ * out_ + tile.first_row;
    const float* const scale = found_.scale.data_ptr<float>() + at;
    const float* const zero = found_.zero.data_ptr<float>() + at;
    const float* const w = tile.column(j);
    const std::int64_t place = column * out_ + tile.first_row;
    std::uint8_t* const codes = codes_.data_ptr<std::uint8_t>() + place;
    bool* const outlier = outliers_.data_ptr<bool>() + place;
    double* const loss = row_loss_.data_ptr<double>() + tile.first_row;
    const float top = static_cast<float>((1 << options_.bits) - 1), d = diagonal_.data_ptr<float>()[column];
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const RealZeroGrid grid{scale[r], zero[r]};
      float code = grid.code(w[r], top);
      error[r] = (w[r] - grid.value(code)) / d;
      if (static_cast<double>(error[r]) * error[r] > threshold_) {
        code = grid.code(0.0F, top);
        error[r] = 0.0F;
        outlier[r] = true;
        kept_.data_ptr<float>()[place + r] = w[r];
      }
      codes[r] = static_cast<std::uint8_t>(code);
      loss[r] += 0.5 * static_cast<double>(error[r]) * error[r];
    }
  }

  SpqrResult finish() {
    SpqrResult result = base_;
    result.order = order_;
    result.codes = codes_.t().contiguous();
    store_statistics(result);
    store_outliers(result);
    result.threshold = threshold_;
    result.outlier_share =
        static_cast<double>(result.outlier_values.numel()) / (static_cast<double>(out_) * static_cast<double>(in_));
    result.average_bits = options_.average_bits(in_, result.outlier_share);
    result.values = spqr_values(result);
    result.loss = row_loss_.sum().item<double>();
    at::Tensor difference = prepared_ - result.values.index_select(1, order_);
    result.undamped_loss =
        std::max(0.0, result.loss - 0.5 * added_ * difference.square_().sum(at::kDouble).item<double>());
    if (base_.rounded_to_nearest) result.loss = result.undamped_loss = 0.0;
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
      result.scale = found_.scale;
    }
    if (options_.quantizes_zeros()) {
      result.zeros = second_level(found_.zero_codes, found_.zero_scale, found_.zero_zero);
    } else {
      result.zero_point = options_.round_zero || options_.symmetric ? found_.zero : stored_scale(found_.zero, type);
    }
    rebuild_statistics(result, run, type);
  }

  void store_outliers(SpqrResult& result) const {
    const at::Tensor mask = outliers_.t().contiguous();
    const at::Tensor counts = mask.sum({1}, false, at::kLong);
    at::Tensor rows = at::zeros({out_ + 1}, at::kLong);
    rows.narrow(0, 1, out_).copy_(at::cumsum(counts, 0));
    result.outlier_rows = rows.to(at::kInt);
    const at::Tensor places = at::nonzero(mask.view({-1})).view({-1});
    result.outlier_columns = at::remainder(places, in_).to(at::kInt);
    const at::Tensor values =
        kept_.defined() ? kept_.t().contiguous().view({-1}).index_select(0, places) : at::empty({0}, at::kFloat);
    result.outlier_values = stored_scale(values, options_.scale_type);
  }

  const SpqrOptions& options_;
  const std::int64_t out_, in_, group_, groups_;
  const at::Tensor original_;
  at::Tensor prepared_;  ///< permuted, dead columns 0
  at::Tensor order_, upper_, diagonal_, dead_;
  double added_ = 0.0, threshold_ = 0.0;
  SpqrResult base_;  ///< what does not depend on the threshold
  at::Tensor weight_, codes_, outliers_, kept_, row_loss_;
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
