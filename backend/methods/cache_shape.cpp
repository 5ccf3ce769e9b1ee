#include "backend/method.h"

namespace qs {

CacheShape cache_shape(const ArchitectureSpec& spec, std::int64_t layer) {
  CacheShape shape;
  shape.heads = spec.heads;
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  shape.rope = spec.rope_of(layer);
  const AttentionRules rules = spec.attention_rules(layer);
  shape.score_scale = rules.score_scale;
  shape.score_softcap = rules.score_softcap;
  shape.sliding_window = rules.sliding_window;
  shape.layer = layer;
  shape.layers = spec.layers;
  return shape;
}

}  // namespace qs
