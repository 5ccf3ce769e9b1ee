#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "backend/formats/tensor_table.h"
#include "backend/model/family.h"
#include "backend/model/model.h"
#include "backend/model/quantized_checkpoint.h"

namespace qs {

/// A model that was found and described, with its weights mapped but not yet converted.
struct ModelSource {
  ModelInfo info;
  ArchitectureSpec spec;
  WeightNames names;
  TensorTable tensors;
  std::optional<QuantizationScheme> quantization;  ///< of linears that lie as codes
  std::shared_ptr<const Tokenizer> tokenizer;      ///< null when there is none beside the weights
};

/// One way a model lies on disk. A new format is a line in model_formats().
struct ModelFormat {
  const char* name;  ///< "Hugging Face folder"
  bool (*recognizes)(const std::filesystem::path& path);
  void (*open)(const std::filesystem::path& path,
               ModelSource& source);  ///< fills all but info.name, path, format, fingerprint
};
const std::vector<ModelFormat>& model_formats();

/// Describes the model and checks that every tensor is there with the shape that the description asks for.
/// @throws Error as Model::load
ModelSource open_model(const std::filesystem::path& path);

/// Converts the weights to the compute type, one job step a tensor.
/// @throws Error BadFormat naming a tensor and how many of its values are NaN or infinite
std::shared_ptr<const DecoderWeights> load_weights(const ModelSource& source, const LoadOptions& options,
                                                   const JobContext& job);

/// Bytes of one value of a compute type. @throws Error InvalidArgument for an unknown one
std::int64_t compute_type_bytes(const std::string& dtype);

}  // namespace qs
