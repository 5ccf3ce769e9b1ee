#pragma once

#include <cstdint>
#include <string>

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
  double rope_theta = 10000.0;
  ActivationKind activation = ActivationKind::Silu;
  bool gated_mlp = true;
  bool tied_embeddings = false;
};

}  // namespace qs
