#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

constexpr std::int64_t kMaxExperts = 256;

/// What Llama, Mistral and Qwen share.
ArchitectureSpec read_relative(ConfigReader& reader, const char* architecture, std::int64_t default_head_dim = 0) {
  ArchitectureSpec spec;
  spec.architecture = architecture;
  read_sizes(reader, spec, default_head_dim);
  spec.intermediate_size = reader.positive("intermediate_size", kMaxExtent);
  spec.norm_eps = reader.real_or("rms_norm_eps", 1e-6);
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", false);
  spec.activation = read_activation(reader, "hidden_act", "silu");
  check_heads(reader, spec);
  return spec;
}

ArchitectureSpec read_llama(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_relative(reader, "LlamaForCausalLM");
  spec.rope = read_rope(reader, spec);
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = reader.flag_or("attention_bias", false);
  spec.mlp_bias = reader.flag_or("mlp_bias", false);
  reader.finish();
  return spec;
}

ArchitectureSpec read_mistral(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_relative(reader, "MistralForCausalLM");
  spec.rope = read_rope(reader, spec);
  spec.sliding_window = reader.has("sliding_window") ? reader.positive("sliding_window", kMaxExtent) : 0;
  reader.finish();
  return spec;
}

ArchitectureSpec read_mixtral(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_relative(reader, "MixtralForCausalLM");
  spec.rope = read_rope(reader, spec, {.theta = 1e6});
  spec.sliding_window = reader.has("sliding_window") ? reader.positive("sliding_window", kMaxExtent) : 0;
  spec.experts = reader.positive("num_local_experts", kMaxExperts);
  spec.experts_per_token = reader.positive("num_experts_per_tok", kMaxExperts);
  if (spec.experts_per_token > spec.experts)
    reader.wrong("num_experts_per_tok " + std::to_string(spec.experts_per_token) + " is more than num_local_experts " +
                 std::to_string(spec.experts));
  reader.finish();
  return spec;
}

/// The upper layers slide, where sliding is switched on.
void read_qwen_window(ConfigReader& reader, ArchitectureSpec& spec) {
  const std::int64_t full_layers = reader.positive_or("max_window_layers", 28, kMaxExtent);
  const bool slides = reader.flag_or("use_sliding_window", false);
  const std::int64_t window = reader.has("sliding_window") ? reader.positive("sliding_window", kMaxExtent) : 0;
  if (!slides || window == 0) return;
  spec.sliding_window = window;
  read_sliding_layers(
      reader, spec, [](std::int64_t layer, std::int64_t first) { return layer >= first; }, full_layers);
}

ArchitectureSpec read_qwen2(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_relative(reader, "Qwen2ForCausalLM");
  spec.rope = read_rope(reader, spec);
  spec.query_bias = spec.key_bias = spec.value_bias = true;
  read_qwen_window(reader, spec);
  reader.finish();
  return spec;
}

ArchitectureSpec read_qwen3(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_relative(reader, "Qwen3ForCausalLM", 128);
  spec.rope = read_rope(reader, spec);
  spec.query_key_norm = true;
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = reader.flag_or("attention_bias", false);
  read_qwen_window(reader, spec);
  reader.finish();
  return spec;
}

WeightNames llama_names(const ArchitectureSpec&) { return llama_weight_names(); }

WeightNames mixtral_names(const ArchitectureSpec&) {
  WeightNames names = llama_weight_names();
  const std::string mixture = "model.layers.{}.block_sparse_moe.";
  names.router = weight_place(mixture + "gate");
  names.linear(LinearKind::Gate) = weight_place(mixture + "experts.{e}.w1");
  names.linear(LinearKind::Up) = weight_place(mixture + "experts.{e}.w3");
  names.linear(LinearKind::Down) = weight_place(mixture + "experts.{e}.w2");
  return names;
}

}  // namespace

WeightNames llama_weight_names() {
  const std::string layer = "model.layers.{}.";
  WeightNames names;
  names.embedding = {"model.embed_tokens.weight"};
  names.final_norm = weight_place("model.norm");
  names.lm_head = weight_place("lm_head");
  names.input_norm = weight_place(layer + "input_layernorm");
  names.mlp_norm = weight_place(layer + "post_attention_layernorm");
  names.query_norm = weight_place(layer + "self_attn.q_norm");
  names.key_norm = weight_place(layer + "self_attn.k_norm");
  for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V, LinearKind::O})
    names.linear(kind) = weight_place(layer + "self_attn." + linear_id(kind));
  for (const LinearKind kind : {LinearKind::Gate, LinearKind::Up, LinearKind::Down})
    names.linear(kind) = weight_place(layer + "mlp." + linear_id(kind));
  names.ignored_endings = {"rotary_emb.inv_freq"};
  return names;
}

Family llama_family() { return {"LlamaForCausalLM", "llama", &read_llama, &llama_names, {"model."}, "llama"}; }

Family mistral_family() { return {"MistralForCausalLM", "mistral", &read_mistral, &llama_names, {"model."}, "llama"}; }

Family mixtral_family() {
  return {"MixtralForCausalLM", "mixtral", &read_mixtral, &mixtral_names, {"model."}, "llama"};
}

Family qwen2_family() { return {"Qwen2ForCausalLM", "qwen2", &read_qwen2, &llama_names, {"model."}, "qwen2"}; }

Family qwen3_family() { return {"Qwen3ForCausalLM", "qwen3", &read_qwen3, &llama_names, {"model."}, "qwen3"}; }

}  // namespace qs
