#include "backend/formats/gguf.h"
#include "backend/types/error.h"
#include "tests/fuzz/decode.h"
#include "tests/fuzz/readers.h"

namespace qs::fuzz {

void gguf(Input input) {
  try {
    const GgufFile file = GgufFile::read(MappedFile::in_memory({input.begin(), input.end()}, "fuzz.gguf"));
    for (const auto& [key, value] : file.metadata()) {
      try {
        if (!value.is_array) {
          if (value.type == GgufType::Text) {
            (void)file.text(key)->size();
          } else if (value.type == GgufType::Bool) {
            (void)file.flag(key);
          } else {
            (void)file.real(key);
            (void)file.integer(key);
          }
        } else if (value.type == GgufType::Text) {
          std::size_t bytes = 0;
          const auto texts = file.texts(key);
          for (const std::string_view text : *texts)
            for (const char c : text) bytes += static_cast<unsigned char>(c) > 0x7f;
          (void)bytes;
        } else if (value.count < 4096) {
          if (value.type != GgufType::Bool) (void)file.reals(key);
          (void)file.integers(key);
        }
      } catch (const Error&) {
      }
    }
    decode_ends(file.tensors());
  } catch (const Error&) {
  }
}

}  // namespace qs::fuzz
