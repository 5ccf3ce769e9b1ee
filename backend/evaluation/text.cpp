#include <filesystem>
#include <fstream>
#include <sstream>

#include "backend/evaluation/evaluate.h"
#include "backend/formats/sha256.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {

EvalText read_text(const std::filesystem::path& path) {
  std::error_code problem;
  if (!std::filesystem::exists(path, problem))
    throw Error(ErrorCode::NotFound, "The text '" + path.string() + "' does not exist.");
  if (!std::filesystem::is_regular_file(path, problem)) {
    throw Error(ErrorCode::InvalidArgument, "'" + path.string() + "' is not a file; a plain UTF-8 text was expected.");
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file.good() && !file.eof()) throw Error(ErrorCode::Io, "The text '" + path.string() + "' cannot be read.");
  EvalText text;
  text.name = path.filename().string();
  text.text = std::move(content).str();
  if (text.text.empty())
    throw Error(ErrorCode::InvalidArgument, "The text '" + path.string() + "' is empty; a UTF-8 text was expected.");
  const std::size_t invalid = utf8::first_invalid(text.text);
  if (invalid != std::string_view::npos) {
    throw Error(ErrorCode::InvalidArgument, "The text '" + path.string() + "' is not UTF-8: byte " +
                                                std::to_string(invalid) +
                                                " begins no valid character. Convert it to UTF-8 first.");
  }
  text.sha256 = sha256_hex(text.text);
  return text;
}

}  // namespace qs
