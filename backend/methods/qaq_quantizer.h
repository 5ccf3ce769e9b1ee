#pragma once

#include <cstdint>
#include <vector>

#include "backend/methods/kv_groups.h"

namespace qs {

/// Which elements share one scale, mean and width (QAQ, arXiv:2403.04643; KV specification 6.2).
enum class QaqLevel { Token, Layer, Head };

struct QaqSettings {
  QaqLevel level = QaqLevel::Head;
  bool symmetric = false;
  bool normal = false;  ///< cells of equal probability (Q3) instead of equal steps (Q2)
  double outliers_ratio = 0.01;
  int n_bits = 2;  ///< of every vector when widths do not follow attention
  bool use_attentions = true;
  std::int64_t last_n = 5;
  double target_error = 3.0, query_energy = 300.0;
  int n_bits_min = 1, n_bits_max = 4;
  GroupStore store = GroupStore::F16;

  std::int64_t parameters() const { return symmetric ? 1 : 2; }  ///< stored a vector: scale, and the mean
  std::int64_t value_bytes() const { return store == GroupStore::F16 ? 2 : 4; }
  int width_bits() const { return widest() - narrowest() > 15 ? 8 : 4; }  ///< stored a vector
  int widest() const { return use_attentions ? n_bits_max : n_bits; }
  int narrowest() const { return use_attentions ? n_bits_min : n_bits; }
};

/// Q1: marks what is kept as it is; ties at the lower threshold are all outliers. @param mask  receives 1 or 0
/// @return how many
std::int64_t qaq_outliers(const float* x, std::int64_t count, double ratio, std::uint8_t* mask);

/// Outliers of a vector without ties at the lower threshold.
std::int64_t qaq_regular_outliers(std::int64_t count, double ratio);

/// Statistics of the elements that are no outliers; all 0 when there are none. `mean` is 0 when symmetric.
struct QaqStatistics {
  float mean = 0.0f, low = 0.0f, high = 0.0f;
  float deviation = 0.0f;  ///< population standard deviation
  float range = 0.0f;      ///< r of Q6: high - low, or twice the largest magnitude
  std::int64_t count = 0;
};
QaqStatistics qaq_statistics(const float* x, std::int64_t count, const std::uint8_t* outliers, bool symmetric);

/// Tolerable half steps: of keys by the query energy (Q4), of values by the attention that was paid to them (Q5).
/// Infinite where anything goes; 0 where nothing is known: then the width is the largest. @param tokens  cached ones
double qaq_key_tolerance(const QaqSettings& settings, std::int64_t tokens);
double qaq_value_tolerance(const QaqSettings& settings, std::int64_t tokens, double attention);
/// Q6.
int qaq_width(const QaqSettings& settings, double range, double tolerance);

/// One vector as it is stored. Codes of outliers are 0 and mean nothing.
struct QaqVector {
  int bits = 0;                     ///< 16: codes are f16 bits
  float scale = 0.0f, mean = 0.0f;  ///< rounded to the stored type
};
/// Codes are q + 2^(bits-1) of Q2, or cells of Q3. @throws Error InvalidArgument when a parameter does not fit f16
QaqVector qaq_encode(const QaqSettings& settings, const float* x, std::int64_t count, const std::uint8_t* outliers,
                     const QaqStatistics& statistics, int bits, std::uint16_t* codes);

/// Centres of the cells of Q3, Phi^-1((i + 1/2) / 2^bits); bits of 0 to 15. The table lives as long as the program.
const std::vector<double>& qaq_normal_centres(int bits);

/// Values of `count` codes. @param x  receives code * scale + mean in the operations and the order of Q2
void qaq_decode(const QaqSettings& settings, const QaqVector& vector, const std::uint16_t* codes, std::int64_t count,
                float* x);

}  // namespace qs
