#include "backend/tokenizer/hf_tokenizer.h"
#include "tests/fuzz/tokenizer_input.h"

namespace qs::fuzz {

void tokenizer_json(Input input) {
  try {
    use(*load_hf_tokenizer(write_input(input, "tokenizer.json")));
  } catch (const Error&) {
  }
}

}  // namespace qs::fuzz
