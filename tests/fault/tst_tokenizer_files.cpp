#include <QTemporaryDir>
#include <QtTest>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "backend/tokenizer/gguf_tokenizer.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

const fs::path kStories = fs::path(QS_TEST_DATA) / "models/stories260K-hf";
const fs::path kLlama2c = fs::path(QS_TEST_DATA) / "models/stories260K";

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void spill(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

}  // namespace

class TstTokenizerFiles : public QObject {
  Q_OBJECT

  QTemporaryDir dir_;
  fs::path at(const char* name) const { return fs::path(dir_.path().toStdString()) / name; }

  /// Loads and expects one Error of that code whose message names the file and `words`.
  static void expect(const fs::path& path, ErrorCode code, const std::string& words) {
    try {
      load_tokenizer(path);
    } catch (const Error& e) {
      const std::string message = e.what();
      QVERIFY2(message.find(path.filename().string()) != std::string::npos, message.c_str());
      QVERIFY2(message.find(words) != std::string::npos, message.c_str());
      QCOMPARE(static_cast<int>(e.code()), static_cast<int>(code));
      return;
    }
    QFAIL("the file was accepted");
  }

  void expectJson(const std::function<void(nlohmann::json&)>& change, ErrorCode code, const std::string& words) const {
    auto json = nlohmann::json::parse(slurp(kStories / "tokenizer.json"));
    change(json);
    spill(at("tokenizer.json"), json.dump());
    expect(at("tokenizer.json"), code, words);
  }

 private Q_SLOTS:
  void missingFilesAreNamed() {
    expect(at("nothing.json"), ErrorCode::NotFound, "nothing.json");
    fs::create_directory(at("folder"));
    expect(at("folder"), ErrorCode::NotFound, "tokenizer.json");
    fs::create_directory(at("alone"));
    spill(at("alone/model.bin"), "x");
    expect(at("alone/model.bin"), ErrorCode::NotFound, "beside");
    expect(kStories / "model.safetensors", ErrorCode::Unsupported, "no tokenizer");
  }

  void emptyFilesAreRefused() {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"}) {
      spill(at(name), "");
      expect(at(name), ErrorCode::BadFormat, "");
    }
  }

  void everyTruncationIsRefused() {
    const std::string json = slurp(kStories / "tokenizer.json"), bin = slurp(kLlama2c / "tok512.bin");
    std::mt19937 random(5);
    for (int i = 0; i < 60; ++i) {
      spill(at("tokenizer.json"),
            json.substr(0, std::uniform_int_distribution<std::size_t>(0, json.size() - 2)(random)));
      expect(at("tokenizer.json"), ErrorCode::BadFormat, "");
      spill(at("tokenizer.model"), slurp(kStories / "tokenizer.model").substr(0, 40 + static_cast<std::size_t>(i)));
      try {
        const auto tokenizer = load_tokenizer(at("tokenizer.model"));  // a cut between two pieces is still a model
        QVERIFY(tokenizer->vocab_size() < 512);
      } catch (const Error& e) {
        QCOMPARE(static_cast<int>(e.code()), static_cast<int>(ErrorCode::BadFormat));
      }
    }
    for (const std::size_t size :
         {std::size_t{3}, std::size_t{4}, std::size_t{11}, std::size_t{1000}, bin.size() - 1, bin.size() - 7}) {
      spill(at("tokenizer.bin"), bin.substr(0, size));
      expect(at("tokenizer.bin"), ErrorCode::BadFormat, "");
    }
  }

  void flippedBytesNeverCrash() {
    std::mt19937 random(9);
    for (const auto& [source, name] : {std::pair{kStories / "tokenizer.json", "tokenizer.json"},
                                       {kStories / "tokenizer.model", "tokenizer.model"},
                                       {kLlama2c / "tok512.bin", "tokenizer.bin"}}) {
      const std::string whole = slurp(source);
      for (int i = 0; i < 150; ++i) {
        std::string bytes = whole;
        for (int flips = 0; flips < 3; ++flips) {
          bytes[std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random)] = static_cast<char>(random());
        }
        spill(at(name), bytes);
        try {
          const auto tokenizer = load_tokenizer(at(name));
          tokenizer->decode(tokenizer->encode("Once upon a time\n\xF0\x9F\xA6\x99"));
        } catch (const Error&) {
          continue;
        }
      }
    }
  }

  void aModelOfAnotherKindIsNamed() {
    expectJson([](auto& j) { j["model"]["type"] = "WordPiece"; }, ErrorCode::Unsupported, "WordPiece");
    expectJson(
        [](auto& j) {
          j["normalizer"] = {{"type", "BertNormalizer"}};
        },
        ErrorCode::Unsupported, "BertNormalizer");
    expectJson(
        [](auto& j) {
          j["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
        },
        ErrorCode::Unsupported, "BertPreTokenizer");
    expectJson([](auto& j) { j["decoder"] = {{"type", "CTC"}}; }, ErrorCode::Unsupported, "CTC");
    expectJson(
        [](auto& j) {
          j["post_processor"] = {{"type", "PairProcessing"}};
        },
        ErrorCode::Unsupported, "PairProcessing");
  }

  void contradictionsAreNamed() {
    expectJson([](auto& j) { j.erase("model"); }, ErrorCode::BadFormat, "model");
    expectJson([](auto& j) { j["model"].erase("merges"); }, ErrorCode::BadFormat, "merges");
    expectJson([](auto& j) { j["model"]["vocab"] = nlohmann::json::object(); }, ErrorCode::BadFormat, "vocab");
    expectJson([](auto& j) { j["model"]["vocab"]["extra"] = 5; }, ErrorCode::BadFormat, "both");
    expectJson([](auto& j) { j["model"]["vocab"]["extra"] = -1; }, ErrorCode::BadFormat, "extra");
    expectJson([](auto& j) { j["model"]["vocab"]["extra"] = 4000000000u; }, ErrorCode::BadFormat, "extra");
    expectJson([](auto& j) { j["model"]["merges"].push_back("no such"); }, ErrorCode::BadFormat, "no such");
    expectJson([](auto& j) { j["model"]["merges"].push_back(7); }, ErrorCode::BadFormat, "merge");
    expectJson([](auto& j) { j["model"]["unk_token"] = "<nothing>"; }, ErrorCode::BadFormat, "<nothing>");
    expectJson([](auto& j) { j["model"]["vocab"].erase("<0x0A>"); }, ErrorCode::BadFormat, "<0x0A>");
    expectJson(
        [](auto& j) {
          j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}};
        },
        ErrorCode::BadFormat, "regular expression");
    expectJson(
        [](auto& j) {
          j["added_tokens"] = {{{"id", "x"}, {"content", "y"}}};
        },
        ErrorCode::BadFormat, "added token");
  }

  void deepNestingIsRefused() {
    std::string deep;
    for (int i = 0; i < 200000; ++i) deep += R"({"type":"Sequence","normalizers":[)";
    spill(at("tokenizer.json"), R"({"model":{},"normalizer":)" + deep);
    expect(at("tokenizer.json"), ErrorCode::BadFormat, "nests");
  }

  void aHugeIdMakesNoHugeList() {
    expectJson(
        [](auto& j) {
          j["added_tokens"].push_back({{"id", (1 << 24) - 1}, {"content", "far away"}});
        },
        ErrorCode::BadFormat, "uses the id 16777215");
  }

  void aPatternThatExplodesIsStopped() {
    auto json = nlohmann::json::parse(slurp(kStories / "tokenizer.json"));
    json["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", "(a+)+$"}}}, {"behavior", "Isolated"}, {"invert", false}};
    spill(at("tokenizer.json"), json.dump());
    const auto tokenizer = load_tokenizer(at("tokenizer.json"));
    try {
      tokenizer->encode(std::string(4000, 'a') + "!");
      QFAIL("it came to an end");
    } catch (const Error& e) {
      const std::string message = e.what();
      QVERIFY2(message.find("(a+)+$") != std::string::npos, message.c_str());
      QVERIFY2(message.find("tokenizer.json") != std::string::npos, message.c_str());
    }
    expectJson(
        [](auto& j) {
          j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", std::string(70000, 'a')}}}, {"content", ""}};
        },
        ErrorCode::BadFormat, "70000 bytes");
  }

  void damagedNormalizationTablesAreRefused() {
    const auto table = [](const std::string& base64) {
      return nlohmann::json{{"type", "Precompiled"}, {"precompiled_charsmap", base64}};
    };
    expectJson([&](auto& j) { j["normalizer"] = table("!!"); }, ErrorCode::BadFormat, "base64");
    expectJson([&](auto& j) { j["normalizer"] = table("AAA="); }, ErrorCode::BadFormat, "table");
    expectJson([&](auto& j) { j["normalizer"] = table("/////wAA"); }, ErrorCode::BadFormat, "trie");
    expectJson([&](auto& j) { j["normalizer"] = table("BAAAAAAAAABh"); }, ErrorCode::BadFormat, "zero byte");
    // Units that point outside, or in a circle, end the look-up.
    std::mt19937 random(13);
    const std::string whole = slurp(fs::path(QS_TEST_DATA) / "tokenizers/unigram_nfkc.model");
    for (int i = 0; i < 40; ++i) {
      std::string bytes = whole;
      for (int flips = 0; flips < 400; ++flips)
        bytes[6000 + random() % (bytes.size() - 6000)] = static_cast<char>(random());
      spill(at("tokenizer.model"), bytes);
      try {
        const auto tokenizer = load_tokenizer(at("tokenizer.model"));
        tokenizer->decode(tokenizer->encode("\xEF\xBC\xA1 \xE2\x91\xA0 e\xCC\x81 \xED\x95\x9C abc"));
      } catch (const Error&) {
        continue;
      }
    }
  }

  void unigramContradictionsAreNamed() {
    const auto expectUnigram = [&](const std::function<void(nlohmann::json&)>& change, const std::string& words) {
      auto json = nlohmann::json::parse(slurp(fs::path(QS_TEST_DATA) / "tokenizers/unigram_hf_bytes.tokenizer.json"));
      change(json["model"]);
      spill(at("tokenizer.json"), json.dump());
      expect(at("tokenizer.json"), ErrorCode::BadFormat, words);
    };
    expectUnigram([](auto& m) { m["vocab"][3] = "x"; }, "piece 3");
    expectUnigram([](auto& m) { m["vocab"] = nlohmann::json::array(); }, "vocab");
    expectUnigram([](auto& m) { m["unk_id"] = 99999; }, "99999");
    expectUnigram([](auto& m) { m["vocab"][m["vocab"].size() - 1][0] = "<gone>"; }, "<0xFF>");
  }

  void hostileVocabulariesInGgufAreNamed() {
    const auto refused = [](GgufVocabulary v, ErrorCode code, const std::string& words) {
      try {
        make_gguf_tokenizer(v, "model.gguf");
      } catch (const Error& e) {
        const std::string message = e.what();
        QVERIFY2(message.find(words) != std::string::npos && message.find("model.gguf") != std::string::npos,
                 message.c_str());
        QCOMPARE(static_cast<int>(e.code()), static_cast<int>(code));
        return;
      }
      QFAIL(("accepted: " + words).c_str());
    };
    GgufVocabulary good;
    good.model = "gpt2";
    good.pre = "gpt-2";
    good.tokens = {"a", "b", "ab", "<|end|>"};
    good.types = {1, 1, 1, 3};
    good.merges = {"a b"};
    QCOMPARE(make_gguf_tokenizer(good, "model.gguf")->encode("ab<|end|>"), (std::vector<std::int64_t>{2, 3}));
    const auto with = [&](const std::function<void(GgufVocabulary&)>& change) {
      GgufVocabulary v = good;
      change(v);
      return v;
    };
    refused(with([](auto& v) { v.model = "bert"; }), ErrorCode::Unsupported, "bert");
    refused(with([](auto& v) { v.pre = "mystery"; }), ErrorCode::Unsupported, "mystery");
    refused(with([](auto& v) { v.tokens.clear(); }), ErrorCode::BadFormat, "without tokens");
    refused(with([](auto& v) { v.types.pop_back(); }), ErrorCode::BadFormat, "3 token types");
    refused(with([](auto& v) { v.types[1] = 9; }), ErrorCode::BadFormat, "type 9");
    refused(with([](auto& v) { v.scores = {1, 2}; }), ErrorCode::BadFormat, "2 scores");
    refused(with([](auto& v) { v.tokens[1] = "\xFF"; }), ErrorCode::BadFormat, "UTF-8");
    refused(with([](auto& v) { v.merges = {"a c"}; }), ErrorCode::BadFormat, "a c");
    refused(with([](auto& v) { v.merges = {"\xC3 b"}; }), ErrorCode::BadFormat, "UTF-8");
    refused(with([](auto& v) { v.bos_id = 4; }), ErrorCode::BadFormat, "BOS");
    refused(with([](auto& v) { v.eos_id = -7; }), ErrorCode::BadFormat, "EOS");
    refused(with([](auto& v) { v.model = "llama"; }), ErrorCode::BadFormat, "scores");
    refused(with([](auto& v) {
              v.model = "t5";
              v.scores = {0, 0, 0, 0};
              v.charsmap = "abc";
            }),
            ErrorCode::BadFormat, "table");
  }

  void hostileVocabJsonIsNamed() {
    fs::create_directories(at("gpt2"));
    spill(at("gpt2/vocab.json"), R"({"a":0,"b":1})");
    spill(at("gpt2/merges.txt"), "#version: 0.2\na c\n");
    expect(at("gpt2"), ErrorCode::BadFormat, "a c");
    spill(at("gpt2/vocab.json"), "[1]");
    expect(at("gpt2"), ErrorCode::BadFormat, "vocab.json");
  }

  void aBrokenConfigBesideItIsNamed() {
    fs::create_directories(at("pair"));
    fs::copy_file(kStories / "tokenizer.json", at("pair/tokenizer.json"), fs::copy_options::overwrite_existing);
    spill(at("pair/tokenizer_config.json"), "{\"bos_token\": ");
    try {
      load_tokenizer(at("pair"));
      QFAIL("accepted");
    } catch (const Error& e) {
      QVERIFY(std::string(e.what()).find("tokenizer_config.json") != std::string::npos);
    }
  }
};

QTEST_GUILESS_MAIN(TstTokenizerFiles)
#include "tst_tokenizer_files.moc"
