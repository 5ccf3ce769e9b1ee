#include <QFile>
#include <QRegularExpression>
#include <QTemporaryDir>
#include <QtTest>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "backend/tokenizer/inspection.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/tokenizer/unicode.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

const std::filesystem::path kSample = std::filesystem::path(QS_RESOURCES) / "sample/sample-hf";
const std::filesystem::path kModels = std::filesystem::path(QS_TEST_DATA) / "models";

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void append_utf8(std::string& text, char32_t c) { text += QString::fromUcs4(&c, 1).toStdString(); }

/// Letters of many scripts, marks, emoji, control characters; no surrogates. No leading or doubled spaces when `tame`.
std::string random_text(std::mt19937& random, bool tame) {
  static const std::pair<char32_t, char32_t> kBlocks[] = {
      {0x20, 0x7E},     {0xA1, 0x24F},    {0x370, 0x52F},     {0x5D0, 0x6FF}, {0x900, 0xDFF},      {0x3041, 0x30FF},
      {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0x1F300, 0x1FAFF}, {0x300, 0x36F}, {0x10FF00, 0x10FFFF}};
  std::string text = tame ? "x" : "";
  const int length = std::uniform_int_distribution<>(0, 40)(random);
  for (int i = 0; i < length; ++i) {
    const auto& block = kBlocks[std::uniform_int_distribution<std::size_t>(0, std::size(kBlocks) - 1)(random)];
    const auto c =
        static_cast<char32_t>(std::uniform_int_distribution<std::uint32_t>(block.first, block.second)(random));
    if (!(tame && c == ' ')) append_utf8(text, c);
    if (!tame && i % 7 == 3) text += "\n\t ";
    if (tame && i % 7 == 3) text += " y";
  }
  return text;
}

/// A byte-level tokenizer.json with a few merges, as GPT-2 writes it.
nlohmann::json byte_level_json() {
  nlohmann::json vocabulary = nlohmann::json::object();
  int id = 0;
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string character;
    append_utf8(character, printable ? byte : next++);
    vocabulary[character] = id++;
  }
  for (const char* token : {"Ġt", "he", "Ġthe", "'s", "12"}) vocabulary[token] = id++;
  return {{"version", "1.0"},
          {"normalizer", nullptr},
          {"added_tokens", {{{"id", id}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"post_processor", nullptr},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocabulary},
            {"merges", {"Ġ t", "h e", nlohmann::json::array({"Ġt", "he"}), "' s", "1 2"}}}}};
}

std::shared_ptr<const Tokenizer> from_json(const QTemporaryDir& dir, const nlohmann::json& json) {
  const auto path = std::filesystem::path(dir.path().toStdString()) / "tokenizer.json";
  std::ofstream(path) << json.dump();
  return load_tokenizer(path);
}

}  // namespace

class TstTokenizer : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void bothSampleTokenizersAgreeAndRoundTrip() {
    const auto json = load_tokenizer(kSample / "tokenizer.json"), model = load_tokenizer(kSample / "tokenizer.model");
    QCOMPARE(json->vocab_size(), model->vocab_size());
    QCOMPARE(json->bos_id(), model->bos_id());
    QCOMPARE(json->eos_id(), model->eos_id());
    QVERIFY(json->adds_bos() && model->adds_bos());
    std::istringstream text(slurp(std::filesystem::path(QS_RESOURCES) / "texts/sample-valid.txt"));
    std::string line;
    int lines = 0;
    while (std::getline(text, line)) {
      const auto ids = json->encode(line);
      QCOMPARE(ids, model->encode(line));
      QCOMPARE(json->decode(ids), line);
      QCOMPARE(model->decode(ids), line);
      ++lines;
    }
    QVERIFY(lines > 100);
  }

  void aWholeFileIsEncodedAsOneWord() {
    const auto json = load_tokenizer(kSample / "tokenizer.json"), model = load_tokenizer(kSample / "tokenizer.model");
    const std::string text = slurp(std::filesystem::path(QS_RESOURCES) / "texts/sample-valid.txt").substr(0, 100000);
    const auto ids = json->encode(text);
    QCOMPARE(ids, model->encode(text));
    QCOMPARE(json->decode(ids), text);
  }

  void everyTokenReadsTheSameInBothForms() {
    for (const auto& folder : {kSample, kModels / "stories260K-hf"}) {
      const auto json = load_tokenizer(folder / "tokenizer.json"), model = load_tokenizer(folder / "tokenizer.model");
      for (std::int64_t id = 0; id < json->vocab_size(); ++id) {
        QCOMPARE(json->token_bytes(id), model->token_bytes(id));
        QCOMPARE(json->token_text(id), model->token_text(id));
      }
    }
  }

  void goldenPromptsGiveTheirIds() {
    const auto golden = nlohmann::json::parse(slurp(kModels / "sample-hf/golden_greedy.json"));
    for (const char* file : {"tokenizer.json", "tokenizer.model"}) {
      const auto tokenizer = load_tokenizer(kSample / file);
      QVERIFY(!golden["prompts"].empty());
      for (const auto& prompt : golden["prompts"]) {
        QCOMPARE(encode_with_bos(*tokenizer, prompt["prompt"].get<std::string>()),
                 prompt["prompt_ids"].get<std::vector<std::int64_t>>());
        QCOMPARE(tokenizer->decode(prompt["all_ids"].get<std::vector<std::int64_t>>()),
                 prompt["text"].get<std::string>());
      }
    }
  }

  void storiesTokenizersAgreeInAllThreeFormats() {
    const auto json = load_tokenizer(kModels / "stories260K-hf");
    const auto model = load_tokenizer(kModels / "stories260K/tok512.model");
    const auto bin = load_tokenizer(kModels / "stories260K/tok512.bin");
    const auto beside = load_tokenizer(kModels / "stories260K/stories260K.bin");
    QCOMPARE(bin->vocab_size(), 512);
    QCOMPARE(beside->vocab_size(), 512);
    for (const std::string text :
         {"Once upon a time, there was a little girl named Lily.", "Zoë's café\n\"Hi!\" \xF0\x9F\xA6\x99", "a"}) {
      const auto ids = json->encode(text);
      QCOMPARE(ids, model->encode(text));
      QCOMPARE(ids, bin->encode(text));
      QCOMPARE(ids, beside->encode(text));
      for (const auto& tokenizer : {json, model, bin}) QCOMPARE(tokenizer->decode(ids), text);
    }
    const auto golden = nlohmann::json::parse(slurp(kModels / "stories260K-hf/golden_greedy.json"));
    QCOMPARE(encode_with_bos(*json, ""), golden["prompt_ids"].get<std::vector<std::int64_t>>());
    QCOMPARE(bin->decode(golden["greedy_ids"].get<std::vector<std::int64_t>>()),
             golden["greedy_text"].get<std::string>());
    QCOMPARE(json->decode(golden["greedy_ids"].get<std::vector<std::int64_t>>()),
             golden["greedy_text"].get<std::string>());
  }

  void storiesNormalizerCollapsesSpacesAsSentencePieceDoes() {
    const auto json = load_tokenizer(kModels / "stories260K-hf/tokenizer.json"),
               model = load_tokenizer(kModels / "stories260K-hf/tokenizer.model");
    for (const std::string text : {"  two   spaces  ", "   ", "", "a  b"})
      QCOMPARE(json->encode(text), model->encode(text));
  }

  void randomUnicodeSurvives() {
    std::mt19937 random(7);
    QTemporaryDir dir;
    const auto byte_level = from_json(dir, byte_level_json());
    const auto json = load_tokenizer(kSample / "tokenizer.json"), model = load_tokenizer(kSample / "tokenizer.model");
    for (int i = 0; i < 200; ++i) {
      const std::string wild = random_text(random, false), tame = random_text(random, true);
      QCOMPARE(byte_level->decode(byte_level->encode(wild)), wild);
      QCOMPARE(json->decode(json->encode(wild)), wild);
      QCOMPARE(json->decode(json->encode(tame)), tame);
      QCOMPARE(model->decode(model->encode(tame)), tame);
      QCOMPARE(json->encode(tame), model->encode(tame));
    }
  }

  void streamingNeverShowsHalfACharacter() {
    std::mt19937 random(11);
    QTemporaryDir dir;
    for (const auto& tokenizer : {load_tokenizer(kSample), load_tokenizer(kModels / "stories260K/tok512.bin"),
                                  from_json(dir, byte_level_json())}) {
      for (int i = 0; i < 50; ++i) {
        const std::string text = random_text(random, true);
        const auto ids = tokenizer->encode(text);
        StreamingDecoder decoder(*tokenizer, true);
        std::string shown;
        for (const std::int64_t id : ids) {
          const std::string piece = decoder.push(id);
          QCOMPARE(QString::fromStdString(piece).toStdString(), piece);
          QVERIFY(!QString::fromStdString(piece).contains(QChar::ReplacementCharacter));
          shown += piece;
        }
        QCOMPARE(shown + decoder.finish(), text);
        QCOMPARE(tokenizer->decode(ids), text);
      }
    }
  }

  void anUnfinishedCharacterBecomesAReplacement() {
    const auto tokenizer = load_tokenizer(kSample);
    const auto ids = tokenizer->encode("\xF0\x9F\xA6\x99");
    StreamingDecoder decoder(*tokenizer);
    std::string shown;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) shown += decoder.push(ids[i]);
    QCOMPARE(shown, std::string(" "));
    QVERIFY(QString::fromStdString(decoder.finish()).contains(QChar::ReplacementCharacter));
  }

  void aContinuationKeepsItsLeadingSpace() {
    const auto tokenizer = load_tokenizer(kSample);
    const auto ids = tokenizer->encode("named");
    StreamingDecoder continuing(*tokenizer), starting(*tokenizer, true);
    QCOMPARE(continuing.push(ids[0]).substr(0, 1), std::string(" "));
    QVERIFY(starting.push(ids[0]).substr(0, 1) != " ");
  }

  void byteLevelCutsWordsBeforeItMerges() {
    QTemporaryDir dir;
    const auto tokenizer = from_json(dir, byte_level_json());
    const auto names = [&](const std::string& text) {
      std::vector<std::string> result;
      for (const auto id : tokenizer->encode(text)) result.push_back(tokenizer->token_text(id));
      return result;
    };
    QCOMPARE(names("x the's 12"), (std::vector<std::string>{"x", " the", "'s", " ", "12"}));
    QCOMPARE(names("a<|end|>the"), (std::vector<std::string>{"a", "<|end|>", "t", "he"}));
    QCOMPARE(tokenizer->token_bytes(tokenizer->encode("<|end|>")[0]), std::string());
    QVERIFY(!tokenizer->adds_bos());
  }

  void addedTokensWinOverTheText() {
    const auto tokenizer = load_tokenizer(kSample / "tokenizer.json");
    const auto ids = tokenizer->encode("a</s>");
    QCOMPARE(ids.back(), tokenizer->eos_id());
    QCOMPARE(tokenizer->decode(ids), std::string("a"));
  }

  void compositionFollowsTheStandard() {
    QCOMPARE(unicode::normalize("e\xCC\x81", unicode::Form::Nfc), std::string("\xC3\xA9"));  // e + acute
    QCOMPARE(unicode::normalize("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", unicode::Form::Nfc),
             std::string("\xED\x95\x9C"));                                                      // Hangul jamo
    QCOMPARE(unicode::normalize("\xE2\x84\xAB", unicode::Form::Nfc), std::string("\xC3\x85"));  // Angstrom sign
    std::mt19937 random(3);
    for (int i = 0; i < 200; ++i) {
      const std::string text = random_text(random, false);
      QCOMPARE(unicode::normalize(text, unicode::Form::Nfc),
               QString::fromStdString(text).normalized(QString::NormalizationForm_C).toStdString());
    }
  }

  void everyKindOfDecoderStreamsWholeCharacters() {
    const auto data = std::filesystem::path(QS_TEST_DATA) / "tokenizers";
    std::mt19937 random(23);
    for (const char* name :
         {"minimind", "unigram_bytes.model", "unigram_nfkc.model", "unigram_hf_bytes.tokenizer.json",
          "bpe_word_end.tokenizer.json", "ggml-vocab/ggml-vocab-phi-3.gguf", "ggml-vocab/ggml-vocab-gpt-2.gguf"}) {
      const auto tokenizer = load_tokenizer(data / name);
      std::uniform_int_distribution<std::int64_t> any(0, tokenizer->vocab_size() - 1);
      for (int i = 0; i < 30; ++i) {
        // Ids in any order, as a model may make them: bytes of characters that never end, or begin in their middle.
        std::vector<std::int64_t> ids = tokenizer->encode(random_text(random, false));
        const std::size_t cut = ids.empty() ? 0 : random() % ids.size();
        ids.insert(ids.begin() + static_cast<std::ptrdiff_t>(cut), any(random));
        std::string bytes, shown;
        StreamingDecoder decoder(*tokenizer);
        for (const std::int64_t id : ids) {
          bytes += tokenizer->token_bytes(id);
          const std::string piece = decoder.push(id);
          QCOMPARE(QString::fromStdString(piece).toStdString(), piece);
          shown += piece;
        }
        shown += decoder.finish();
        // Libraries differ in how many U+FFFD a broken sequence is worth.
        static const QRegularExpression kBroken(QStringLiteral("\\x{FFFD}+"));
        const auto collapsed = [](QString text) { return text.replace(kBroken, QStringLiteral("?")); };
        QCOMPARE(collapsed(QString::fromStdString(shown)),
                 collapsed(QString::fromUtf8(bytes.data(), static_cast<qsizetype>(bytes.size()))));
      }
    }
  }

  void byteFallbackAndByteLevelLoseNothing() {
    const auto data = std::filesystem::path(QS_TEST_DATA) / "tokenizers";
    std::mt19937 random(29);
    for (const char* name : {"minimind", "unigram_bytes.model", "ggml-vocab/ggml-vocab-llama-spm.gguf",
                             "ggml-vocab/ggml-vocab-gpt-2.gguf"}) {
      const auto tokenizer = load_tokenizer(data / name);
      for (int i = 0; i < 60; ++i) {
        const std::string text = random_text(random, false);
        QCOMPARE(tokenizer->decode(tokenizer->encode(text)), text);
        QCOMPARE(tokenizer->decode(tokenizer->encode(text, {.special_tokens = false})), text);
      }
    }
  }

  void inspectionNamesTheBytesOfEachToken() {
    const auto data = std::filesystem::path(QS_TEST_DATA) / "tokenizers";
    const std::string text = "Zo\xC3\xAB's \xF0\x9F\xA6\x99<|im_end|> end";
    const auto found = inspect_text(*load_tokenizer(data / "minimind"), text);
    QVERIFY(found.exact);
    QCOMPARE(found.bytes, text.size());
    QCOMPARE(found.characters, std::size_t{21});
    std::string joined;
    std::size_t at = 0, specials = 0, parts = 0;
    for (const InspectedToken& token : found.tokens) {
      QCOMPARE(token.begin, at);
      at = token.end;
      joined += text.substr(token.begin, token.end - token.begin);
      specials += token.kind == TokenKind::Special;
      parts += !token.whole_characters;
    }
    QCOMPARE(joined, text);
    QCOMPARE(specials, std::size_t{1});
    QVERIFY(parts >= 2);

    const auto spm =
        inspect_text(*load_tokenizer(data / "ggml-vocab/ggml-vocab-llama-spm.gguf"), "the \xF0\x9F\xA6\x99");
    QVERIFY(spm.exact);
    QCOMPARE(spm.tokens.front().begin, std::size_t{0});
    QCOMPARE(spm.tokens.front().end, std::size_t{3});
    QCOMPARE(static_cast<int>(spm.tokens.back().kind), static_cast<int>(TokenKind::Byte));

    // A full-width letter is rewritten before it is cut, so its place is shared.
    const auto rewritten = inspect_text(*load_tokenizer(data / "unigram_nfkc.model"), "a \xEF\xBC\xA1 b");
    QVERIFY(!rewritten.exact);
    QCOMPARE(rewritten.tokens.back().end, std::size_t{7});
  }

  void aFolderWithVocabAndMergesOpens() {
    QTemporaryDir dir;
    const auto path = std::filesystem::path(dir.path().toStdString());
    const auto json = byte_level_json();
    auto vocabulary = json["model"]["vocab"];
    vocabulary["<|endoftext|>"] = vocabulary.size();
    std::ofstream(path / "vocab.json") << vocabulary.dump();
    std::ofstream(path / "merges.txt") << "#version: 0.2\n\u0120 t\nh e\n\u0120t he\n' s\n1 2\n";
    const auto folder = load_tokenizer(path);
    QTemporaryDir other;
    const auto whole = from_json(other, json);
    for (const std::string text : {"x the's 12", " the\n\nthe", "Zo\xC3\xAB"})
      QCOMPARE(folder->encode(text), whole->encode(text));
    QCOMPARE(folder->eos_id(), folder->encode("<|endoftext|>").front());
    QCOMPARE(QString::fromStdString(folder->kind()), QStringLiteral("vocab.json BPE"));
  }

  void textThatIsNotUtf8IsRefused() {
    for (const auto& tokenizer :
         {load_tokenizer(kSample / "tokenizer.json"), load_tokenizer(kSample / "tokenizer.model"),
          load_tokenizer(kModels / "stories260K/tok512.bin")}) {
      for (const std::string text : {"ab\xFF", "\xC3", "\xED\xA0\x80", "\xC0\x80"}) {
        QVERIFY_THROWS_EXCEPTION(Error, tokenizer->encode(text));
      }
      QVERIFY_THROWS_EXCEPTION(Error, tokenizer->decode({tokenizer->vocab_size()}));
      QVERIFY_THROWS_EXCEPTION(Error, tokenizer->token_text(-1));
    }
  }
};

QTEST_GUILESS_MAIN(TstTokenizer)
#include "tst_tokenizer.moc"
