#include "backend/tokenizer/gpt2_tokenizer.h"

#include <nlohmann/json.hpp>

#include "backend/formats/mapped_file.h"
#include "backend/tokenizer/hf_tokenizer.h"
#include "backend/types/error.h"

namespace qs {

const char* const kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

nlohmann::json byte_level_pre_tokenizer(const std::vector<std::string>& expressions) {
  nlohmann::json steps = nlohmann::json::array();
  for (const std::string& expression : expressions) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

std::shared_ptr<const Tokenizer> make_gpt2_tokenizer(std::string_view vocab, std::string_view merges,
                                                     const TokenizerConfig& config, const std::string& where) {
  nlohmann::json vocabulary = parse_json(vocab, where + "/vocab.json");
  if (!vocabulary.is_object())
    throw Error(ErrorCode::BadFormat, "'" + where + "/vocab.json' holds no object of token to id.");
  nlohmann::json pairs = nlohmann::json::array();
  for (std::size_t begin = 0; begin < merges.size();) {
    const std::size_t end = std::min(merges.find('\n', begin), merges.size());
    std::string_view line = merges.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !(begin == 0 && line.starts_with("#version"))) pairs.push_back(std::string(line));
    begin = end + 1;
  }
  const bool qwen = config.tokenizer_class == "Qwen2Tokenizer";
  nlohmann::json added = nlohmann::json::array();
  for (const std::string& name : {config.bos_token, config.eos_token, config.unk_token, std::string("<|endoftext|>")}) {
    const auto it = vocabulary.find(name);
    if (!name.empty() && it != vocabulary.end())
      added.push_back({{"id", *it}, {"content", name}, {"special", true}, {"normalized", false}});
  }
  const nlohmann::json json = {
      {"model", {{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", std::move(pairs)}}},
      {"added_tokens", std::move(added)},
      {"normalizer", qwen ? nlohmann::json{{"type", "NFC"}} : nlohmann::json()},
      {"pre_tokenizer", byte_level_pre_tokenizer({qwen ? kQwen2Words : kGpt2Words})},
      {"decoder", {{"type", "ByteLevel"}}}};
  return make_hf_tokenizer(json, config, where, "vocab.json");
}

std::shared_ptr<const Tokenizer> load_gpt2_tokenizer(const std::filesystem::path& folder) {
  return make_gpt2_tokenizer(read_text_file(folder / "vocab.json"), read_text_file(folder / "merges.txt"),
                             read_tokenizer_config(folder), folder.string());
}

}  // namespace qs
