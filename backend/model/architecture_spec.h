#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/rope_spec.h"

namespace qs {

enum class NormKind { RmsNorm, LayerNorm };
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
  PositionKind position = PositionKind::Rope;
  RopeSpec rope;
  double score_scale = 0.0;          ///< of query * key; 0: 1 / sqrt(head_dim)
  double score_softcap = 0.0;        ///< scores become cap * tanh(score / cap) before the softmax; 0: off
  std::int64_t sliding_window = 0;   ///< newest tokens that a query of a sliding layer sees, itself included; 0: all
  std::vector<bool> sliding_layers;  ///< [layers]; empty: every layer slides when sliding_window is set
  std::optional<RopeSpec> sliding_rope;  ///< of sliding layers, where it differs
  ActivationKind activation = ActivationKind::Silu;
  bool gated_mlp = true;
  bool tied_embeddings = false;

  bool slides(std::int64_t layer) const {
    return sliding_window > 0 && (sliding_layers.empty() || sliding_layers[static_cast<std::size_t>(layer)]);
  }
  const RopeSpec& rope_of(std::int64_t layer) const { return slides(layer) && sliding_rope ? *sliding_rope : rope; }
};

}  // namespace qs
