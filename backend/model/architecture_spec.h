#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/attention_rules.h"
#include "backend/types/rope_spec.h"

namespace qs {

enum class NormKind {
  RmsNorm,
  RmsNormPlusOne,  ///< multiplies by 1 + weight (Gemma)
  LayerNorm
};
enum class NormPlacement {
  Pre,  ///< x + f(norm(x))
  Post  ///< norm(x + f(x)) (OPT-350M)
};
enum class PositionKind { Rope, Learned, None };
enum class ActivationKind { Silu, Gelu, GeluTanh, Relu };

/// Describes a decoder-only transformer. A family (Llama, ...) is a mapping of its config.json and weight names onto
/// this, never a class of its own; a new family adds fields here only when it computes something that no other does.
struct ArchitectureSpec {
  std::string architecture;  ///< "LlamaForCausalLM"
  std::int64_t layers = 0, hidden_size = 0, intermediate_size = 0, vocab_size = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, max_context = 0;
  NormKind norm = NormKind::RmsNorm;
  double norm_eps = 1e-5;
  NormPlacement norm_placement = NormPlacement::Pre;
  bool final_norm = true;
  bool query_key_norm = false;     ///< each head of query and key is normed before rotation
  bool output_norms = false;       ///< attention and MLP outputs are normed before they join the residual (Gemma 2)
  bool parallel_residual = false;  ///< x + attention(norm(x)) + mlp(norm(x))
  bool shared_norm = false;        ///< with parallel_residual: attention and MLP read one norm
  PositionKind position = PositionKind::Rope;
  RopeSpec rope;
  std::int64_t position_offset = 0;  ///< rows of the learned positions before that of position 0 (OPT: 2)
  double embedding_scale = 1.0;      ///< Gemma: sqrt(hidden_size)
  std::int64_t embedding_width = 0;  ///< where it differs from hidden_size: linears project in and out (OPT-350M)
  double score_scale = 0.0;          ///< as in AttentionRules
  double score_softcap = 0.0;
  std::int64_t sliding_window = 0;   ///< newest tokens that a query of a sliding layer sees, itself included; 0: all
  std::vector<bool> sliding_layers;  ///< [layers]; empty: every layer slides when sliding_window is set
  std::optional<RopeSpec> sliding_rope;  ///< of sliding layers, where it differs
  ActivationKind activation = ActivationKind::Silu;
  bool gated_mlp = true;
  std::int64_t experts = 0, experts_per_token = 0;  ///< 0: one MLP a layer
  bool query_bias = false, key_bias = false, value_bias = false, output_bias = false, mlp_bias = false;
  bool head_bias = false;
  double logit_softcap = 0.0;  ///< logits become cap * tanh(logit / cap); 0: off
  bool tied_embeddings = false;

  bool slides(std::int64_t layer) const {
    return sliding_window > 0 && (sliding_layers.empty() || sliding_layers[static_cast<std::size_t>(layer)]);
  }
  const RopeSpec& rope_of(std::int64_t layer) const { return slides(layer) && sliding_rope ? *sliding_rope : rope; }
  AttentionRules attention_rules(std::int64_t layer) const {
    return {score_scale, score_softcap, slides(layer) ? sliding_window : 0};
  }
  /// Whether two layers may differ in rotation or window.
  bool layers_differ() const { return sliding_window > 0 && !sliding_layers.empty(); }
};

}  // namespace qs
