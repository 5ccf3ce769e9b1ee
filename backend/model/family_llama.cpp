#include <nlohmann/json.hpp>

#include "backend/model/family.h"

namespace qs {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 22;
constexpr std::int64_t kMaxLayers = 4096;

/// Settings of relatives of Llama that change what is computed. Null, false and these neutral values are fine.
struct Neutral {
  const char* key;
  double value;
};
constexpr Neutral kMustBeNeutral[] = {
    {"attention_bias", 0},
    {"mlp_bias", 0},
    {"qkv_bias", 0},
    {"use_qk_norm", 0},
    {"qk_norm", 0},
    {"partial_rotary_factor", 1},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"attention_multiplier", 1},
    {"logits_scaling", 1},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"final_logit_softcapping", 0},
    {"attn_logit_softcapping", 0},
};

void refuse_unknown_settings(const nlohmann::json& config, ConfigReader& reader) {
  for (const Neutral& setting : kMustBeNeutral) {
    if (!reader.has(setting.key)) continue;
    const nlohmann::json& value = config[setting.key];
    const bool neutral = value.is_boolean() ? value.get<bool>() == (setting.value != 0)
                                            : value.is_number() && value.get<double>() == setting.value;
    if (!neutral) reader.not_understood(std::string(setting.key) + " = " + reader.value_text(setting.key));
  }
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.has(key)) continue;
    const nlohmann::json& value = config[key];
    const auto type = [&value](const char* name) {
      return value.is_object() && value.contains(name) && value[name].is_string() ? value[name].get<std::string>() : "";
    };
    if (type("rope_type") != "default" && type("type") != "default")
      reader.not_understood(std::string(key) + " = " + reader.value_text(key));
  }
  if (reader.has("quantization_config"))
    reader.not_understood("quantization_config = " + reader.value_text("quantization_config"));
  if (reader.has("sliding_window")) reader.not_understood("sliding_window = " + reader.value_text("sliding_window"));
}

ArchitectureSpec read_llama_config(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "LlamaForCausalLM";
  spec.hidden_size = reader.positive("hidden_size", kMaxExtent);
  spec.intermediate_size = reader.positive("intermediate_size", kMaxExtent);
  spec.layers = reader.positive("num_hidden_layers", kMaxLayers);
  spec.heads = reader.positive("num_attention_heads", kMaxExtent);
  spec.kv_heads = reader.positive_or("num_key_value_heads", spec.heads, kMaxExtent);
  spec.head_dim = reader.positive_or("head_dim", std::max<std::int64_t>(1, spec.hidden_size / spec.heads), kMaxExtent);
  spec.vocab_size = reader.positive("vocab_size", kMaxExtent);
  spec.max_context = reader.positive_or("max_position_embeddings", 2048, std::int64_t{1} << 26);
  spec.norm_eps = reader.real_or("rms_norm_eps", 1e-6);
  spec.rope.theta = reader.real_or("rope_theta", 10000.0);
  if (reader.has("rope_parameters") && config["rope_parameters"].is_object())
    spec.rope.theta = ConfigReader(config["rope_parameters"], path).real_or("rope_theta", spec.rope.theta);
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", false);
  if (reader.text_or("hidden_act", "silu") != "silu")
    reader.not_understood("hidden_act = " + reader.value_text("hidden_act"));
  if (spec.heads % spec.kv_heads != 0)
    reader.wrong("num_key_value_heads " + std::to_string(spec.kv_heads) + " does not divide num_attention_heads " +
                 std::to_string(spec.heads));
  if (!reader.has("head_dim") && spec.hidden_size % spec.heads != 0)
    reader.wrong("num_attention_heads " + std::to_string(spec.heads) + " does not divide hidden_size " +
                 std::to_string(spec.hidden_size));
  if (spec.head_dim % 2 != 0)
    reader.wrong("head_dim " + std::to_string(spec.head_dim) + " is odd; rotary embedding needs pairs");
  refuse_unknown_settings(config, reader);
  reader.finish();
  return spec;
}

}  // namespace

Family llama_family() {
  Family family;
  family.architecture = "LlamaForCausalLM";
  family.read_config = &read_llama_config;
  family.names.embedding = "model.embed_tokens.weight";
  family.names.final_norm = "model.norm.weight";
  family.names.lm_head = "lm_head.weight";
  family.names.input_norm = "model.layers.{}.input_layernorm.weight";
  family.names.post_attention_norm = "model.layers.{}.post_attention_layernorm.weight";
  family.names.linears = {"model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.self_attn.k_proj.weight",
                          "model.layers.{}.self_attn.v_proj.weight", "model.layers.{}.self_attn.o_proj.weight",
                          "model.layers.{}.mlp.gate_proj.weight",    "model.layers.{}.mlp.up_proj.weight",
                          "model.layers.{}.mlp.down_proj.weight"};
  family.names.ignored_endings = {"rotary_emb.inv_freq"};
  return family;
}

}  // namespace qs
