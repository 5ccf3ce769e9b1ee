#include "backend/formats/llama2c.h"
#include "backend/types/error.h"
#include "tests/fuzz/decode.h"
#include "tests/fuzz/readers.h"

namespace qs::fuzz {

void llama2c(Input input) {
  try {
    decode_ends(read_llama2c(MappedFile::in_memory({input.begin(), input.end()}, "fuzz.bin")).tensors);
  } catch (const Error&) {
  }
}

}  // namespace qs::fuzz
