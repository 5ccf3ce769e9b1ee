#include "backend/tokenizer/sentencepiece_tokenizer.h"
#include "tests/fuzz/tokenizer_input.h"

namespace qs::fuzz {

void sentencepiece(Input input) {
  try {
    use(*load_sentencepiece_tokenizer(write_input(input, "tokenizer.model")));
  } catch (const Error&) {
  }
}

}  // namespace qs::fuzz
