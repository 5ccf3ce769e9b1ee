#include "analysis/weight_error.h"

#include <algorithm>
#include <cmath>

#include "analysis/histogram.h"
#include "backend/metrics.h"
#include "backend/types/error.h"

namespace qs::analysis {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void require_equal_matrices(const TensorView& original, const TensorView& quantized) {
  if (original.shape.size() == 2 && original.shape == quantized.shape) return;
  const auto text = [](const TensorView& view) {
    std::string shape;
    for (const std::int64_t extent : view.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(extent);
    return shape.empty() ? std::string("nothing") : shape;
  };
  throw Error(ErrorCode::InvalidArgument, "A weight and its quantized form must be matrices of one shape; found " +
                                              text(original) + " and " + text(quantized) + ".");
}

std::vector<float> roots(const std::vector<double>& squares, std::int64_t count) {
  std::vector<float> result(squares.size());
  for (std::size_t i = 0; i < squares.size(); ++i)
    result[i] = static_cast<float>(std::sqrt(squares[i] / static_cast<double>(std::max<std::int64_t>(1, count))));
  return result;
}

}  // namespace

WeightError weight_error(const TensorView& original, const TensorView& quantized,
                         std::span<const float> input_second_moment) {
  require_equal_matrices(original, quantized);
  WeightError error;
  error.relative_error = qs::relative_error(original.values(), quantized.values());
  error.sqnr_db = qs::sqnr_db(original.values(), quantized.values());
  error.mse = qs::mse(original.values(), quantized.values());
  error.max_abs_error = qs::max_abs_error(original.values(), quantized.values());
  if (input_second_moment.empty()) return error;
  const std::int64_t rows = original.shape[0], columns = original.shape[1];
  if (static_cast<std::int64_t>(input_second_moment.size()) != columns) {
    throw Error(ErrorCode::InvalidArgument, "The weight has " + std::to_string(columns) +
                                                " input channels; second moments of " +
                                                std::to_string(input_second_moment.size()) + " were given.");
  }
  double wrong = 0.0, whole = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const float *w = original.data + i * columns, *v = quantized.data + i * columns;
    for (std::int64_t j = 0; j < columns; ++j) {
      const double moment = input_second_moment[static_cast<std::size_t>(j)], d = static_cast<double>(v[j]) - w[j];
      wrong += moment * d * d;
      whole += moment * static_cast<double>(w[j]) * w[j];
    }
  }
  error.output_error = whole > 0.0 ? std::sqrt(wrong / whole) : (wrong > 0.0 ? kNan : 0.0);
  return error;
}

WeightErrorMap weight_error_map(const TensorView& original, const TensorView& quantized) {
  require_equal_matrices(original, quantized);
  const std::int64_t rows = original.shape[0], columns = original.shape[1];
  std::vector<float> difference(static_cast<std::size_t>(rows * columns)), magnitude(difference.size());
  std::vector<double> by_row(static_cast<std::size_t>(rows)), by_column(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    double row = 0.0;
    for (std::int64_t j = 0; j < columns; ++j) {
      const auto at = static_cast<std::size_t>(i * columns + j);
      const float d = quantized.data[at] - original.data[at];
      difference[at] = d;
      magnitude[at] = std::fabs(d);
      const double square = static_cast<double>(d) * d;
      row += square;
      by_column[static_cast<std::size_t>(j)] += square;
    }
    by_row[static_cast<std::size_t>(i)] = row;
  }
  WeightErrorMap map;
  map.signed_error = TensorView::own(std::move(difference), {rows, columns});
  map.absolute_error = TensorView::own(std::move(magnitude), {rows, columns});
  map.by_output = roots(by_row, columns);
  map.by_input = roots(by_column, rows);
  return map;
}

WeightHistogram weight_histogram(std::span<const float> original, std::span<const float> quantized, int bins) {
  if (bins < 1) throw Error(ErrorCode::InvalidArgument, "A histogram needs at least one bin.");
  WeightHistogram result;
  result.count = static_cast<std::int64_t>(original.size());
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const std::span<const float> values : {original, quantized}) {
    for (const float value : values) {
      if (!std::isfinite(value)) continue;
      low = std::min<double>(low, value);
      high = std::max<double>(high, value);
    }
  }
  if (!(low <= high)) return result;
  if (low == high) {
    const double pad = std::max(1e-6, std::abs(low) * 0.5);
    low -= pad;
    high += pad;
  }
  result.low = low;
  result.high = high;
  result.original = histogram(original, bins, low, high).counts;
  result.quantized = histogram(quantized, bins, low, high).counts;
  return result;
}

const char* weight_metric_id(WeightMetric metric) {
  static const char* const kIds[] = {"relative_error", "sqnr_db",        "loss_ratio",
                                     "max_abs_error",  "effective_bits", "output_error"};
  return kIds[static_cast<int>(metric)];
}

double metric_of(const LinearReport& report, WeightMetric metric) {
  switch (metric) {
    case WeightMetric::RelativeError:
      return report.error.relative_error;
    case WeightMetric::SqnrDb:
      return report.error.sqnr_db;
    case WeightMetric::LossRatio:
      return report.loss_ratio;
    case WeightMetric::MaxAbsError:
      return report.error.max_abs_error;
    case WeightMetric::EffectiveBits:
      return report.effective_bits;
    case WeightMetric::OutputError:
      return report.error.output_error;
  }
  return kNan;
}

WeightOverview weight_overview(std::vector<LinearReport> linears) {
  WeightOverview overview;
  for (const LinearReport& linear : linears) {
    overview.layers = std::max(overview.layers, linear.layer + 1);
    if (std::find(overview.kinds.begin(), overview.kinds.end(), linear.kind) == overview.kinds.end())
      overview.kinds.push_back(linear.kind);
  }
  overview.linears = std::move(linears);
  return overview;
}

TensorView WeightOverview::matrix(WeightMetric metric) const {
  if (kinds.empty() || layers == 0) return {};
  std::vector<float> values(kinds.size() * static_cast<std::size_t>(layers), static_cast<float>(kNan));
  for (const LinearReport& linear : linears) {
    const auto row = std::find(kinds.begin(), kinds.end(), linear.kind) - kinds.begin();
    values[static_cast<std::size_t>(row * layers + linear.layer)] = static_cast<float>(metric_of(linear, metric));
  }
  return TensorView::own(std::move(values), {static_cast<std::int64_t>(kinds.size()), layers});
}

const LinearReport* WeightOverview::find(std::int64_t layer, const std::string& kind) const {
  const auto found = std::find_if(linears.begin(), linears.end(), [&](const LinearReport& linear) {
    return linear.layer == layer && linear.kind == kind;
  });
  return found == linears.end() ? nullptr : &*found;
}

double mean_of(const WeightOverview& overview, WeightMetric metric) {
  double sum = 0.0, weights = 0.0;
  for (const LinearReport& linear : overview.linears) {
    const double value = metric_of(linear, metric);
    if (!std::isfinite(value)) continue;
    const double size = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
    sum += value * size;
    weights += size;
  }
  return weights > 0.0 ? sum / weights : kNan;
}

MaskShares mask_shares(const TensorView& mask) {
  MaskShares shares;
  if (mask.shape.size() != 2 || mask.empty()) return shares;
  const std::int64_t rows = mask.shape[0], columns = mask.shape[1];
  shares.by_row.assign(static_cast<std::size_t>(rows), 0.0f);
  shares.by_column.assign(static_cast<std::size_t>(columns), 0.0f);
  std::vector<std::int64_t> in_column(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    std::int64_t in_row = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      const bool marked = mask.data[i * columns + j] > 0.0f;
      in_row += marked;
      in_column[static_cast<std::size_t>(j)] += marked;
    }
    shares.count += in_row;
    shares.by_row[static_cast<std::size_t>(i)] = static_cast<float>(in_row) / static_cast<float>(columns);
  }
  for (std::int64_t j = 0; j < columns; ++j)
    shares.by_column[static_cast<std::size_t>(j)] =
        static_cast<float>(in_column[static_cast<std::size_t>(j)]) / static_cast<float>(rows);
  shares.share = static_cast<double>(shares.count) / static_cast<double>(rows * columns);
  return shares;
}

std::vector<float> affine_levels(double scale, double zero_point, int bits) {
  std::vector<float> levels;
  if (bits < 1 || bits > 12) return levels;
  for (int code = 0; code < 1 << bits; ++code) levels.push_back(static_cast<float>(scale * (code - zero_point)));
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  return levels;
}

std::vector<float> binary_levels(std::span<const float> alphas, double offset) {
  std::vector<float> levels;
  if (alphas.size() > 12) return levels;
  for (std::uint32_t signs = 0; signs < 1u << alphas.size(); ++signs) {
    double level = offset;
    for (std::size_t k = 0; k < alphas.size(); ++k) level += (signs >> k & 1u) ? alphas[k] : -alphas[k];
    levels.push_back(static_cast<float>(level));
  }
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  return levels;
}

TensorView binary_plane(const LinearGrid& grid, int plane) {
  if (grid.kind != LinearGrid::Kind::Binary || !grid.signs || plane < 0 || plane >= grid.bits) return {};
  std::vector<float> values(static_cast<std::size_t>(grid.out_features * grid.in_features));
  for (std::int64_t i = 0; i < grid.out_features; ++i) {
    for (std::int64_t j = 0; j < grid.in_features; ++j) {
      const auto at = static_cast<std::size_t>(i * grid.in_features + j);
      const std::int64_t group = grid.group_of[static_cast<std::size_t>(j)];
      const float alpha = grid.alpha.data[(i * grid.groups + group) * grid.bits + plane];
      values[at] = (*grid.signs)[at] >> plane & 1 ? alpha : -alpha;
    }
  }
  return TensorView::own(std::move(values), {grid.out_features, grid.in_features});
}

std::vector<float> distinct_levels(std::span<const float> values, std::size_t most) {
  std::vector<float> levels(values.begin(), values.end());
  std::erase_if(levels, [](float value) { return !std::isfinite(value); });
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  if (levels.size() > most) levels.clear();
  return levels;
}

}  // namespace qs::analysis
