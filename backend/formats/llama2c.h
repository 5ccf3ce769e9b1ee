#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "backend/formats/mapped_file.h"
#include "backend/formats/tensor_table.h"

namespace qs {

/// The header of a llama2.c file. Version 0 is seven int32; versions 1 and 2 begin with "ak42", fill 256 bytes and have
/// the norms in front of the matrices; version 2 keeps the matrices as int8 codes with an f32 scale for each group.
struct Llama2cHeader {
  std::int64_t version = 0;
  std::int64_t hidden_size = 0, intermediate_size = 0, layers = 0, heads = 0, kv_heads = 0, vocab_size = 0,
               max_context = 0;
  bool shared_classifier = true;  ///< version 0 stores it as a positive vocab_size
  std::int64_t group_size = 0;    ///< of version 2: elements that share a scale
  std::int64_t head_dim() const { return hidden_size / heads; }
};

struct Llama2cFile {
  Llama2cHeader header;
  /// Under the names that Hugging Face gives a Llama, mapped. The heads of q_proj and k_proj have their rows as
  /// interleaved rotary pairs (2i, 2i + 1). The rotary tables of version 0 are skipped.
  TensorTable tensors;
};

/// Reads and checks the header only. @throws Error NotFound, BadFormat (a value, what it must be; size of the file
/// against the size that the header needs), Unsupported (later versions)
Llama2cHeader read_llama2c_header(const std::filesystem::path& path);
Llama2cFile read_llama2c(const std::filesystem::path& path);
Llama2cFile read_llama2c(std::shared_ptr<const MappedFile> file);

}  // namespace qs
