#include "backend/model/config_reader.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/types/error.h"

namespace qs {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMaxLayers = 4096;

/// Settings that change what is computed. A family that computes one reads it; for all others null, false and these
/// values are fine.
struct Neutral {
  const char* key;
  double value;
};
constexpr Neutral kMustBeNeutral[] = {
    {"add_cross_attention", 0},
    {"alibi", 0},
    {"attention_bias", 0},
    {"attention_in_bias", 0},
    {"attention_multiplier", 1},
    {"attention_out_bias", 0},
    {"attn_logit_softcapping", 0},
    {"clip_qkv", 0},
    {"dim_model_base", 0},
    {"embedding_multiplier", 1},
    {"final_logit_softcapping", 0},
    {"is_encoder_decoder", 0},
    {"kv_lora_rank", 0},
    {"lm_head_bias", 0},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"mlp_bias", 0},
    {"n_routed_experts", 0},
    {"no_rope_layers", 0},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"partial_rotary_factor", 1},
    {"q_lora_rank", 0},
    {"qk_layernorm", 0},
    {"qk_norm", 0},
    {"qkv_bias", 0},
    {"quantization_config", 0},
    {"residual_multiplier", 1},
    {"rope_parameters", 0},
    {"rope_scaling", 0},
    {"rotary_pct", 1},
    {"scale_attn_by_inverse_layer_idx", 0},
    {"scale_depth", 1},
    {"scale_emb", 1},
    {"sliding_window", 0},
    {"use_bidirectional_attention", 0},
    {"use_qk_norm", 0},
    {"use_sliding_window", 0},
};

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

bool is_neutral(const Json& value, double neutral) {
  if (value.is_null() || (value.is_structured() && value.empty())) return true;
  if (value.is_boolean()) return value.get<bool>() == (neutral != 0);
  return value.is_number() && value.get<double>() == neutral;
}

bool all_full_attention(const Json& types) {
  return types.is_array() &&
         std::all_of(types.begin(), types.end(), [](const Json& type) { return type == "full_attention"; });
}

}  // namespace

bool ConfigReader::has(const char* key) const {
  const auto at = config_.find(key);
  return at != config_.end() && !at->is_null();
}

bool ConfigReader::is_null(const char* key) const { return config_.contains(key) && !has(key); }

std::string ConfigReader::value_text(const std::string& key) const {
  std::string text =
      has(key.c_str()) ? config_[key].dump(-1, ' ', false, Json::error_handler_t::replace) : std::string("missing");
  if (text.size() > 80) text = text.substr(0, 80) + "...";
  return text;
}

void ConfigReader::not_understood_value(const std::string& key) { not_understood(key + " = " + value_text(key)); }

const Json& ConfigReader::value(const char* key) {
  static const Json none;
  read_.insert(key);
  const auto at = config_.find(key);
  return at == config_.end() ? none : *at;
}

std::int64_t ConfigReader::positive(const char* key, std::int64_t maximum) {
  const Json& found = value(key);
  if (found.is_number_unsigned() && found.get<std::uint64_t>() >= 1 &&
      found.get<std::uint64_t>() <= static_cast<std::uint64_t>(maximum))
    return found.get<std::int64_t>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a whole number from 1 to " + std::to_string(maximum));
  return 1;
}

std::int64_t ConfigReader::positive_or(const char* key, std::int64_t fallback, std::int64_t maximum) {
  return has(key) ? positive(key, maximum) : fallback;
}

std::int64_t ConfigReader::positive(std::initializer_list<const char*> keys, std::int64_t maximum) {
  for (const char* key : keys)
    if (has(key)) return positive(key, maximum);
  return positive(*keys.begin(), maximum);
}

double ConfigReader::real_or(const char* key, double fallback) {
  const Json& found = value(key);
  if (found.is_null()) return fallback;
  if (found.is_number() && std::isfinite(found.get<double>()) && found.get<double>() > 0.0) return found.get<double>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a number above 0");
  return fallback;
}

bool ConfigReader::flag_or(const char* key, bool fallback) {
  const Json& found = value(key);
  if (found.is_null()) return fallback;
  if (found.is_boolean()) return found.get<bool>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected true or false");
  return fallback;
}

std::string ConfigReader::text_or(const char* key, const std::string& fallback) {
  const Json& found = value(key);
  if (found.is_null()) return fallback;
  if (found.is_string()) return found.get<std::string>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a text");
  return fallback;
}

void ConfigReader::finish() {
  for (const Neutral& setting : kMustBeNeutral)
    if (has(setting.key) && !read_.count(setting.key) && !is_neutral(config_[setting.key], setting.value))
      not_understood_value(setting.key);
  if (has("layer_types") && !read_.count("layer_types") && !all_full_attention(config_["layer_types"]))
    not_understood_value("layer_types");
  if (!wrong_.empty()) throw Error(ErrorCode::BadFormat, "'" + path_ + "' cannot be right: " + joined(wrong_) + ".");
  if (!not_understood_.empty())
    throw Error(ErrorCode::Unsupported,
                "'" + path_ + "' asks for what this program does not compute: " + joined(not_understood_) +
                    ". Running it without would give wrong numbers, so it is refused.");
}

void read_sizes(ConfigReader& reader, ArchitectureSpec& spec, std::int64_t default_head_dim) {
  spec.hidden_size = reader.positive("hidden_size", kMaxExtent);
  spec.layers = reader.positive("num_hidden_layers", kMaxLayers);
  spec.heads = reader.positive("num_attention_heads", kMaxExtent);
  spec.kv_heads = reader.positive_or("num_key_value_heads", spec.heads, kMaxExtent);
  if (!reader.has("head_dim") && default_head_dim == 0 && spec.hidden_size % spec.heads != 0)
    reader.wrong("num_attention_heads " + std::to_string(spec.heads) + " does not divide hidden_size " +
                 std::to_string(spec.hidden_size));
  const std::int64_t share = std::max<std::int64_t>(1, spec.hidden_size / spec.heads);
  spec.head_dim = reader.positive_or("head_dim", default_head_dim > 0 ? default_head_dim : share, kMaxExtent);
  spec.vocab_size = reader.positive("vocab_size", kMaxExtent);
  spec.max_context = reader.positive_or("max_position_embeddings", 2048, std::int64_t{1} << 26);
}

void check_heads(ConfigReader& reader, const ArchitectureSpec& spec) {
  if (spec.heads % spec.kv_heads != 0)
    reader.wrong("num_key_value_heads " + std::to_string(spec.kv_heads) + " does not divide num_attention_heads " +
                 std::to_string(spec.heads));
  if (spec.position == PositionKind::Rope && spec.head_dim % 2 != 0)
    reader.wrong("head_dim " + std::to_string(spec.head_dim) + " is odd; rotary embedding needs pairs");
}

ActivationKind read_activation(ConfigReader& reader, const char* key, const std::string& fallback) {
  const std::string name = reader.text_or(key, fallback);
  if (name == "silu" || name == "swish") return ActivationKind::Silu;
  if (name == "gelu") return ActivationKind::Gelu;
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") return ActivationKind::GeluTanh;
  if (name == "relu") return ActivationKind::Relu;
  reader.not_understood_value(key);
  return ActivationKind::Silu;
}

void read_sliding_layers(ConfigReader& reader, ArchitectureSpec& spec, bool (*slides)(std::int64_t, std::int64_t),
                         std::int64_t period) {
  spec.sliding_layers.clear();
  const Json& types = reader.value("layer_types");
  if (!types.is_null() && (!types.is_array() || static_cast<std::int64_t>(types.size()) != spec.layers)) {
    reader.wrong("layer_types is " + reader.value_text("layer_types") + ", expected one entry for each of " +
                 std::to_string(spec.layers) + " layers");
    return;
  }
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    if (types.is_null()) {
      spec.sliding_layers.push_back(slides(layer, period));
      continue;
    }
    const Json& type = types[static_cast<std::size_t>(layer)];
    if (type != "sliding_attention" && type != "full_attention") {
      reader.not_understood("layer_types has " + type.dump(-1, ' ', false, Json::error_handler_t::replace));
      return;
    }
    spec.sliding_layers.push_back(type == "sliding_attention");
  }
}

}  // namespace qs
