#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

ArchitectureSpec read_gpt_neox(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "GPTNeoXForCausalLM";
  read_sizes(reader, spec);
  if (spec.kv_heads != spec.heads) reader.not_understood_value("num_key_value_heads");
  spec.intermediate_size = reader.positive("intermediate_size", kMaxExtent);
  spec.norm = NormKind::LayerNorm;
  spec.norm_eps = reader.real_or("layer_norm_eps", 1e-5);
  spec.parallel_residual = reader.flag_or("use_parallel_residual", true);
  spec.rope =
      read_rope(reader, spec, {.rotary_share = 0.25, .theta_key = "rotary_emb_base", .share_key = "rotary_pct"});
  spec.activation = read_activation(reader, "hidden_act", "gelu");
  spec.gated_mlp = false;
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = reader.flag_or("attention_bias", true);
  spec.mlp_bias = true;
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", false);
  check_heads(reader, spec);
  reader.finish();
  return spec;
}

/// Each head has its query, key and value rows together.
WeightNames gpt_neox_names(const ArchitectureSpec& spec) {
  const std::string base = "gpt_neox.", layer = base + "layers.{}.";
  WeightNames names;
  names.embedding = {base + "embed_in.weight"};
  names.final_norm = weight_place(base + "final_layer_norm");
  names.lm_head = weight_place("embed_out");
  names.input_norm = weight_place(layer + "input_layernorm");
  names.mlp_norm = weight_place(layer + "post_attention_layernorm");
  std::int64_t offset = 0;
  for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V}) {
    WeightPlace place = weight_place(layer + "attention.query_key_value");
    place.weight.rows =
        place.bias.rows = {.offset = offset, .block = spec.head_dim, .period = 3 * spec.head_dim, .count = spec.heads};
    names.linear(kind) = place;
    offset += spec.head_dim;
  }
  names.linear(LinearKind::O) = weight_place(layer + "attention.dense");
  names.linear(LinearKind::Up) = weight_place(layer + "mlp.dense_h_to_4h");
  names.linear(LinearKind::Down) = weight_place(layer + "mlp.dense_4h_to_h");
  names.ignored_endings = {"rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"};
  return names;
}

}  // namespace

Family gpt_neox_family() {
  return {"GPTNeoXForCausalLM", "gpt_neox", &read_gpt_neox, &gpt_neox_names, {"gpt_neox."}, "gptneox"};
}

}  // namespace qs
