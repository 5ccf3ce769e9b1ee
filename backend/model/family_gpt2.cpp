#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

ArchitectureSpec read_gpt2(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "GPT2LMHeadModel";
  spec.hidden_size = reader.positive({"n_embd", "hidden_size"}, kMaxExtent);
  spec.layers = reader.positive({"n_layer", "num_hidden_layers"}, 4096);
  spec.heads = spec.kv_heads = reader.positive({"n_head", "num_attention_heads"}, kMaxExtent);
  spec.vocab_size = reader.positive("vocab_size", kMaxExtent);
  spec.max_context = reader.positive({"n_positions", "n_ctx", "max_position_embeddings"}, kMaxExtent);
  spec.intermediate_size = reader.positive_or("n_inner", 4 * spec.hidden_size, kMaxExtent);
  spec.head_dim = std::max<std::int64_t>(1, spec.hidden_size / spec.heads);
  if (spec.hidden_size % spec.heads != 0)
    reader.wrong("n_head " + std::to_string(spec.heads) + " does not divide n_embd " +
                 std::to_string(spec.hidden_size));
  spec.norm = NormKind::LayerNorm;
  spec.norm_eps = reader.real_or("layer_norm_epsilon", 1e-5);
  spec.position = PositionKind::Learned;
  spec.rope.theta = 0.0;
  if (!reader.flag_or("scale_attn_weights", true)) spec.score_scale = 1.0;
  spec.activation = read_activation(reader, "activation_function", "gelu_new");
  spec.gated_mlp = false;
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = spec.mlp_bias = true;
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", true);
  reader.finish();
  return spec;
}

/// Weights are stored as [in_features, out_features]; query, key and value beside one another.
WeightNames gpt2_names(const ArchitectureSpec& spec) {
  const std::string base = "transformer.", layer = base + "h.{}.";
  WeightNames names;
  names.embedding = {base + "wte.weight"};
  names.positions = {base + "wpe.weight"};
  names.final_norm = weight_place(base + "ln_f");
  names.lm_head = weight_place("lm_head");
  names.input_norm = weight_place(layer + "ln_1");
  names.mlp_norm = weight_place(layer + "ln_2");
  const auto transposed = [&names](LinearKind kind, const std::string& stem) -> WeightPlace& {
    names.linear(kind) = weight_place(stem);
    names.linear(kind).weight.transposed = true;
    return names.linear(kind);
  };
  std::int64_t offset = 0;
  for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V}) {
    WeightPlace& place = transposed(kind, layer + "attn.c_attn");
    place.weight.rows = place.bias.rows = {.offset = offset, .block = spec.hidden_size};
    offset += spec.hidden_size;
  }
  transposed(LinearKind::O, layer + "attn.c_proj");
  transposed(LinearKind::Up, layer + "mlp.c_fc");
  transposed(LinearKind::Down, layer + "mlp.c_proj");
  names.ignored_endings = {".attn.bias", ".attn.masked_bias"};
  return names;
}

}  // namespace

Family gpt2_family() { return {"GPT2LMHeadModel", "gpt2", &read_gpt2, &gpt2_names, {"transformer.", ""}, "gpt2"}; }

}  // namespace qs
