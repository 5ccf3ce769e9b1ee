#include "backend/methods/qaq_quantizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>

#include "backend/methods/normal_quantile.h"
#include "backend/types/error.h"
#include "kernels/float_formats.h"

namespace qs {
namespace {

/// Ranks of the two thresholds, counted from 1; the upper one is at least 1 where the ratio leaves anything.
struct Ranks {
  std::int64_t low = 0, high = 0;
};

Ranks outlier_ranks(std::int64_t count, double ratio) {
  const auto n = static_cast<double>(count);
  return {std::clamp<std::int64_t>(std::llround(std::ceil(ratio / 2.0 * n)), 1, count),
          std::clamp<std::int64_t>(std::llround(std::floor((1.0 - ratio / 2.0) * n)), 1, count)};
}

float stored(float value, GroupStore store, const char* what) {
  if (store == GroupStore::F32) return value;
  if (std::fabs(value) >= 65520.0f) {
    throw Error(ErrorCode::InvalidArgument, std::string("A vector's ") + what + " of " + std::to_string(value) +
                                                " does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
  return kernels::round_to_f16(value);
}

/// Upper bounds of the cells of Q3, Phi^-1((i + 1) / 2^bits); the last one is infinite.
const std::vector<double>& normal_bounds(int bits) {
  static std::array<std::vector<double>, 16> tables;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::vector<double>& table = tables.at(static_cast<std::size_t>(bits));
  if (table.empty()) {
    const int cells = 1 << bits;
    for (int i = 0; i < cells; ++i) table.push_back(normal_quantile(static_cast<double>(i + 1) / cells));
  }
  return table;
}

}  // namespace

std::int64_t qaq_outliers(const float* x, std::int64_t count, double ratio, std::uint8_t* mask) {
  std::fill_n(mask, count, std::uint8_t{0});
  if (!(ratio > 0.0) || count == 0) return 0;
  const Ranks ranks = outlier_ranks(count, ratio);
  std::vector<float> sorted(x, x + count);
  std::nth_element(sorted.begin(), sorted.begin() + (ranks.low - 1), sorted.end());
  const float low = sorted[static_cast<std::size_t>(ranks.low - 1)];
  std::nth_element(sorted.begin(), sorted.begin() + (ranks.high - 1), sorted.end());
  const float high = sorted[static_cast<std::size_t>(ranks.high - 1)];
  std::int64_t outliers = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    mask[i] = x[i] <= low || x[i] > high;
    outliers += mask[i];
  }
  return outliers;
}

std::int64_t qaq_regular_outliers(std::int64_t count, double ratio) {
  if (!(ratio > 0.0) || count == 0) return 0;
  const Ranks ranks = outlier_ranks(count, ratio);
  return std::min(count, ranks.low + count - ranks.high);
}

QaqStatistics qaq_statistics(const float* x, std::int64_t count, const std::uint8_t* outliers, bool symmetric) {
  QaqStatistics result;
  double sum = 0.0, largest = 0.0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (outliers[i] != 0) continue;
    result.low = result.count == 0 ? x[i] : std::min(result.low, x[i]);
    result.high = result.count == 0 ? x[i] : std::max(result.high, x[i]);
    largest = std::max<double>(largest, std::fabs(x[i]));
    sum += x[i];
    ++result.count;
  }
  if (result.count == 0) return result;
  const double centre = sum / static_cast<double>(result.count);
  double squares = 0.0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (outliers[i] == 0) squares += (x[i] - centre) * (x[i] - centre);
  }
  result.deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(result.count)));
  result.mean = symmetric ? 0.0f : static_cast<float>(centre);
  result.range = symmetric ? static_cast<float>(2.0 * largest) : result.high - result.low;
  return result;
}

double qaq_key_tolerance(const QaqSettings& settings, std::int64_t tokens) {
  if (tokens <= 1) return 0.0;
  const auto t = static_cast<double>(tokens);
  const double growth = t * t * t / (t - 1.0) * settings.target_error * settings.target_error + 1.0;
  return std::sqrt(12.0 / settings.query_energy * std::log(growth));
}

double qaq_value_tolerance(const QaqSettings& settings, std::int64_t tokens, double attention) {
  if (!(attention > 0.0)) return std::numeric_limits<double>::infinity();
  return std::sqrt(12.0 / static_cast<double>(tokens)) * settings.target_error / attention;
}

int qaq_width(const QaqSettings& settings, double range, double tolerance) {
  if (tolerance == 0.0) return settings.n_bits_max;
  const double bits = std::ceil(std::log2(range / (2.0 * tolerance) + 1.0));
  return static_cast<int>(std::clamp<double>(bits, settings.n_bits_min, settings.n_bits_max));
}

QaqVector qaq_encode(const QaqSettings& settings, const float* x, std::int64_t count, const std::uint8_t* outliers,
                     const QaqStatistics& statistics, int bits, std::uint16_t* codes) {
  QaqVector vector{.bits = bits};
  vector.mean = stored(statistics.mean, settings.store, "mean");
  std::fill_n(codes, count, std::uint16_t{0});
  if (bits >= 16) {
    vector.bits = 16;
    for (std::int64_t i = 0; i < count; ++i) {
      if (outliers[i] == 0) codes[i] = kernels::f32_to_f16(stored(x[i], GroupStore::F16, "value"));
    }
    return vector;
  }
  const float cells = static_cast<float>(1 << bits);
  const float scale = settings.normal ? statistics.deviation : statistics.range / cells;
  vector.scale = stored(scale, settings.store, "scale");
  const int half = bits > 0 ? 1 << (bits - 1) : 0;
  const std::vector<double>* const bounds = settings.normal ? &normal_bounds(bits) : nullptr;
  for (std::int64_t i = 0; i < count; ++i) {
    if (outliers[i] != 0) continue;
    if (bounds != nullptr) {
      const float u = scale > 0.0f ? (x[i] - statistics.mean) / scale : 0.0f;
      codes[i] = static_cast<std::uint16_t>(std::lower_bound(bounds->begin(), bounds->end(), static_cast<double>(u)) -
                                            bounds->begin());
    } else if (bits > 0) {
      const float position = scale > 0.0f ? std::nearbyint((x[i] - statistics.mean) / scale) : 0.0f;
      const float code = std::clamp(position, static_cast<float>(-half), static_cast<float>(half - 1));
      codes[i] = static_cast<std::uint16_t>(static_cast<int>(code) + half);
    }
  }
  return vector;
}

const std::vector<double>& qaq_normal_centres(int bits) {
  static std::array<std::vector<double>, 16> tables;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::vector<double>& table = tables.at(static_cast<std::size_t>(bits));
  if (table.empty()) {
    const int cells = 1 << bits;
    for (int i = 0; i < cells; ++i) table.push_back(normal_quantile((i + 0.5) / cells));
  }
  return table;
}

void qaq_decode(const QaqSettings& settings, const QaqVector& vector, const std::uint16_t* codes, std::int64_t count,
                float* x) {
  if (vector.bits >= 16) {
    for (std::int64_t i = 0; i < count; ++i) x[i] = kernels::f16_to_f32(codes[i]);
  } else if (vector.bits == 0) {
    std::fill_n(x, count, vector.mean);
  } else if (settings.normal) {
    const std::vector<double>& centres = qaq_normal_centres(vector.bits);
    for (std::int64_t i = 0; i < count; ++i) x[i] = vector.scale * static_cast<float>(centres[codes[i]]) + vector.mean;
  } else {
    const int half = 1 << (vector.bits - 1);
    for (std::int64_t i = 0; i < count; ++i) x[i] = static_cast<float>(codes[i] - half) * vector.scale + vector.mean;
  }
}

}  // namespace qs
