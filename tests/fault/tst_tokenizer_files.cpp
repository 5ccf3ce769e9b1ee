#include <QTemporaryDir>
#include <QtTest>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

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
    expectJson([](auto& j) { j["normalizer"] = {{"type", "Nmt"}}; }, ErrorCode::Unsupported, "Nmt");
    expectJson(
        [](auto& j) {
          j["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
        },
        ErrorCode::Unsupported, "BertPreTokenizer");
    expectJson([](auto& j) { j["decoder"] = {{"type", "CTC"}}; }, ErrorCode::Unsupported, "CTC");
    expectJson(
        [](auto& j) {
          j["post_processor"] = {{"type", "BertProcessing"}};
        },
        ErrorCode::Unsupported, "BertProcessing");
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
