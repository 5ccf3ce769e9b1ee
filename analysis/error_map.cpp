#include "analysis/error_map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/types/error.h"

namespace qs::analysis {
namespace {

std::string shape_text(const TensorView& x) {
  std::string text = "[";
  for (std::size_t i = 0; i < x.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(x.shape[i]);
  return text + "]";
}

void require_heads(const TensorView& x, const char* what) {
  if (x.shape.size() != 3)
    throw Error(ErrorCode::InvalidArgument,
                std::string(what) + " needs a tensor [kv_heads, tokens, head_dim]; this one is " + shape_text(x) + ".");
}

}  // namespace

ErrorMap error_map(const TensorView& original, const TensorView& reconstructed) {
  require_heads(original, "An error map");
  if (original.shape != reconstructed.shape)
    throw Error(ErrorCode::InvalidArgument, "An error map needs two tensors of one shape; the original is " +
                                                shape_text(original) + ", the reconstruction " +
                                                shape_text(reconstructed) + ".");
  const std::int64_t heads = original.shape[0], tokens = original.shape[1], dim = original.shape[2];
  ErrorMap map;
  map.tokens = tokens;
  map.channels = heads * dim;
  map.head_dim = dim;
  const auto size = static_cast<std::size_t>(original.size());
  std::vector<float> signed_error(size), absolute(size), before(size), after(size);
  std::vector<double> by_channel(static_cast<std::size_t>(map.channels)), by_token(static_cast<std::size_t>(tokens));
  std::vector<std::int64_t> in_channel(by_channel.size()), in_token(by_token.size());
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t d = 0; d < dim; ++d) {
        const std::int64_t from = (h * tokens + t) * dim + d;
        const std::int64_t channel = h * dim + d;
        const auto to = static_cast<std::size_t>(t * map.channels + channel);
        before[to] = original.data[from];
        after[to] = reconstructed.data[from];
        signed_error[to] = after[to] - before[to];
        absolute[to] = std::fabs(signed_error[to]);
        if (!std::isfinite(absolute[to])) {
          ++map.non_finite;
          continue;
        }
        by_channel[static_cast<std::size_t>(channel)] += absolute[to];
        by_token[static_cast<std::size_t>(t)] += absolute[to];
        ++in_channel[static_cast<std::size_t>(channel)];
        ++in_token[static_cast<std::size_t>(t)];
      }
    }
  }
  const auto means = [](const std::vector<double>& sums, const std::vector<std::int64_t>& counts) {
    std::vector<float> out(sums.size());
    for (std::size_t i = 0; i < sums.size(); ++i)
      out[i] = counts[i] ? static_cast<float>(sums[i] / static_cast<double>(counts[i]))
                         : std::numeric_limits<float>::quiet_NaN();
    return out;
  };
  map.by_channel = means(by_channel, in_channel);
  map.by_token = means(by_token, in_token);
  const std::vector<std::int64_t> shape = {tokens, map.channels};
  map.signed_error = TensorView::own(std::move(signed_error), shape);
  map.absolute_error = TensorView::own(std::move(absolute), shape);
  map.original = TensorView::own(std::move(before), shape);
  map.reconstructed = TensorView::own(std::move(after), shape);
  return map;
}

std::vector<HotSpot> hot_spots(const ErrorMap& map, std::int64_t count) {
  std::vector<std::int64_t> cells(static_cast<std::size_t>(map.tokens * map.channels));
  std::iota(cells.begin(), cells.end(), std::int64_t{0});
  const auto key = [&](std::int64_t i) {
    const float e = map.absolute_error.data[i];
    return e != e ? std::numeric_limits<float>::infinity() : e;
  };
  const auto wanted = static_cast<std::ptrdiff_t>(std::clamp<std::int64_t>(count, 0, map.tokens * map.channels));
  std::partial_sort(cells.begin(), cells.begin() + wanted, cells.end(),
                    [&](std::int64_t a, std::int64_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
  std::vector<HotSpot> spots;
  for (std::ptrdiff_t i = 0; i < wanted; ++i) {
    const std::int64_t cell = cells[static_cast<std::size_t>(i)];
    spots.push_back({cell / map.channels, cell % map.channels, map.original.data[cell], map.reconstructed.data[cell],
                     map.signed_error.data[cell]});
  }
  return spots;
}

TensorView saturation_mask(const TensorView& codes, std::int64_t levels) {
  require_heads(codes, "A saturation mask");
  const std::int64_t heads = codes.shape[0], tokens = codes.shape[1], dim = codes.shape[2];
  std::vector<float> mask(static_cast<std::size_t>(codes.size()));
  const auto highest = static_cast<float>(levels - 1);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t d = 0; d < dim; ++d) {
        const float code = codes.data[(h * tokens + t) * dim + d];
        mask[static_cast<std::size_t>((t * heads + h) * dim + d)] = code == 0.0f || code == highest ? 1.0f : 0.0f;
      }
  return TensorView::own(std::move(mask), {tokens, heads * dim});
}

namespace {

/// @param visit  with cell of [tokens, channels], code and codes of its group; 0 codes where there is none
template <typename Visit>
void for_each_code(const TensorView& codes, const KvOverlay& overlay, const Visit& visit) {
  require_heads(codes, "A count of codes");
  const std::int64_t heads = codes.shape[0], tokens = codes.shape[1], dim = codes.shape[2];
  std::int64_t i = 0;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t d = 0; d < dim; ++d, ++i) {
        const std::int64_t channel = h * dim + d, group = codes.data[i] == 255.0f ? -1 : overlay.group_of(t, channel);
        const bool known = group >= 0 && group < static_cast<std::int64_t>(overlay.levels.size());
        visit(static_cast<std::size_t>(t * heads * dim + channel), codes.data[i],
              known ? overlay.levels[static_cast<std::size_t>(group)] : 0);
      }
}

}  // namespace

TensorView saturation_mask(const TensorView& codes, const KvOverlay& overlay) {
  std::vector<float> mask(static_cast<std::size_t>(codes.size()));
  for_each_code(codes, overlay, [&](std::size_t cell, float code, std::int32_t levels) {
    mask[cell] = levels > 1 && (code == 0.0f || code == static_cast<float>(levels - 1)) ? 1.0f : 0.0f;
  });
  return TensorView::own(std::move(mask), {codes.shape[1], codes.shape[0] * codes.shape[2]});
}

double marked_fraction(const TensorView& mask) {
  if (mask.empty()) return 0.0;
  return static_cast<double>(std::count(mask.values().begin(), mask.values().end(), 1.0f)) /
         static_cast<double>(mask.size());
}

CodeCounts width_counts(const TensorView& codes, const KvOverlay& overlay) {
  CodeCounts result;
  for_each_code(codes, overlay, [&](std::size_t, float, std::int32_t levels) {
    if (levels == 0) {
      ++result.full_precision;
      return;
    }
    const auto bits = static_cast<std::size_t>(std::ceil(std::log2(static_cast<double>(levels))));
    if (result.counts.size() <= bits) result.counts.resize(bits + 1, 0);
    ++result.counts[bits];
  });
  return result;
}

CodeCounts code_counts(const TensorView& codes, std::int64_t levels) {
  CodeCounts result;
  result.counts.assign(static_cast<std::size_t>(std::max<std::int64_t>(0, levels)), 0);
  for (const float code : codes.values()) {
    if (code >= 0 && code < static_cast<float>(levels)) {
      ++result.counts[static_cast<std::size_t>(code)];
    } else {
      ++result.full_precision;
    }
  }
  return result;
}

std::vector<float> relative_error_by_head(const TensorView& original, const TensorView& reconstructed) {
  require_heads(original, "An error by head");
  const std::int64_t heads = original.shape[0], per_head = original.shape[1] * original.shape[2];
  std::vector<float> result;
  for (std::int64_t h = 0; h < heads; ++h) {
    double error = 0.0, norm = 0.0;
    for (std::int64_t i = h * per_head; i < (h + 1) * per_head; ++i) {
      const double a = original.data[i], difference = reconstructed.data[i] - a;
      error += difference * difference;
      norm += a * a;
    }
    result.push_back(static_cast<float>(error == 0.0 ? 0.0 : std::sqrt(error / norm)));
  }
  return result;
}

const char* error_metric_id(ErrorMetric metric) {
  switch (metric) {
    case ErrorMetric::RelativeError:
      return "relative_error";
    case ErrorMetric::Mse:
      return "mse";
    case ErrorMetric::SqnrDb:
      return "sqnr_db";
    case ErrorMetric::MaxAbsError:
      return "max_abs_error";
    case ErrorMetric::Cosine:
      return "cosine";
    case ErrorMetric::FunctionalError:
      return "functional_error";
  }
  return "";
}

double metric_of(const TensorReport& report, ErrorMetric metric) {
  switch (metric) {
    case ErrorMetric::RelativeError:
      return report.relative_error;
    case ErrorMetric::Mse:
      return report.mse;
    case ErrorMetric::SqnrDb:
      return report.sqnr_db;
    case ErrorMetric::MaxAbsError:
      return report.max_abs_error;
    case ErrorMetric::Cosine:
      return report.cosine;
    case ErrorMetric::FunctionalError:
      return report.functional_error;
  }
  return 0.0;
}

bool larger_is_better(ErrorMetric metric) { return metric == ErrorMetric::SqnrDb || metric == ErrorMetric::Cosine; }

TensorView overview_matrix(const VariantErrors& errors, ErrorMetric metric) {
  const std::size_t kinds = errors.kinds.size(), layers = errors.reports.size();
  std::vector<float> values(kinds * layers, std::numeric_limits<float>::quiet_NaN());
  for (std::size_t l = 0; l < layers; ++l)
    for (std::size_t k = 0; k < std::min(kinds, errors.reports[l].size()); ++k)
      values[k * layers + l] = static_cast<float>(metric_of(errors.reports[l][k], metric));
  return TensorView::own(std::move(values), {static_cast<std::int64_t>(kinds), static_cast<std::int64_t>(layers)});
}

std::vector<bool> disagreements(const std::vector<MetricPair>& variants, double tolerance) {
  std::vector<bool> flags(variants.size(), false);
  const auto better = [&](double a, double b) { return a < b - tolerance * std::max(std::fabs(a), std::fabs(b)); };
  for (std::size_t i = 0; i < variants.size(); ++i)
    for (std::size_t j = 0; j < variants.size(); ++j)
      if (better(variants[i].reconstruction, variants[j].reconstruction) &&
          better(variants[j].functional, variants[i].functional))
        flags[i] = flags[j] = true;
  return flags;
}

}  // namespace qs::analysis
