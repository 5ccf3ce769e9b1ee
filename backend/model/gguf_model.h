#pragma once

#include "backend/model/model_source.h"

namespace qs {

class GgufFile;

/// The description that a GGUF file gives in its metadata.
/// @throws Error Unsupported (an architecture or a setting that is not computed, by name), BadFormat (a key that is
/// missing or impossible)
ArchitectureSpec read_gguf_spec(const GgufFile& file);

/// Where llama.cpp's conversion puts the weights of a model of this description.
WeightNames gguf_weight_names(const GgufFile& file, const ArchitectureSpec& spec);

/// Opens a .gguf file: description, names and tensors. The vocabulary inside is read with the tokenizers.
void open_gguf(const std::filesystem::path& path, ModelSource& source);

}  // namespace qs
