#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

ArchitectureSpec read_opt(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "OPTForCausalLM";
  read_sizes(reader, spec);
  spec.intermediate_size = reader.positive("ffn_dim", kMaxExtent);
  spec.norm = NormKind::LayerNorm;
  const bool before = reader.flag_or("do_layer_norm_before", true);
  spec.norm_placement = before ? NormPlacement::Pre : NormPlacement::Post;
  spec.final_norm = before && !reader.flag_or("_remove_final_layer_norm", false);
  spec.position = PositionKind::Learned;
  spec.position_offset = 2;
  spec.rope.theta = 0.0;
  const std::int64_t width = reader.positive_or("word_embed_proj_dim", spec.hidden_size, kMaxExtent);
  spec.embedding_width = width == spec.hidden_size ? 0 : width;
  spec.activation = read_activation(reader, "activation_function", "relu");
  spec.gated_mlp = false;
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = spec.mlp_bias =
      reader.flag_or("enable_bias", true);
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", true);
  if (!reader.flag_or("layer_norm_elementwise_affine", true))
    reader.not_understood_value("layer_norm_elementwise_affine");
  check_heads(reader, spec);
  reader.finish();
  return spec;
}

WeightNames opt_names(const ArchitectureSpec&) {
  const std::string base = "model.decoder.", layer = base + "layers.{}.";
  WeightNames names;
  names.embedding = {base + "embed_tokens.weight"};
  names.positions = {base + "embed_positions.weight"};
  names.project_in = weight_place(base + "project_in");
  names.project_out = weight_place(base + "project_out");
  names.final_norm = weight_place(base + "final_layer_norm");
  names.lm_head = weight_place("lm_head");
  names.input_norm = weight_place(layer + "self_attn_layer_norm");
  names.mlp_norm = weight_place(layer + "final_layer_norm");
  names.linear(LinearKind::Q) = weight_place(layer + "self_attn.q_proj");
  names.linear(LinearKind::K) = weight_place(layer + "self_attn.k_proj");
  names.linear(LinearKind::V) = weight_place(layer + "self_attn.v_proj");
  names.linear(LinearKind::O) = weight_place(layer + "self_attn.out_proj");
  names.linear(LinearKind::Up) = weight_place(layer + "fc1");
  names.linear(LinearKind::Down) = weight_place(layer + "fc2");
  return names;
}

}  // namespace

Family opt_family() { return {"OPTForCausalLM", "opt", &read_opt, &opt_names, {"model.decoder.", "decoder."}, ""}; }

}  // namespace qs
