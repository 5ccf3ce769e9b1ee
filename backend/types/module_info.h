#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs {

/// A module of a checkpoint, or a tensor in it, by its name in the files.
struct ModuleInfo {
  std::string name;                        ///< last part: "q_proj"
  std::string path;                        ///< "model.layers.3.self_attn.q_proj"
  std::string linear;                      ///< of a linear's weight: its name in captures, "layers.3.self_attn.q_proj"
  std::vector<std::int64_t> shape;         ///< of a tensor, outermost extent first; empty for a module
  std::string dtype;                       ///< stored type of a tensor: "float16", "Q4_K"
  std::int64_t parameters = 0, bytes = 0;  ///< summed over what lies in it
  std::vector<ModuleInfo> children;
  bool is_tensor() const { return children.empty(); }
};

/// What the values of a stored tensor look like, over all its elements.
struct TensorStatistics {
  std::string path;
  double absmax = 0.0, mean = 0.0, standard_deviation = 0.0;
  double kurtosis = 0.0;  ///< excess: 0 for a normal distribution
  double peak = 0.0;      ///< absmax / standard deviation
  std::int64_t zeros = 0, non_finite = 0;
};

}  // namespace qs
