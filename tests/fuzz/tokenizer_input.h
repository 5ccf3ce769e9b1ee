#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"
#include "tests/fuzz/readers.h"

namespace qs::fuzz {

/// A folder of this process that holds `input` under `name`; tokenizers look for files beside theirs.
inline std::filesystem::path write_input(Input input, const char* name) {
  static const std::filesystem::path folder = [] {
    auto made = std::filesystem::temp_directory_path() / ("quantoscope-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(made);
    std::atexit([] {
      std::error_code ignored;
      std::filesystem::remove_all(
          std::filesystem::temp_directory_path() / ("quantoscope-fuzz-" + std::to_string(::getpid())), ignored);
    });
    return made;
  }();
  const auto path = folder / name;
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
  return path;
}

/// Encodes texts and decodes ids; whatever ids a tokenizer gives, it must take back.
inline void use(const Tokenizer& tokenizer) {
  for (const char* text :
       {"", "Once upon a time", "  a\n\tb ", "\xe2\x96\x81\xc3\xa9\xf0\x9f\x98\x80 1234", "<s></s>"}) {
    try {
      const std::vector<std::int64_t> ids = tokenizer.encode(text);
      (void)tokenizer.decode(ids);
      for (const std::int64_t id : ids) (void)(tokenizer.token_bytes(id) + tokenizer.token_text(id));
    } catch (const Error&) {
    }
  }
  for (const std::int64_t id : {std::int64_t{0}, std::int64_t{3}, tokenizer.vocab_size() - 1}) {
    try {
      (void)tokenizer.decode({id, id});
    } catch (const Error&) {
    }
  }
}

}  // namespace qs::fuzz
