#include "backend/model/gguf_model.h"

#include <cmath>

#include "backend/formats/gguf.h"
#include "backend/formats/printable.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 22;
constexpr std::int64_t kMaxContext = std::int64_t{1} << 26;
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxExperts = 256;

/// Metadata under "<architecture>.".
class Settings {
 public:
  explicit Settings(const GgufFile& file) : file_(file) {
    const auto name = file.text("general.architecture");
    if (!name) throw Error(ErrorCode::BadFormat, "'" + file.path() + "' has no general.architecture in its metadata.");
    architecture_ = printable(*name);
  }

  const GgufFile& file() const { return file_; }
  const std::string& architecture() const { return architecture_; }
  std::string key(const std::string& name) const { return architecture_ + "." + name; }
  bool has(const std::string& name) const { return file_.find(key(name)) != nullptr; }
  bool has_tensor(const std::string& name) const { return file_.tensors().find(name) != nullptr; }

  std::int64_t positive(const std::string& name, std::int64_t maximum) const {
    const auto value = file_.integer(key(name));
    if (!value) throw Error(ErrorCode::BadFormat, "'" + file_.path() + "' has no " + key(name) + " in its metadata.");
    return in_range(name, *value, maximum);
  }
  std::int64_t positive_or(const std::string& name, std::int64_t fallback, std::int64_t maximum) const {
    const auto value = file_.integer(key(name));
    return value ? in_range(name, *value, maximum) : fallback;
  }
  double real_or(const std::string& name, double fallback) const {
    const auto value = file_.real(key(name));
    if (!value) return fallback;
    if (!std::isfinite(*value) || *value <= 0.0)
      wrong(key(name) + " is " + std::to_string(*value) + ", expected a number above 0");
    return *value;
  }
  bool flag_or(const std::string& name, bool fallback) const { return file_.flag(key(name)).value_or(fallback); }
  std::string text_or(const std::string& name, const std::string& fallback) const {
    const auto value = file_.text(key(name));
    return value ? printable(*value) : fallback;
  }

  [[noreturn]] void wrong(const std::string& what) const {
    throw Error(ErrorCode::BadFormat, "'" + file_.path() + "' cannot be right: " + what + ".");
  }
  [[noreturn]] void not_understood(const std::string& what) const {
    throw Error(ErrorCode::Unsupported, "'" + file_.path() + "' asks for what this program does not compute: " + what +
                                            ". Running it without would give wrong numbers, so it is refused.");
  }

 private:
  std::int64_t in_range(const std::string& name, std::int64_t value, std::int64_t maximum) const {
    if (value < 1 || value > maximum)
      wrong(key(name) + " is " + std::to_string(value) + ", expected a whole number from 1 to " +
            std::to_string(maximum));
    return value;
  }

  const GgufFile& file_;
  std::string architecture_;
};

/// Settings of relatives of these architectures that change what is computed, with the value that does not.
struct Neutral {
  const char* name;
  double value;
};
constexpr Neutral kMustBeNeutral[] = {
    {"embedding_scale", 1},       {"residual_scale", 1},           {"logit_scale", 1},
    {"attention.clamp_kqv", 0},   {"attention.max_alibi_bias", 0}, {"expert_shared_count", 0},
    {"attention.q_lora_rank", 0}, {"attention.kv_lora_rank", 0},   {"leading_dense_block_count", 0},
    {"expert_weights_scale", 1},  {"rope.scale_linear", 1},
};

void refuse_unknown_settings(const Settings& settings) {
  for (const Neutral& setting : kMustBeNeutral) {
    const auto value = settings.file().real(settings.key(setting.name));
    if (value && *value != setting.value)
      settings.not_understood(settings.key(setting.name) + " = " + std::to_string(*value));
  }
  if (!settings.flag_or("attention.causal", true))
    settings.not_understood(settings.key("attention.causal") + " = false");
  if (settings.has("rope.dimension_sections")) settings.not_understood(settings.key("rope.dimension_sections"));
}

/// The factors of a tensor like rope_freqs.weight; empty when it is not there.
std::vector<double> frequency_factors(const Settings& settings, const std::string& name, std::int64_t count) {
  const StoredTensor* tensor = settings.file().tensors().find(name);
  if (!tensor) return {};
  if (tensor->size() != count || tensor->rows() != 1 || !is_float(tensor->type))
    settings.wrong("tensor " + name + " has the shape " + shape_text(tensor->shape) + ", expected [" +
                   std::to_string(count) + "]");
  const std::vector<float> values = to_f32(*tensor);
  for (const float value : values)
    if (!std::isfinite(value) || value <= 0.0f)
      settings.wrong("tensor " + name + " holds a factor that is not above 0");
  return {values.begin(), values.end()};
}

RopeSpec read_rope(const Settings& settings, ArchitectureSpec& spec) {
  RopeSpec rope;
  rope.theta = settings.real_or("rope.freq_base", 10000.0);
  const std::int64_t rotary = settings.positive_or("rope.dimension_count", spec.head_dim, kMaxExtent);
  if (rotary > spec.head_dim || rotary % 2 != 0)
    settings.wrong(settings.key("rope.dimension_count") + " is " + std::to_string(rotary) +
                   ", expected an even number up to " + std::to_string(spec.head_dim));
  rope.rotary_dim = rotary == spec.head_dim ? 0 : rotary;

  const std::vector<double> longer = frequency_factors(settings, "rope_factors_long.weight", rotary / 2),
                            shorter = frequency_factors(settings, "rope_factors_short.weight", rotary / 2),
                            always = frequency_factors(settings, "rope_freqs.weight", rotary / 2);
  if (longer.empty() != shorter.empty())
    settings.wrong("only one of rope_factors_long.weight and rope_factors_short.weight is there");
  const std::string type = settings.text_or("rope.scaling.type", "none");
  if (!longer.empty() || !always.empty()) {
    if (type != "none" && type != "longrope")
      settings.not_understood(settings.key("rope.scaling.type") + " = " + type +
                              " together with a tensor of frequency factors");
    rope.scaling = RopeScaling::LongRope;
    rope.original_context = settings.positive_or("rope.scaling.original_context_length", spec.max_context, kMaxContext);
    rope.factor = static_cast<double>(spec.max_context) / static_cast<double>(rope.original_context);
    rope.short_factor = longer.empty() ? always : shorter;
    rope.long_factor = longer.empty() ? always : longer;
    rope.attention_factor = longer.empty() ? 1.0 : settings.real_or("rope.scaling.attn_factor", 1.0);
    return rope;
  }
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn") settings.not_understood(settings.key("rope.scaling.type") + " = " + type);
  rope.factor = settings.real_or("rope.scaling.factor", 1.0);
  rope.original_context = settings.positive_or("rope.scaling.original_context_length", spec.max_context, kMaxContext);
  if (type == "linear") {
    rope.scaling = RopeScaling::Linear;
    return rope;
  }
  rope.scaling = RopeScaling::Yarn;
  rope.beta_fast = settings.real_or("rope.scaling.yarn_beta_fast", 32.0);
  rope.beta_slow = settings.real_or("rope.scaling.yarn_beta_slow", 1.0);
  const double usual = rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
  rope.attention_factor = usual * settings.real_or("rope.scaling.attn_factor", 1.0);
  return rope;
}

/// What every architecture has.
ArchitectureSpec read_common(const Settings& settings) {
  ArchitectureSpec spec;
  spec.layers = settings.positive("block_count", kMaxLayers);
  spec.hidden_size = settings.positive("embedding_length", kMaxExtent);
  spec.intermediate_size = settings.positive("feed_forward_length", kMaxExtent);
  spec.heads = settings.positive("attention.head_count", kMaxExtent);
  spec.kv_heads = settings.positive_or("attention.head_count_kv", spec.heads, kMaxExtent);
  spec.max_context = settings.positive("context_length", kMaxContext);
  if (!settings.has("attention.key_length") && spec.hidden_size % spec.heads != 0)
    settings.wrong(settings.key("attention.head_count") + " " + std::to_string(spec.heads) + " does not divide " +
                   settings.key("embedding_length") + " " + std::to_string(spec.hidden_size));
  spec.head_dim = settings.positive_or("attention.key_length", std::max<std::int64_t>(1, spec.hidden_size / spec.heads),
                                       kMaxExtent);
  if (settings.positive_or("attention.value_length", spec.head_dim, kMaxExtent) != spec.head_dim)
    settings.not_understood("values of another width than keys");
  if (spec.heads % spec.kv_heads != 0)
    settings.wrong(settings.key("attention.head_count_kv") + " " + std::to_string(spec.kv_heads) + " does not divide " +
                   settings.key("attention.head_count") + " " + std::to_string(spec.heads));
  if (spec.head_dim % 2 != 0)
    settings.wrong("head_dim " + std::to_string(spec.head_dim) + " is odd; rotary embedding needs pairs");
  const StoredTensor& embedding = settings.file().tensors().at("token_embd.weight");
  if (embedding.shape.size() != 2 || embedding.shape[0] > kMaxExtent)
    settings.wrong("tensor token_embd.weight has the shape " + shape_text(embedding.shape));
  spec.vocab_size = embedding.shape[0];
  spec.tied_embeddings = !settings.has_tensor("output.weight");

  const auto any = [&](const char* first, const char* second) {
    return settings.has_tensor(first) || settings.has_tensor(second);
  };
  spec.query_bias = any("blk.0.attn_q.bias", "blk.0.attn_qkv.bias");
  spec.key_bias = any("blk.0.attn_k.bias", "blk.0.attn_qkv.bias");
  spec.value_bias = any("blk.0.attn_v.bias", "blk.0.attn_qkv.bias");
  spec.output_bias = settings.has_tensor("blk.0.attn_output.bias");
  spec.mlp_bias = settings.has_tensor("blk.0.ffn_up.bias");
  spec.head_bias = settings.has_tensor("output.bias");
  return spec;
}

void rms_norm(const Settings& settings, ArchitectureSpec& spec) {
  spec.norm_eps = settings.real_or("attention.layer_norm_rms_epsilon", 1e-5);
}

void layer_norm(const Settings& settings, ArchitectureSpec& spec, ActivationKind activation) {
  spec.norm = NormKind::LayerNorm;
  spec.norm_eps = settings.real_or("attention.layer_norm_epsilon", 1e-5);
  spec.activation = activation;
  spec.gated_mlp = false;
}

void read_llama(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "LlamaForCausalLM";
  rms_norm(settings, spec);
  const auto experts = settings.file().integer(settings.key("expert_count"));
  if (!experts || *experts == 0) return;
  spec.architecture = "MixtralForCausalLM";
  spec.experts = settings.positive("expert_count", kMaxExperts);
  spec.experts_per_token = settings.positive("expert_used_count", spec.experts);
}

void read_qwen2(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "Qwen2ForCausalLM";
  rms_norm(settings, spec);
}

void read_qwen3(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "Qwen3ForCausalLM";
  rms_norm(settings, spec);
  spec.query_key_norm = true;
}

/// The norms are stored as 1 + weight, so that they are plain here.
void read_gemma(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "GemmaForCausalLM";
  rms_norm(settings, spec);
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden_size));
  spec.activation = ActivationKind::GeluTanh;
}

/// A period, of which the last layer sees all tokens, or a flag for each layer.
void read_sliding_layers(const Settings& settings, ArchitectureSpec& spec, std::int64_t usual_period) {
  const std::string key = settings.key("attention.sliding_window_pattern");
  const GgufValue* pattern = settings.file().find(key);
  if (pattern && pattern->is_array) {
    const auto flags = settings.file().integers(key);
    for (const std::int64_t slides : *flags) spec.sliding_layers.push_back(slides != 0);
    if (static_cast<std::int64_t>(spec.sliding_layers.size()) != spec.layers)
      settings.wrong(key + " has " + std::to_string(spec.sliding_layers.size()) + " entries for " +
                     std::to_string(spec.layers) + " layers");
    return;
  }
  const std::int64_t period = settings.positive_or("attention.sliding_window_pattern", usual_period, kMaxLayers);
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) spec.sliding_layers.push_back((layer + 1) % period != 0);
}

/// Gemma 2 and 3. Where the scale of scores is not in the file, the largest model of each generation scales by the
/// width of a head of the hidden state, the others by head_dim. @param period  every period-th layer sees all tokens
void read_later_gemma(const Settings& settings, ArchitectureSpec& spec, std::int64_t largest_layers,
                      std::int64_t period) {
  spec.output_norms = true;
  if (spec.layers == largest_layers)
    spec.score_scale = 1.0 / std::sqrt(static_cast<double>(spec.hidden_size) / static_cast<double>(spec.heads));
  spec.sliding_window = settings.positive_or("attention.sliding_window", 4096, kMaxContext);
  read_sliding_layers(settings, spec, period);
}

void read_gemma2(const Settings& settings, ArchitectureSpec& spec) {
  read_gemma(settings, spec);
  spec.architecture = "Gemma2ForCausalLM";
  read_later_gemma(settings, spec, 46, 2);
  spec.score_softcap = settings.real_or("attn_logit_softcapping", 50.0);
  spec.logit_softcap = settings.real_or("final_logit_softcapping", 30.0);
}

void read_gemma3(const Settings& settings, ArchitectureSpec& spec) {
  read_gemma(settings, spec);
  spec.architecture = "Gemma3ForCausalLM";
  spec.query_key_norm = true;
  read_later_gemma(settings, spec, 62, 6);
  spec.rope.theta = settings.real_or("rope.freq_base", 1e6);
  spec.sliding_rope.emplace();
  spec.sliding_rope->theta = settings.real_or("rope.freq_base_swa", 10000.0);
}

void read_phi3(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "Phi3ForCausalLM";
  rms_norm(settings, spec);
  spec.mlp_bias = false;
  const auto window = settings.file().integer(settings.key("attention.sliding_window"));
  if (window && *window > 0) spec.sliding_window = settings.positive("attention.sliding_window", kMaxContext);
}

void read_gpt2(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "GPT2LMHeadModel";
  layer_norm(settings, spec, ActivationKind::GeluTanh);
  spec.position = PositionKind::Learned;
  spec.rope.theta = 0.0;
}

void read_gpt_neox(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "GPTNeoXForCausalLM";
  layer_norm(settings, spec, ActivationKind::Gelu);
  spec.parallel_residual = settings.flag_or("use_parallel_residual", true);
}

void read_falcon(const Settings& settings, ArchitectureSpec& spec) {
  spec.architecture = "FalconForCausalLM";
  layer_norm(settings, spec, ActivationKind::Gelu);
  spec.parallel_residual = true;
  spec.shared_norm = !settings.has_tensor("blk.0.attn_norm_2.weight");
}

struct Architecture {
  const char* id;  ///< general.architecture
  void (*read)(const Settings& settings, ArchitectureSpec& spec);
};
constexpr Architecture kArchitectures[] = {
    {"llama", &read_llama},      {"qwen2", &read_qwen2},   {"qwen3", &read_qwen3}, {"gemma", &read_gemma},
    {"gemma2", &read_gemma2},    {"gemma3", &read_gemma3}, {"phi3", &read_phi3},   {"gpt2", &read_gpt2},
    {"gptneox", &read_gpt_neox}, {"falcon", &read_falcon},
};

/// Query, key and value one below the other in one tensor.
void fused_attention(WeightNames& names, const ArchitectureSpec& spec) {
  const std::int64_t query = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  const auto rows = [&names](LinearKind kind, std::int64_t offset, std::int64_t count) {
    WeightPlace place = weight_place("blk.{}.attn_qkv");
    place.weight.rows = place.bias.rows = {.offset = offset, .block = count};
    names.linear(kind) = place;
  };
  rows(LinearKind::Q, 0, query);
  rows(LinearKind::K, query, kv);
  rows(LinearKind::V, query + kv, kv);
}

/// Newer files have one tensor [experts, rows, columns] a layer, older ones a tensor an expert.
void expert_names(WeightNames& names, const ArchitectureSpec& spec, bool stacked) {
  names.router = weight_place("blk.{}.ffn_gate_inp");
  const auto place = [&](LinearKind kind, const std::string& stem, std::int64_t rows) {
    names.linear(kind) = weight_place(stem + (stacked ? "_exps" : ".{e}"));
    if (stacked) names.linear(kind).weight.rows = {.block = rows, .expert_stride = rows};
  };
  place(LinearKind::Gate, "blk.{}.ffn_gate", spec.intermediate_size);
  place(LinearKind::Up, "blk.{}.ffn_up", spec.intermediate_size);
  place(LinearKind::Down, "blk.{}.ffn_down", spec.hidden_size);
}

}  // namespace

ArchitectureSpec read_gguf_spec(const GgufFile& file) {
  const Settings settings(file);
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    known += (known.empty() ? "" : ", ") + std::string(architecture.id);
    if (settings.architecture() != architecture.id) continue;
    refuse_unknown_settings(settings);
    ArchitectureSpec spec = read_common(settings);
    spec.rope = read_rope(settings, spec);
    architecture.read(settings, spec);
    spec.score_scale = settings.real_or("attention.scale", spec.score_scale);
    return spec;
  }
  throw Error(ErrorCode::Unsupported, "'" + file.path() + "' has the architecture '" + settings.architecture() +
                                          "', which is not known. Known in GGUF files are " + known + ".");
}

WeightNames gguf_weight_names(const GgufFile& file, const ArchitectureSpec& spec) {
  const std::string id = Settings(file).architecture();
  const std::string layer = "blk.{}.";
  WeightNames names;
  names.embedding = {"token_embd.weight"};
  names.positions = {"position_embd.weight"};
  names.final_norm = weight_place("output_norm");
  names.lm_head = weight_place("output");
  names.input_norm = weight_place(layer + "attn_norm");
  names.mlp_norm = weight_place(layer + "ffn_norm");
  names.query_norm = weight_place(layer + "attn_q_norm");
  names.key_norm = weight_place(layer + "attn_k_norm");
  names.attention_output_norm = weight_place(layer + "post_attention_norm");
  names.mlp_output_norm = weight_place(layer + "post_ffw_norm");
  names.linear(LinearKind::Q) = weight_place(layer + "attn_q");
  names.linear(LinearKind::K) = weight_place(layer + "attn_k");
  names.linear(LinearKind::V) = weight_place(layer + "attn_v");
  names.linear(LinearKind::O) = weight_place(layer + "attn_output");
  names.linear(LinearKind::Gate) = weight_place(layer + "ffn_gate");
  names.linear(LinearKind::Up) = weight_place(layer + "ffn_up");
  names.linear(LinearKind::Down) = weight_place(layer + "ffn_down");
  names.ignored_beginnings = {"rope_freqs.", "rope_factors_long.", "rope_factors_short."};

  if (file.tensors().find("blk.0.attn_qkv.weight")) fused_attention(names, spec);
  if (spec.experts > 0) expert_names(names, spec, file.tensors().find("blk.0.ffn_gate_exps.weight") != nullptr);
  if (id == "llama") {
    const auto pair = [&names](LinearKind kind, std::int64_t heads) {
      names.linear(kind).weight.paired_heads = names.linear(kind).bias.paired_heads = heads;
    };
    pair(LinearKind::Q, spec.heads);
    pair(LinearKind::K, spec.kv_heads);
  }
  if (id == "phi3") {
    const std::int64_t inner = spec.intermediate_size;
    names.linear(LinearKind::Gate) = names.linear(LinearKind::Up);
    names.linear(LinearKind::Gate).weight.rows = {.block = inner};
    names.linear(LinearKind::Up).weight.rows = {.offset = inner, .block = inner};
  }
  if (id == "falcon" && !spec.shared_norm) {
    names.input_norm = weight_place(layer + "attn_norm_2");
    names.mlp_norm = weight_place(layer + "attn_norm");
  }
  return names;
}

void open_gguf(const std::filesystem::path& path, ModelSource& source) {
  const GgufFile file = GgufFile::read(path);
  if (const auto parts = file.integer("split.count"); parts && *parts > 1)
    throw Error(ErrorCode::Unsupported, "'" + path.string() + "' is one of " + std::to_string(*parts) +
                                            " parts of a split model. Join them first: llama-gguf-split --merge " +
                                            path.filename().string() + " whole.gguf");
  source.spec = read_gguf_spec(file);
  source.names = gguf_weight_names(file, source.spec);
  source.tensors = file.tensors();
  source.info.bos_id = file.integer("tokenizer.ggml.bos_token_id").value_or(-1);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = file.integer(key); id && *id >= 0 && *id < source.spec.vocab_size)
      source.info.eos_ids.push_back(*id);
  if (!source.info.eos_ids.empty()) source.info.eos_id = source.info.eos_ids.front();
  source.info.fingerprint = source.tensors.header_sha256;
  source.info.path = path.string();
}

}  // namespace qs
