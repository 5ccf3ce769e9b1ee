#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"
#include "backend/model/family.h"

namespace qs {
namespace {

ArchitectureSpec read_phi3(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ArchitectureSpec spec;
  spec.architecture = "Phi3ForCausalLM";
  read_sizes(reader, spec);
  spec.intermediate_size = reader.positive("intermediate_size", kMaxExtent);
  spec.norm_eps = reader.real_or("rms_norm_eps", 1e-5);
  spec.tied_embeddings = reader.flag_or("tie_word_embeddings", false);
  spec.activation = read_activation(reader, "hidden_act", "silu");
  spec.sliding_window = reader.has("sliding_window") ? reader.positive("sliding_window", kMaxExtent) : 0;
  spec.rope = read_rope(reader, spec, {.yarn_is_longrope = true});
  check_heads(reader, spec);
  reader.finish();
  return spec;
}

/// Query, key and value are stored one below the other, and so are gate and up.
WeightNames phi3_names(const ArchitectureSpec& spec) {
  WeightNames names = llama_weight_names();
  const std::int64_t query = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  const auto rows = [&names](LinearKind kind, const std::string& stem, std::int64_t offset, std::int64_t count) {
    names.linear(kind) = weight_place("model.layers.{}." + stem);
    names.linear(kind).weight.rows = {.offset = offset, .block = count};
  };
  rows(LinearKind::Q, "self_attn.qkv_proj", 0, query);
  rows(LinearKind::K, "self_attn.qkv_proj", query, kv);
  rows(LinearKind::V, "self_attn.qkv_proj", query + kv, kv);
  rows(LinearKind::Gate, "mlp.gate_up_proj", 0, spec.intermediate_size);
  rows(LinearKind::Up, "mlp.gate_up_proj", spec.intermediate_size, spec.intermediate_size);
  return names;
}

}  // namespace

Family phi3_family() { return {"Phi3ForCausalLM", "phi3", &read_phi3, &phi3_names, {"model."}, "phi3"}; }

}  // namespace qs
