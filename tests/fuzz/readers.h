#pragma once

#include <cstddef>
#include <span>

namespace qs::fuzz {

// One function a reader: reads `input` as a file of that kind and uses what was read the way the program does. Refusing
// with qs::Error is right; anything else that ends the call is a finding.
using Input = std::span<const std::byte>;
void gguf(Input input);
void safetensors(Input input);
void llama2c(Input input);
void tokenizer_json(Input input);
void sentencepiece(Input input);

}  // namespace qs::fuzz
