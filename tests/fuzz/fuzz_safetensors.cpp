#include "backend/formats/safetensors.h"
#include "backend/types/error.h"
#include "tests/fuzz/decode.h"
#include "tests/fuzz/readers.h"

namespace qs::fuzz {

void safetensors(Input input) {
  try {
    decode_ends(read_safetensors(MappedFile::in_memory({input.begin(), input.end()}, "fuzz.safetensors")));
  } catch (const Error&) {
  }
}

}  // namespace qs::fuzz
