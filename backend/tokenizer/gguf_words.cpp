#include <map>

#include "backend/tokenizer/gguf_tokenizer.h"
#include "backend/tokenizer/gpt2_tokenizer.h"

namespace qs {
namespace {

// Every expression is applied to the pieces that the one before left; what it matches stands alone.

const std::vector<std::string> kGpt2 = {kGpt2Words};
const std::vector<std::string> kDigitsApart = {R"(\p{N})", kGpt2Words};
const std::vector<std::string> kNumberThrees = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Words, R"(\p{N}+)", "[0-9][0-9][0-9]"};
const std::vector<std::string> kFalcon = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Words, "[0-9][0-9][0-9]"};
const char* const kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

// Letters with case, as the first DeepSeek models list them.
const char* const kCasedLetters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
const std::vector<std::string> kDeepseekLlm = {
    R"([\r\n])", kCasedLetters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", "[一-龥ࠀ-一가-퟿]+",
    R"(\p{N}+)"};
const std::vector<std::string> kDeepseekCoder = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                 "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"};
const std::vector<std::string> kDeepseek3 = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

const char* const kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

std::optional<GgufWords> gguf_words(const std::string& pre) {
  static const std::map<std::string, GgufWords> kAll = [] {
    std::map<std::string, GgufWords> all;
    const auto put = [&](std::initializer_list<const char*> names, const GgufWords& words) {
      for (const char* name : names) all.emplace(name, words);
    };
    put({"", "default"}, {kNumberThrees, false, false});
    put({"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "gigachat",
         "mpt", "olmo", "jais", "trillion", "exaone4", "granite-docling"},
        {kGpt2, false, false});
    put({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"},
        {kDigitsApart, false, false});
    put({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
        {{kLlama3Words}, true, true});
    put({"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {{kLlama3Words}, false, false});
    put({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "kormo"}, {{kQwen2Words}, false, false});
    put({"falcon"}, {kFalcon, false, false});
    put({"bloom", "poro-chat", "gpt3-finnish"}, {{kBloom}, false, false});
    put({"viking"}, {{kBloom, R"(\p{N})"}, false, false});
    put({"deepseek-llm"}, {kDeepseekLlm, false, false});
    put({"deepseek-coder"}, {kDeepseekCoder, false, false});
    put({"deepseek-v3"}, {kDeepseek3, false, false});
    put({"tekken"}, {{kTekken}, true, true});
    put({"gpt-4o", "llama4"}, {{kGpt4o}, false, false});
    return all;
  }();
  const auto it = kAll.find(pre);
  return it == kAll.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace qs
