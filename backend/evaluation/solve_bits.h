#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/evaluation/setup_bits.h"
#include "backend/types/method_info.h"

namespace qs {

struct BitsPoint {
  ParamValue value;   ///< of the free parameter
  double bits = 0.0;  ///< effective, mean over the layers
  std::string setup;  ///< the whole line with that value
};

/// Answer to "which value of this parameter gives so many bits?"
struct BitsSolution {
  std::string key, label;
  double target_bits = 0.0;
  std::optional<BitsPoint> best;   ///< the most bits that are not above the target; of equal ones nearest to the setup
  std::optional<BitsPoint> below;  ///< the next fewer bits than `best`
  std::optional<BitsPoint> above;  ///< the next more bits than the target
  double least_bits = 0.0, most_bits = 0.0;  ///< what the parameter can reach, the others as they are
  std::int64_t tried = 0;                    ///< values whose bits were computed
  std::int64_t refused = 0;                  ///< values that do not fit the model or the other parameters
  std::string first_refusal;                 ///< why, of the first of them

  bool reached() const { return best.has_value(); }
  /// "3.40 bits cannot be reached with 'group_size': 2.25 to 3.00 bits." Empty when it was reached.
  std::string why_not() const;
};

/// Parameters of a setup that can be solved for: numbers, choices and switches of its first method and of those behind
/// plus signs, the latter as "scope.window". None for a per-layer setup.
std::vector<std::string> free_keys(const Setup& setup, const std::vector<MethodInfo>& methods);

/// Computes the effective bits over the declared domain of one parameter: every value where there are few, otherwise
/// the divisors of the model's widths, powers of two, the multiples of the step that fitting values share, and the
/// values that halving the interval around the target leads to. Values that do not fit are left out.
/// @throws Error InvalidArgument for a key that free_keys does not name, a per-layer setup, a target that is no number
///         above 0, or when no value of the domain fits the model
BitsSolution solve_kv_bits(const Setup& setup, const std::string& key, double target_bits, const BitsShape& shape);
BitsSolution solve_weight_bits(const Setup& setup, const std::string& key, double target_bits, const BitsShape& shape);

}  // namespace qs
