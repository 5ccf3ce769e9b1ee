#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

ArchitectureSpec read_falcon(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "FalconForCausalLM";
  spec.hidden_size = reader.positive({"hidden_size", "n_embed"}, kMaxExtent);
  spec.layers = reader.positive({"num_hidden_layers", "n_layer"}, 4096);
  spec.heads = reader.positive({"num_attention_heads", "n_head"}, kMaxExtent);
  const bool new_decoder = reader.flag_or("new_decoder_architecture", false);
  const bool multi_query = reader.flag_or("multi_query", true);
  const std::int64_t stated = reader.has("num_kv_heads") ? reader.positive("num_kv_heads", kMaxExtent)
                                                         : reader.positive_or("n_head_kv", spec.heads, kMaxExtent);
  spec.kv_heads = new_decoder ? stated : multi_query ? 1 : spec.heads;
  spec.vocab_size = reader.positive("vocab_size", kMaxExtent);
  spec.max_context = reader.positive_or("max_position_embeddings", 2048, std::int64_t{1} << 26);
  spec.intermediate_size = reader.positive_or("ffn_hidden_size", 4 * spec.hidden_size, kMaxExtent);
  spec.head_dim = std::max<std::int64_t>(1, spec.hidden_size / spec.heads);
  if (spec.hidden_size % spec.heads != 0)
    reader.wrong("num_attention_heads " + std::to_string(spec.heads) + " does not divide hidden_size " +
                 std::to_string(spec.hidden_size));
  spec.norm = NormKind::LayerNorm;
  spec.norm_eps = reader.real_or("layer_norm_epsilon", 1e-5);
  spec.parallel_residual = new_decoder || reader.flag_or("parallel_attn", true);
  const std::int64_t norms = reader.positive_or("num_ln_in_parallel_attn", new_decoder ? 2 : 1, 2);
  spec.shared_norm = spec.parallel_residual && norms == 1;
  if (!new_decoder && norms == 2) reader.not_understood_value("num_ln_in_parallel_attn");
  spec.rope = read_rope(reader, spec);
  spec.activation = read_activation(reader, "activation", "gelu");
  spec.gated_mlp = false;
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = spec.mlp_bias = reader.flag_or("bias", false);
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", true);
  check_heads(reader, spec);
  reader.finish();
  return spec;
}

/// Each KV head has the rows of its queries, its key and its value together.
WeightNames falcon_names(const ArchitectureSpec& spec) {
  const std::string base = "transformer.", layer = base + "h.{}.";
  const bool two_norms = spec.parallel_residual && !spec.shared_norm;
  WeightNames names;
  names.embedding = {base + "word_embeddings.weight"};
  names.final_norm = weight_place(base + "ln_f");
  names.lm_head = weight_place("lm_head");
  names.input_norm = weight_place(layer + (two_norms ? "ln_attn" : "input_layernorm"));
  names.mlp_norm = weight_place(layer + (two_norms ? "ln_mlp" : "post_attention_layernorm"));
  const std::int64_t queries = spec.heads / spec.kv_heads * spec.head_dim;
  const auto rows = [&](LinearKind kind, std::int64_t offset, std::int64_t block) {
    WeightPlace place = weight_place(layer + "self_attention.query_key_value");
    place.weight.rows = place.bias.rows = {
        .offset = offset, .block = block, .period = queries + 2 * spec.head_dim, .count = spec.kv_heads};
    names.linear(kind) = place;
  };
  rows(LinearKind::Q, 0, queries);
  rows(LinearKind::K, queries, spec.head_dim);
  rows(LinearKind::V, queries + spec.head_dim, spec.head_dim);
  names.linear(LinearKind::O) = weight_place(layer + "self_attention.dense");
  names.linear(LinearKind::Up) = weight_place(layer + "mlp.dense_h_to_4h");
  names.linear(LinearKind::Down) = weight_place(layer + "mlp.dense_4h_to_h");
  names.ignored_endings = {"rotary_emb.inv_freq"};
  return names;
}

}  // namespace

Family falcon_family() {
  return {"FalconForCausalLM", "falcon", &read_falcon, &falcon_names, {"transformer."}, "falcon"};
}

}  // namespace qs
