#pragma once

#include <cstdint>
#include <filesystem>

#include "backend/formats/tensor_table.h"

namespace qs {

/// The header of a llama2.c file of version 0 (seven int32, no magic number).
struct Llama2cHeader {
  std::int64_t hidden_size = 0, intermediate_size = 0, layers = 0, heads = 0, kv_heads = 0, vocab_size = 0,
               max_context = 0;
  bool shared_classifier = true;  ///< stored as a positive vocab_size
  std::int64_t head_dim() const { return hidden_size / heads; }
};

struct Llama2cFile {
  Llama2cHeader header;
  /// f32, under the names that Hugging Face gives a Llama. q_proj and k_proj are copied with each head's rows reordered
  /// from interleaved rotary pairs (2i, 2i + 1) to half-split ones (i, i + head_dim / 2); the rest is mapped, and the
  /// file's rotary tables are skipped.
  TensorTable tensors;
};

/// Reads and checks the header only. @throws Error NotFound, BadFormat (a value, what it must be; size of the file
/// against the size that the header needs), Unsupported (later versions)
Llama2cHeader read_llama2c_header(const std::filesystem::path& path);
Llama2cFile read_llama2c(const std::filesystem::path& path);

}  // namespace qs
