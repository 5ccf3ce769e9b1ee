#include "backend/model/config_writer.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "backend/model/family.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Json = nlohmann::ordered_json;

auto what_is_computed(const ArchitectureSpec& s) {
  return std::tie(s.architecture, s.layers, s.hidden_size, s.intermediate_size, s.vocab_size, s.heads, s.kv_heads,
                  s.head_dim, s.max_context, s.norm, s.norm_eps, s.norm_placement, s.final_norm, s.query_key_norm,
                  s.output_norms, s.parallel_residual, s.shared_norm, s.position, s.position_offset, s.embedding_scale,
                  s.embedding_width, s.score_scale, s.score_softcap, s.sliding_window, s.sliding_layers, s.sliding_rope,
                  s.activation, s.gated_mlp, s.experts, s.experts_per_token, s.query_bias, s.key_bias, s.value_bias,
                  s.output_bias, s.mlp_bias, s.head_bias, s.logit_softcap, s.tied_embeddings);
}

const char* activation_id(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::Silu:
      return "silu";
    case ActivationKind::Gelu:
      return "gelu";
    case ActivationKind::GeluTanh:
      return "gelu_new";
    case ActivationKind::Relu:
      break;
  }
  return "relu";
}

/// The shortest decimal that is the same f32: files of other formats keep such numbers in f32.
double tidy(double value) {
  for (int digits = 1; digits <= 9; ++digits) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    const double rounded = std::strtod(text, nullptr);
    if (static_cast<float>(rounded) == static_cast<float>(value)) return rounded;
  }
  return value;
}

Json rope_scaling(const RopeSpec& rope) {
  switch (rope.scaling) {
    case RopeScaling::Linear:
      return {{"rope_type", "linear"}, {"type", "linear"}, {"factor", rope.factor}};
    case RopeScaling::Llama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_context}};
    default:
      return nullptr;
  }
}

/// Llama and those that share its keys.
Json llama_config(const ArchitectureSpec& spec) {
  std::int64_t context = spec.max_context;
  if (spec.rope.scaling == RopeScaling::Linear) context = std::llround(static_cast<double>(context) / spec.rope.factor);
  Json config = {{"hidden_size", spec.hidden_size},
                 {"intermediate_size", spec.intermediate_size},
                 {"num_hidden_layers", spec.layers},
                 {"num_attention_heads", spec.heads},
                 {"num_key_value_heads", spec.kv_heads},
                 {"head_dim", spec.head_dim},
                 {"max_position_embeddings", context},
                 {"rms_norm_eps", tidy(spec.norm_eps)},
                 {"rope_theta", tidy(spec.rope.theta)},
                 {"rope_scaling", rope_scaling(spec.rope)},
                 {"hidden_act", activation_id(spec.activation)}};
  if (spec.architecture == "LlamaForCausalLM" || spec.architecture == "Qwen3ForCausalLM")
    config["attention_bias"] = spec.query_bias;
  if (spec.architecture == "LlamaForCausalLM") config["mlp_bias"] = spec.mlp_bias;
  if (spec.sliding_window > 0) config["sliding_window"] = spec.sliding_window;
  return config;
}

Json gpt2_config(const ArchitectureSpec& spec) {
  return {{"n_embd", spec.hidden_size},
          {"n_inner", spec.intermediate_size},
          {"n_layer", spec.layers},
          {"n_head", spec.heads},
          {"n_positions", spec.max_context},
          {"layer_norm_epsilon", tidy(spec.norm_eps)},
          {"activation_function", activation_id(spec.activation)}};
}

Json gpt_neox_config(const ArchitectureSpec& spec) {
  const std::int64_t rotary = spec.rope.rotary_dim > 0 ? spec.rope.rotary_dim : spec.head_dim;
  return {{"hidden_size", spec.hidden_size},
          {"intermediate_size", spec.intermediate_size},
          {"num_hidden_layers", spec.layers},
          {"num_attention_heads", spec.heads},
          {"max_position_embeddings", spec.max_context},
          {"layer_norm_eps", tidy(spec.norm_eps)},
          {"use_parallel_residual", spec.parallel_residual},
          {"rotary_pct", static_cast<double>(rotary) / static_cast<double>(spec.head_dim)},
          {"rotary_emb_base", tidy(spec.rope.theta)},
          {"attention_bias", spec.query_bias},
          {"hidden_act", activation_id(spec.activation)}};
}

struct Writer {
  const char* architecture;
  Json (*write)(const ArchitectureSpec& spec);
};
constexpr Writer kWriters[] = {
    {"LlamaForCausalLM", &llama_config}, {"MistralForCausalLM", &llama_config},    {"Qwen2ForCausalLM", &llama_config},
    {"Qwen3ForCausalLM", &llama_config}, {"GPTNeoXForCausalLM", &gpt_neox_config}, {"GPT2LMHeadModel", &gpt2_config},
};

const Writer& writer_of(const std::string& architecture) {
  std::string known;
  for (const Writer& writer : kWriters) {
    if (architecture == writer.architecture) return writer;
    known += (known.empty() ? "" : ", ") + std::string(writer.architecture);
  }
  throw Error(ErrorCode::Unsupported, "A config.json for " + architecture +
                                          " is not written here, so this model can only be exported from its Hugging "
                                          "Face folder. Written are those of " +
                                          known + ".");
}

}  // namespace

Json hugging_face_config(const ArchitectureSpec& spec, const ModelInfo& info) {
  const Writer& writer = writer_of(spec.architecture);
  Json config = {{"architectures", Json::array({spec.architecture})}};
  for (const Family& family : families())
    if (family.architecture == spec.architecture) config["model_type"] = family.model_type;
  config.update(writer.write(spec));
  config["vocab_size"] = spec.vocab_size;
  config["tie_word_embeddings"] = spec.tied_embeddings;
  config["bos_token_id"] = info.bos_id >= 0 ? Json(info.bos_id) : Json();
  config["eos_token_id"] = info.eos_ids.size() > 1 ? Json(info.eos_ids) : info.eos_id >= 0 ? Json(info.eos_id) : Json();
  config["torch_dtype"] = info.dtype == "bfloat16" || info.dtype == "float32" ? info.dtype : "float16";

  const nlohmann::json plain = nlohmann::json::parse(config.dump());
  ArchitectureSpec read = family_of(plain, "config.json").read_config(plain, "config.json");
  read.norm_eps = tidy(read.norm_eps);
  ArchitectureSpec meant = spec;
  meant.norm_eps = tidy(meant.norm_eps);
  meant.rope.theta = tidy(meant.rope.theta);
  // Both spellings of "all channels of a head rotate".
  for (RopeSpec* rope : {&read.rope, &meant.rope})
    if (rope->rotary_dim == spec.head_dim) rope->rotary_dim = 0;
  if (what_is_computed(read) != what_is_computed(meant) || !(read.rope == meant.rope))
    throw Error(ErrorCode::Unsupported, "The config.json of " + spec.architecture + " cannot say all that '" +
                                            info.path +
                                            "' computes, so this model can only be exported from its Hugging Face "
                                            "folder.");
  return config;
}

}  // namespace qs
