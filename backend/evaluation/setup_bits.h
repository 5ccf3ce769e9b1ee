#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backend/model/architecture_spec.h"
#include "backend/types/setup.h"

namespace qs {

/// What effective bits depend on besides the setup. Free of LibTorch for its users.
struct BitsShape {
  ArchitectureSpec spec;
  std::int64_t tokens = 0;  ///< in the cache

  std::int64_t layers() const { return spec.layers; }
  /// Keys and values of all layers.
  std::int64_t cached_elements_per_token() const { return 2 * spec.layers * spec.kv_heads * spec.head_dim; }
};
inline BitsShape bits_shape(const ArchitectureSpec& spec, std::int64_t tokens) { return {spec, tokens}; }

/// Bits an element of one layer's cache costs, window included (KV specification, section 10).
/// @throws Error InvalidArgument when the setup does not fit the layer, naming the nearest value that does
double kv_layer_bits(const Setup& setup, const BitsShape& shape, std::int64_t layer);
/// Bits a weight of one layer's linears costs; what is found only while quantizing (outliers) is not in it.
double weight_layer_bits(const Setup& setup, const BitsShape& shape, std::int64_t layer);

/// Means over the layers; per-layer setups and chains included. Nothing is 16 bits.
double kv_setup_bits(const std::optional<Setup>& setup, const BitsShape& shape);
double weight_setup_bits(const std::optional<Setup>& setup, const BitsShape& shape);

std::string bits_text(double bits);  ///< "2.25"

}  // namespace qs
