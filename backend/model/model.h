#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend/model/architecture_spec.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/types/job.h"
#include "backend/types/model_info.h"

namespace qs {

struct DecoderWeights;

struct LoadOptions {
  std::string dtype = "float32";  ///< compute type: float32, bfloat16, float16
  std::string device = "cpu";
};

/// A loaded model: description, weights, tokenizer. Immutable and shared; free of LibTorch for its users.
class Model {
 public:
  /// Opens a Hugging Face folder (or its config.json), a .gguf file, or a llama2.c .bin file with its
  /// tokenizer beside it.
  /// Memory is estimated first and refused when it does not fit.
  /// @throws Error NotFound, BadFormat, Unsupported or OutOfMemory, naming the file and what was expected
  static std::shared_ptr<const Model> load(const std::filesystem::path& path, const LoadOptions& options,
                                           const JobContext& job);

  Model(ModelInfo info, ArchitectureSpec spec, std::shared_ptr<const DecoderWeights> weights,
        std::shared_ptr<const Tokenizer> tokenizer, LoadOptions options);
  ~Model();

  const ModelInfo& info() const { return info_; }
  const ArchitectureSpec& spec() const { return spec_; }
  const DecoderWeights& weights() const { return *weights_; }
  const std::shared_ptr<const DecoderWeights>& shared_weights() const { return weights_; }
  /// @throws Error NotFound when the model came without a tokenizer
  const Tokenizer& tokenizer() const;
  bool has_tokenizer() const { return tokenizer_ != nullptr; }
  const LoadOptions& options() const { return options_; }
  std::int64_t weight_bytes() const;  ///< of all weights, mapped from the file or allocated

 private:
  ModelInfo info_;
  ArchitectureSpec spec_;
  std::shared_ptr<const DecoderWeights> weights_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  LoadOptions options_;
};

/// Reads only headers. @throws as Model::load
ModelInfo inspect_model(const std::filesystem::path& path);

/// @param context  tokens in the cache and in one forward pass
MemoryEstimate estimate_memory(const ModelInfo& info, const LoadOptions& options, std::int64_t context);

/// What to say about a loaded model that does not fit into memory beside its cache; empty when it does.
std::string memory_advice(const Model& model);

/// Bytes that can still be allocated: the smaller of free memory and the process's limit.
std::int64_t available_memory();

}  // namespace qs
