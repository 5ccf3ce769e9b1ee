#include "backend/model/family.h"

#include <nlohmann/json.hpp>

#include "backend/types/error.h"

namespace qs {
namespace {

std::string known_architectures() {
  std::string text;
  for (const Family& family : families()) text += (text.empty() ? "" : ", ") + family.architecture;
  return text;
}

/// Architectures that are known and not computed.
struct Refusal {
  const char* architecture;
  const char* reason;
};
constexpr Refusal kRefused[] = {
    {"BloomForCausalLM",
     "its attention adds ALiBi biases that grow with distance, which KV caches here do not compute"},
    {"MptForCausalLM", "its attention adds ALiBi biases that grow with distance, which KV caches here do not compute"},
    {"GPTJForCausalLM", "it rotates neighbouring channels, not halves"},
    {"Qwen2MoeForCausalLM", "it has shared experts beside the routed ones"},
    {"Qwen3MoeForCausalLM", "its experts have another width and weighting than Mixtral's"},
    {"MambaForCausalLM", "it has no attention"},
    {"DeepseekV2ForCausalLM", "its keys and values are compressed into a latent vector"},
    {"DeepseekV3ForCausalLM", "its keys and values are compressed into a latent vector"},
};

std::string text_of(const nlohmann::json& config, const char* key) {
  const auto at = config.find(key);
  return at != config.end() && at->is_string() ? at->get<std::string>() : std::string();
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      llama_family(), mistral_family(), mixtral_family(),     qwen2_family(),  qwen3_family(),
      gemma_family(), gemma2_family(),  gemma3_text_family(), gemma3_family(), phi3_family(),
      opt_family(),   gpt2_family(),    gpt_neox_family(),    falcon_family(),
  };
  return all;
}

const Family& family_of(const nlohmann::json& config, const std::string& path) {
  const auto at = config.find("architectures");
  const bool named = at != config.end() && at->is_array() && !at->empty() && at->front().is_string();
  const std::string type = text_of(config, "model_type");
  if (!named) {
    for (const Family& family : families())
      if (!type.empty() && family.model_type == type) return family;
    throw Error(ErrorCode::BadFormat,
                "'" + path + "' names no architecture: expected \"architectures\": [\"...\"]" +
                    (type.empty() ? std::string() : ", and its model_type '" + type + "' is not known either") +
                    ". Known are " + known_architectures() + ".");
  }
  const std::string name = at->front().get<std::string>();
  for (const Family& family : families())
    if (family.architecture == name) return family;
  std::string reason;
  for (const Refusal& refusal : kRefused)
    if (name == refusal.architecture) reason = std::string(": ") + refusal.reason;
  throw Error(ErrorCode::Unsupported, "'" + path + "' has the architecture '" + name + "'" +
                                          (type.empty() ? std::string() : " (model_type '" + type + "')") +
                                          ", which is not " + (reason.empty() ? "known" : "computed") + reason +
                                          ". Known are " + known_architectures() + ".");
}

WeightNames names_in(const Family& family, const ArchitectureSpec& spec,
                     const std::function<bool(const std::string&)>& has_tensor) {
  const WeightNames usual = family.names(spec);
  for (const std::string& prefix : family.prefixes) {
    WeightNames names = with_prefix(usual, family.prefixes.front(), prefix);
    if (has_tensor(names.embedding.name)) return names;
  }
  return usual;
}

}  // namespace qs
