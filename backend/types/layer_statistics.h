#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend/types/eval_result.h"

namespace qs {

/// The linear layer that a row is about: a cell of a heatmap layer x linear.
struct LinearPlace {
  std::string name;          ///< "layers.3.mlp.up_proj", "lm_head"
  std::int64_t layer = -1;   ///< -1: behind the last block
  std::string linear;        ///< "up_proj", "lm_head"
  std::int64_t expert = -1;  ///< -1 outside a mixture of experts
  bool operator==(const LinearPlace&) const = default;
};

/// Local error of one linear of a quantized model: what its own rounding does to its output, given the input that
/// reaches it (weights specification 10.1). Never to be mixed with LinearDistance.
struct LinearStatistics {
  LinearPlace place;
  /// The 16 numbers, by name: sqnr_x, sqnr_w, sqnr_o in dB, mse_x, mse_w, mse_o, and mean_, std_, kurt_, max_, min_ of
  /// x and w. Means over the windows in which they are finite; infinite where every window was exact.
  std::map<std::string, double> values;
  /// Of sqnr_x, sqnr_w and sqnr_o: windows without any error, which the mean leaves out.
  std::map<std::string, std::int64_t> exact_windows;
  std::int64_t windows = 0;  ///< that reached the linear
  std::int64_t tokens = 0;
};

struct LayerStatistics {
  VariantLabel variant;
  Protocol protocol;
  std::string fingerprint;
  std::vector<LinearStatistics> linears;  ///< in model order
};

/// Accumulated error at the input of one linear: how far everything in front of it has moved what it reads (weights
/// specification 10.2).
struct LinearDistance {
  LinearPlace place;
  double sqnr_db = 0.0;  ///< mean over the windows that differ; infinite where none does
  double mse = 0.0;      ///< mean over the windows
  std::int64_t exact_windows = 0, windows = 0;
};

struct LayerDistance {
  VariantLabel variant;
  Protocol protocol;
  std::string fingerprint;
  std::uint64_t seed = 0;
  std::vector<std::int64_t> starts;     ///< first token of each window in the text
  std::vector<LinearDistance> linears;  ///< in model order, lm_head last
  std::vector<std::string> notes;       ///< what was left out
};

}  // namespace qs
