#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"
#include "backend/types/error.h"

namespace qs {
namespace {

bool all_but_last(std::int64_t layer, std::int64_t period) { return (layer + 1) % period != 0; }

/// The published checkpoints name "gelu" as hidden_act and mean its tanh form.
ActivationKind read_gemma_activation(ConfigReader& reader) {
  if (reader.has("hidden_activation")) return read_activation(reader, "hidden_activation", "");
  const ActivationKind kind = read_activation(reader, "hidden_act", "gelu_pytorch_tanh");
  return kind == ActivationKind::Gelu ? ActivationKind::GeluTanh : kind;
}

/// What the three generations share.
ArchitectureSpec read_common(ConfigReader& reader, const char* architecture) {
  ArchitectureSpec spec;
  spec.architecture = architecture;
  read_sizes(reader, spec, 256);
  spec.intermediate_size = reader.positive("intermediate_size", kMaxExtent);
  spec.norm = NormKind::RmsNormPlusOne;
  spec.norm_eps = reader.real_or("rms_norm_eps", 1e-6);
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden_size));
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", true);
  spec.activation = read_gemma_activation(reader);
  spec.query_bias = spec.key_bias = spec.value_bias = spec.output_bias = reader.flag_or("attention_bias", false);
  check_heads(reader, spec);
  return spec;
}

/// Absent: the default of the generation; null: off.
double softcap(ConfigReader& reader, const char* key, double fallback) {
  return reader.is_null(key) ? reader.real_or(key, 0.0) : reader.real_or(key, fallback);
}

void read_later(ConfigReader& reader, ArchitectureSpec& spec, double score_cap, double logit_cap) {
  spec.output_norms = true;
  spec.score_scale = 1.0 / std::sqrt(reader.real_or("query_pre_attn_scalar", 256.0));
  spec.score_softcap = softcap(reader, "attn_logit_softcapping", score_cap);
  spec.logit_softcap = softcap(reader, "final_logit_softcapping", logit_cap);
  spec.sliding_window = reader.is_null("sliding_window") ? 0 : reader.positive_or("sliding_window", 4096, kMaxExtent);
}

ArchitectureSpec read_gemma(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_common(reader, "GemmaForCausalLM");
  spec.rope = read_rope(reader, spec);
  reader.finish();
  return spec;
}

ArchitectureSpec read_gemma2(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec = read_common(reader, "Gemma2ForCausalLM");
  spec.rope = read_rope(reader, spec);
  read_later(reader, spec, 50.0, 30.0);
  read_sliding_layers(reader, spec, &all_but_last, 2);
  reader.finish();
  return spec;
}

ArchitectureSpec read_gemma3(ConfigReader& reader, const char* architecture) {
  ArchitectureSpec spec = read_common(reader, architecture);
  spec.query_key_norm = true;
  read_later(reader, spec, 0.0, 0.0);
  const std::int64_t period = reader.positive_or("sliding_window_pattern", 6, kMaxExtent);
  read_sliding_layers(reader, spec, &all_but_last, period);
  spec.rope = read_rope(reader, spec, {.theta = 1e6, .layer_type = "full_attention", .linear_extends = false});
  // Older files scale only the full layers and give the sliding ones a base frequency of their own.
  const nlohmann::json& newer = reader.value("rope_parameters");
  if (newer.is_object() && newer.contains("sliding_attention")) {
    spec.sliding_rope = read_rope(reader, spec, {.layer_type = "sliding_attention", .linear_extends = false});
  } else {
    spec.sliding_rope.emplace();
    spec.sliding_rope->theta = reader.real_or("rope_local_base_freq", 10000.0);
  }
  reader.finish();
  return spec;
}

ArchitectureSpec read_gemma3_text(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  return read_gemma3(reader, "Gemma3ForCausalLM");
}

ArchitectureSpec read_gemma3_multimodal(const nlohmann::json& config, const std::string& path) {
  const auto text = config.find("text_config");
  if (text == config.end() || !text->is_object())
    throw Error(ErrorCode::BadFormat, "'" + path +
                                          "' is of a multimodal Gemma 3 and has no \"text_config\", the description of "
                                          "its text part, which is what is computed here.");
  nlohmann::json merged = *text;
  // The published files leave out of text_config what has the default of the library that wrote them.
  const auto fill = [&merged](const char* key, std::int64_t value) {
    if (!merged.contains(key)) merged[key] = value;
  };
  fill("vocab_size", 262208);
  fill("num_attention_heads", 8);
  fill("num_key_value_heads", 4);
  fill("max_position_embeddings", 131072);
  if (config.contains("tie_word_embeddings")) merged["tie_word_embeddings"] = config["tie_word_embeddings"];
  if (config.contains("quantization_config")) merged["quantization_config"] = config["quantization_config"];
  ConfigReader reader(merged, path);
  return read_gemma3(reader, "Gemma3ForConditionalGeneration");
}

WeightNames gemma_names(const ArchitectureSpec& spec) {
  WeightNames names = llama_weight_names();
  if (!spec.output_norms) return names;
  const std::string layer = "model.layers.{}.";
  names.attention_output_norm = weight_place(layer + "post_attention_layernorm");
  names.mlp_norm = weight_place(layer + "pre_feedforward_layernorm");
  names.mlp_output_norm = weight_place(layer + "post_feedforward_layernorm");
  return names;
}

/// The image tower is not computed: text alone never reaches it.
WeightNames gemma3_multimodal_names(const ArchitectureSpec& spec) {
  WeightNames names = gemma_names(spec);
  names.ignored_beginnings = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                              "model.multi_modal_projector."};
  return names;
}

}  // namespace

Family gemma_family() { return {"GemmaForCausalLM", "gemma", &read_gemma, &gemma_names, {"model."}, "gemma"}; }

Family gemma2_family() { return {"Gemma2ForCausalLM", "gemma2", &read_gemma2, &gemma_names, {"model."}, "gemma2"}; }

Family gemma3_text_family() {
  return {"Gemma3ForCausalLM", "gemma3_text", &read_gemma3_text, &gemma_names, {"model."}, "gemma3"};
}

Family gemma3_family() {
  return {"Gemma3ForConditionalGeneration",
          "gemma3",
          &read_gemma3_multimodal,
          &gemma3_multimodal_names,
          {"model.", "language_model.model.", "model.language_model."},
          "gemma3"};
}

}  // namespace qs
