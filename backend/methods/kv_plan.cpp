#include "backend/method.h"

namespace qs {

std::string KvPlan::cannot_stream() const {
  for (const auto& method : layers_) {
    if (const std::string why = method->cannot_stream(); !why.empty()) return why;
  }
  return {};
}

bool KvPlan::depends_on_attention() const {
  for (const auto& method : layers_) {
    if (method->depends_on_attention()) return true;
  }
  return false;
}

double KvPlan::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  double sum = 0.0;
  CacheShape of_layer = shape;
  of_layer.layers = layers();
  for (of_layer.layer = 0; of_layer.layer < layers(); ++of_layer.layer)
    sum += layer(of_layer.layer).effective_bits(of_layer, tokens);
  return layers_.empty() ? 16.0 : sum / static_cast<double>(layers_.size());
}

}  // namespace qs
