#include "backend/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "backend/tokenizer/gguf_tokenizer.h"
#include "backend/tokenizer/gpt2_tokenizer.h"
#include "backend/tokenizer/hf_tokenizer.h"
#include "backend/tokenizer/llama2c_tokenizer.h"
#include "backend/tokenizer/sentencepiece_tokenizer.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

/// Vocabulary size in the header of a llama2.c model: its sixth int32, negative when the embeddings are not tied.
std::int64_t llama2c_vocabulary(const fs::path& model) {
  std::array<std::int32_t, 7> header{};
  std::ifstream file(model, std::ios::binary);
  file.read(reinterpret_cast<char*>(header.data()), sizeof header);
  return file ? std::abs(static_cast<std::int64_t>(header[5])) : -1;
}

bool names_tokenizer(const fs::path& path) { return path.filename().string().rfind("tok", 0) == 0; }

std::shared_ptr<const Tokenizer> beside_llama2c(const fs::path& model) {
  std::vector<fs::path> candidates;
  const fs::path folder = model.has_parent_path() ? model.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    const std::string extension = path.extension().string();
    if (entry.is_regular_file() && names_tokenizer(path) && (extension == ".bin" || extension == ".model"))
      candidates.push_back(path);
  }
  if (candidates.empty()) {
    throw Error(ErrorCode::NotFound, "There is no tokenizer beside '" + model.string() +
                                         "': expected tokenizer.bin, tok*.bin or tokenizer.model in '" +
                                         folder.string() + "'.");
  }
  // tokenizer.bin before tok*.bin before *.model; of several the one whose vocabulary fits.
  std::sort(candidates.begin(), candidates.end(), [](const fs::path& a, const fs::path& b) {
    const auto rank = [](const fs::path& p) {
      return (p.extension() == ".bin" ? 0 : 2) + (p.stem() == "tokenizer" ? 0 : 1);
    };
    return std::pair(rank(a), a.string()) < std::pair(rank(b), b.string());
  });
  const std::int64_t wanted = llama2c_vocabulary(model);
  for (const fs::path& path : candidates) {
    if (candidates.size() == 1) return load_tokenizer(path);
    try {
      auto tokenizer = load_tokenizer(path);
      if (tokenizer->vocab_size() == wanted) return tokenizer;
    } catch (const Error&) {
      continue;  // another candidate may fit; the last error is not better than the message below
    }
  }
  throw Error(ErrorCode::NotFound, "None of the " + std::to_string(candidates.size()) + " tokenizers beside '" +
                                       model.string() + "' has the model's vocabulary of " + std::to_string(wanted) +
                                       " tokens.");
}

}  // namespace

std::vector<std::int64_t> Tokenizer::prefix_ids() const {
  if (!adds_bos() || bos_id() < 0) return {};
  return {bos_id()};
}

bool looks_like_markup(std::string_view token) {
  return token.size() > 2 &&
         ((token.front() == '<' && token.back() == '>') || (token.front() == '[' && token.back() == ']'));
}

void Tokenizer::set_special_tokens(std::vector<SpecialToken> tokens) {
  special_tokens_ = std::move(tokens);
  std::vector<std::pair<std::string, std::int32_t>> names;
  for (std::size_t i = 0; i < special_tokens_.size(); ++i)
    names.emplace_back(special_tokens_[i].name, static_cast<std::int32_t>(i));
  special_names_ = PieceTable(std::move(names));
}

std::vector<SpecialMatch> Tokenizer::find_special(std::string_view text) const {
  std::vector<SpecialMatch> matches;
  for (std::size_t at = 0; at < text.size() && !special_names_.empty();) {
    const auto [length, place] = special_names_.longest_prefix(text.substr(at));
    if (place >= 0) matches.push_back({at, &special_tokens_[static_cast<std::size_t>(place)]});
    at += std::max<std::size_t>(length, 1);
  }
  return matches;
}

void Tokenizer::check_text(std::string_view text) {
  const auto at = utf8::first_invalid(text);
  if (at == std::string_view::npos) return;
  throw Error(ErrorCode::InvalidArgument, "The text is not UTF-8: byte " + std::to_string(at) +
                                              " does not belong to a character. Convert the text to UTF-8.");
}

void Tokenizer::check_id(std::int64_t id) const {
  if (id >= 0 && id < vocab_size()) return;
  throw Error(ErrorCode::InvalidArgument, "Token id " + std::to_string(id) + " is outside the vocabulary of " +
                                              std::to_string(vocab_size()) + " tokens.");
}

std::vector<std::int64_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int64_t> ids = tokenizer.prefix_ids();
  const std::vector<std::int64_t> rest = tokenizer.encode(text);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

std::string StreamingDecoder::push(std::int64_t id) {
  std::string bytes = tokenizer_->token_bytes(id);
  if (bytes.empty()) return {};
  if (first_) {
    first_ = false;
    if (bytes[0] == ' ' && tokenizer_->decode({id}) == bytes.substr(1)) bytes.erase(0, 1);
  }
  pending_ += bytes;
  std::string released;
  std::size_t at = 0;
  while (at < pending_.size()) {
    std::size_t length = 0;
    const auto what = utf8::classify(pending_, at, length);
    if (what == utf8::Sequence::Incomplete) break;
    if (what == utf8::Sequence::Complete) {
      released.append(pending_, at, length);
    } else {
      released.append(utf8::kReplacement);
    }
    at += length;
  }
  pending_.erase(0, at);
  return released;
}

std::string StreamingDecoder::finish() {
  std::string rest = utf8::replace_invalid(pending_);
  pending_.clear();
  return rest;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& folder_or_file) {
  std::error_code failure;
  if (fs::is_directory(folder_or_file, failure)) {
    if (fs::exists(folder_or_file / "tokenizer.json")) return load_hf_tokenizer(folder_or_file / "tokenizer.json");
    if (fs::exists(folder_or_file / "tokenizer.model"))
      return load_sentencepiece_tokenizer(folder_or_file / "tokenizer.model");
    if (fs::exists(folder_or_file / "vocab.json") && fs::exists(folder_or_file / "merges.txt"))
      return load_gpt2_tokenizer(folder_or_file);
    throw Error(ErrorCode::NotFound, "There is no tokenizer in '" + folder_or_file.string() +
                                         "': expected tokenizer.json, tokenizer.model, or vocab.json and merges.txt.");
  }
  if (!fs::exists(folder_or_file, failure))
    throw Error(ErrorCode::NotFound, "'" + folder_or_file.string() + "' does not exist.");
  const std::string extension = folder_or_file.extension().string();
  if (extension == ".json") {
    const auto name = folder_or_file.filename();
    if (name == "config.json") return load_tokenizer(fs::absolute(folder_or_file).parent_path());
    if (name == "vocab.json") return load_gpt2_tokenizer(fs::absolute(folder_or_file).parent_path());
    return load_hf_tokenizer(folder_or_file);
  }
  if (extension == ".gguf") return load_gguf_tokenizer(folder_or_file);
  if (extension == ".model") return load_sentencepiece_tokenizer(folder_or_file);
  if (extension == ".bin")
    return names_tokenizer(folder_or_file) ? load_llama2c_tokenizer(folder_or_file) : beside_llama2c(folder_or_file);
  throw Error(ErrorCode::Unsupported,
              "'" + folder_or_file.string() +
                  "' is no tokenizer that can be read: expected a model folder, tokenizer.json, "
                  "tokenizer.model, vocab.json, a GGUF file, or a llama2.c .bin file.");
}

}  // namespace qs
