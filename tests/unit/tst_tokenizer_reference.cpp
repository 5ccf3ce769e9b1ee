#include <QtTest>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "backend/tokenizer/hf_decoder.h"
#include "backend/tokenizer/hf_normalizer.h"
#include "backend/tokenizer/hf_pre_tokenizer.h"
#include "backend/tokenizer/tokenizer.h"

// Ids and texts that the libraries themselves gave; tests/data/tokenizers/README.md says how.

using namespace qs;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Ids = std::vector<std::int64_t>;

namespace {

const fs::path kData = fs::path(QS_TEST_DATA) / "tokenizers";

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string shown(const Json& json) { return json.dump(-1, ' ', true, Json::error_handler_t::replace); }

/// Marks and punctuation that Unicode has had since version 11 to 14, and that the libraries' older tables do not know.
bool newer_than_the_library(const std::string& text) {
  for (const char* character : {"\u061d", "\u09fe", "\u0b55"})
    if (text.find(character) != std::string::npos) return true;
  return false;
}

}  // namespace

class TstTokenizerReference : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void idsAgreeWithTheLibraries_data() {
    QTest::addColumn<QString>("tokenizer");
    QTest::addColumn<QString>("fixture");
    QTest::addColumn<QString>("kind");
    const auto row = [](const char* tokenizer, const char* fixture, const char* kind) {
      QTest::newRow(fixture) << tokenizer << fixture << kind;
    };
    row("minimind", "minimind.json", "tokenizer.json BPE");
    row("ggml-vocab/ggml-vocab-gpt-2.gguf", "gpt2.json", "GGUF BPE");
    row("ggml-vocab/ggml-vocab-llama-spm.gguf", "llama2.json", "GGUF SentencePiece BPE");
    row("unigram_nfkc.model", "unigram_nfkc.json", "SentencePiece unigram");
    row("unigram_bytes.model", "unigram_bytes.json", "SentencePiece unigram");
    row("unigram_suffix.model", "unigram_suffix.json", "SentencePiece unigram");
    row("unigram_hf.tokenizer.json", "unigram_hf.json", "tokenizer.json unigram");
    row("unigram_hf_bytes.tokenizer.json", "unigram_hf_bytes.json", "tokenizer.json unigram");
    row("bpe_word_end.tokenizer.json", "bpe_word_end.json", "tokenizer.json BPE");
    row("bpe_subword_prefix.tokenizer.json", "bpe_subword_prefix.json", "tokenizer.json BPE");
  }

  void idsAgreeWithTheLibraries() {
    QFETCH(QString, tokenizer);
    QFETCH(QString, fixture);
    QFETCH(QString, kind);
    const auto made = load_tokenizer(kData / tokenizer.toStdString());
    QCOMPARE(QString::fromStdString(made->kind()), kind);
    const Json cases = Json::parse(slurp(kData / fixture.toStdString())).at("cases");
    QVERIFY(cases.size() >= 70);
    for (const Json& entry : cases) {
      const auto text = entry.at("text").get<std::string>();
      if (newer_than_the_library(text)) continue;
      const Ids ids = made->encode(text);
      const auto message = shown(entry) + " gave " + shown(Json(ids));
      QVERIFY2(ids == entry.at("ids").get<Ids>(), message.c_str());
      if (!entry.contains("with_special")) continue;
      Ids whole = made->prefix_ids();
      whole.insert(whole.end(), ids.begin(), ids.end());
      const Ids suffix = made->suffix_ids();
      whole.insert(whole.end(), suffix.begin(), suffix.end());
      QVERIFY2(whole == entry.at("with_special").get<Ids>(), message.c_str());
    }
  }

  /// Vocabularies that are too large for the repository: QUANTOSCOPE_TOKENIZER_CASES names a folder of fixtures with
  /// the additional key "tokenizer", the path of the tokenizer they belong to.
  void largeVocabulariesAgree() {
    const QByteArray folder = qgetenv("QUANTOSCOPE_TOKENIZER_CASES");
    if (folder.isEmpty()) QSKIP("QUANTOSCOPE_TOKENIZER_CASES is not set.");
    for (const auto& file : fs::directory_iterator(folder.toStdString())) {
      const Json fixture = Json::parse(slurp(file.path()));
      const auto tokenizer = load_tokenizer(fixture.at("tokenizer").get<std::string>());
      std::size_t agree = 0, round_trips = 0;
      for (const Json& entry : fixture.at("cases")) {
        const auto text = entry.at("text").get<std::string>();
        const Ids ids = tokenizer->encode(text);
        if (ids == entry.at("ids").get<Ids>()) ++agree;
        if (ids != entry.at("ids").get<Ids>()) qWarning("%s gave %s", shown(entry).c_str(), shown(Json(ids)).c_str());
        round_trips += tokenizer->decode(ids) == entry.at("decoded").get<std::string>();
      }
      qInfo("%s: %zu of %zu agree, %zu decode alike", file.path().filename().c_str(), agree, fixture.at("cases").size(),
            round_trips);
      QCOMPARE(agree, fixture.at("cases").size());
    }
  }

  void llamaCppVectorsAgree_data() {
    QTest::addColumn<QString>("name");
    for (const char* name : {"gpt-2", "llama-spm", "phi-3"}) QTest::newRow(name) << name;
  }

  void llamaCppVectorsAgree() {
    QFETCH(QString, name);
    const std::string base = (kData / "ggml-vocab/ggml-vocab-").string() + name.toStdString() + ".gguf";
    const auto tokenizer = load_tokenizer(base);
    const std::string input = slurp(base + ".inp"), separator = "\n__ggml_vocab_test__\n";
    std::istringstream expected(slurp(base + ".out"));
    std::string line;
    int blocks = 0;
    for (std::size_t begin = 0; begin < input.size();) {
      const std::size_t end = input.find(separator, begin);
      if (end == std::string::npos) break;
      const std::string text = input.substr(begin, end - begin);
      begin = end + separator.size();
      QVERIFY(std::getline(expected, line));
      std::istringstream numbers(line);
      const Ids wanted{std::istream_iterator<std::int64_t>(numbers), {}};
      const Ids ids = tokenizer->encode(text, {.special_tokens = false});
      QVERIFY2(ids == wanted, (shown(text) + " gave " + shown(Json(ids)) + ", expected " + line).c_str());
      QCOMPARE(tokenizer->decode(ids), text);
      ++blocks;
    }
    QCOMPARE(blocks, 46);
    QVERIFY(!std::getline(expected, line) || line.empty());
  }

  void componentsDoWhatTheLibraryDoes() {
    const Json all = Json::parse(slurp(kData / "components.json"));
    const auto texts = all.at("texts").get<std::vector<std::string>>();
    int compared = 0;
    for (const Json& entry : all.at("normalizers")) {
      const auto step = make_hf_normalizer(entry.at("json"), "components.json");
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (newer_than_the_library(texts[i])) continue;
        const std::string got = step->apply(texts[i]);
        const auto message = shown(entry.at("json")) + " of " + shown(texts[i]) + " gave " + shown(got);
        QVERIFY2(got == entry.at("results")[i].get<std::string>(), message.c_str());
        ++compared;
      }
    }
    for (const Json& entry : all.at("pre_tokenizers")) {
      const auto step = make_hf_pre_tokenizer(entry.at("json"), "components.json");
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (newer_than_the_library(texts[i])) continue;
        std::vector<std::string> words;
        step->apply(texts[i], true, words);
        const auto message = shown(entry.at("json")) + " of " + shown(texts[i]) + " gave " + shown(Json(words)) +
                             ", expected " + shown(entry.at("results")[i]);
        QVERIFY2(words == entry.at("results")[i].get<std::vector<std::string>>(), message.c_str());
        ++compared;
      }
    }
    for (const Json& entry : all.at("decoders")) {
      const auto step = make_hf_decoder(entry.at("json"), "components.json");
      for (const Json& result : entry.at("results")) {
        std::string text;
        for (const auto& part : step->apply(result.at("tokens").get<std::vector<std::string>>())) text += part;
        const auto message = shown(entry.at("json")) + " of " + shown(result) + " gave " + shown(text);
        QVERIFY2(text == result.at("text").get<std::string>(), message.c_str());
        ++compared;
      }
    }
    QVERIFY(compared > 3000);
  }
};

QTEST_GUILESS_MAIN(TstTokenizerReference)
#include "tst_tokenizer_reference.moc"
