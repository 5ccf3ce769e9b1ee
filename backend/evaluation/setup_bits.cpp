#include "backend/evaluation/setup_bits.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "backend/method.h"
#include "backend/method_registry.h"

namespace qs {
namespace {

struct LinearShape {
  std::int64_t out_features = 0, in_features = 0, count = 1;  ///< `count` of them: experts
  double size() const {
    return static_cast<double>(out_features) * static_cast<double>(in_features) * static_cast<double>(count);
  }
};

std::vector<LinearShape> block_linears(const ArchitectureSpec& spec) {
  const std::int64_t hidden = spec.hidden_size, query = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  const std::int64_t experts = std::max<std::int64_t>(1, spec.experts);
  std::vector<LinearShape> linears = {{query, hidden}, {kv, hidden}, {kv, hidden}, {hidden, query}};
  if (spec.gated_mlp) linears.push_back({spec.intermediate_size, hidden, experts});
  linears.push_back({spec.intermediate_size, hidden, experts});
  linears.push_back({hidden, spec.intermediate_size, experts});
  return linears;
}

}  // namespace

double kv_layer_bits(const Setup& setup, const BitsShape& shape, std::int64_t layer) {
  const CacheShape cache = cache_shape(shape.spec, layer);
  const auto method = make_kv_method(setup_of_layer(setup, layer));
  method->check_fits(cache);
  return method->effective_bits(cache, shape.tokens);
}

double weight_layer_bits(const Setup& setup, const BitsShape& shape, std::int64_t layer) {
  const Setup& of_layer = setup_of_layer(setup, layer);
  if (of_layer.method == "none") return 16.0;
  Setup alone = of_layer;
  alone.range = {};
  const auto method = make_weight_method(alone);
  double bits = 0.0, size = 0.0;
  for (const LinearShape& linear : block_linears(shape.spec)) {
    bits += linear.size() * method->effective_bits(linear.out_features, linear.in_features);
    size += linear.size();
  }
  return size > 0.0 ? bits / size : 16.0;
}

double kv_setup_bits(const std::optional<Setup>& setup, const BitsShape& shape) {
  if (!setup) return 16.0;
  check_covers(*setup, shape.layers());
  double bits = 0.0;
  for (std::int64_t layer = 0; layer < shape.layers(); ++layer) bits += kv_layer_bits(*setup, shape, layer);
  return bits / static_cast<double>(std::max<std::int64_t>(1, shape.layers()));
}

double weight_setup_bits(const std::optional<Setup>& setup, const BitsShape& shape) {
  if (!setup) return 16.0;
  check_covers(*setup, shape.layers());
  double bits = 0.0;  // blocks are of one size
  for (std::int64_t layer = 0; layer < shape.layers(); ++layer) bits += weight_layer_bits(*setup, shape, layer);
  return bits / static_cast<double>(std::max<std::int64_t>(1, shape.layers()));
}

std::string bits_text(double bits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", bits);
  return text;
}

}  // namespace qs
