#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backend/model/architecture_spec.h"
#include "backend/model/weight_places.h"

namespace qs {

/// How the configuration and the tensor names of one architecture map onto an ArchitectureSpec.
struct Family {
  std::string architecture;  ///< as in "architectures" of config.json
  std::string model_type;    ///< as in "model_type", for files that name no architecture
  /// @throws Error Unsupported listing every setting that is not understood; BadFormat for missing or impossible values
  ArchitectureSpec (*read_config)(const nlohmann::json& config, const std::string& path);
  /// Where the weights of a Hugging Face checkpoint lie.
  WeightNames (*names)(const ArchitectureSpec& spec);
  /// Beginnings that checkpoints in the wild have instead of the first one, which `names` uses.
  std::vector<std::string> prefixes;
  /// "general.architecture" of GGUF files of this family. A reader of another format fills an ArchitectureSpec from its
  /// own metadata and brings a WeightNames of its own (fused, stacked and permuted tensors are row patterns).
  std::string gguf_architecture;
};

/// Every family there is. A new one is a line here and a file beside family_llama.cpp.
const std::vector<Family>& families();

/// @throws Error Unsupported naming the architecture found and the known ones; BadFormat when config.json names none
const Family& family_of(const nlohmann::json& config, const std::string& path);

// One file a group of relatives.
Family llama_family();
Family mistral_family();
Family mixtral_family();
Family qwen2_family();
Family qwen3_family();
Family gemma_family();
Family gemma2_family();
Family gemma3_text_family();
Family gemma3_family();  ///< the text part of the multimodal checkpoints
Family phi3_family();
Family opt_family();
Family gpt2_family();
Family gpt_neox_family();
Family falcon_family();

/// The names of Llama, which Mistral, Qwen and Gemma share.
WeightNames llama_weight_names();

/// The names of `family` with the first prefix under which `has_tensor` finds the embedding; the usual ones when there
/// is none.
WeightNames names_in(const Family& family, const ArchitectureSpec& spec,
                     const std::function<bool(const std::string& name)>& has_tensor);

}  // namespace qs
