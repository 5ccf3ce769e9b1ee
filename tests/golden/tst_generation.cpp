// Greedy texts and logits computed by an independent implementation: golden_greedy.json beside each model says how.
#include <ATen/ATen.h>

#include <QtTest>
#include <nlohmann/json.hpp>

#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/generate.h"
#include "backend/model/model.h"
#include "backend/model/threads.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"
#include "tests/support/model_files.h"

namespace {

using Ids = std::vector<std::int64_t>;

struct Case {
  std::string prompt, text;
  Ids prompt_ids, all_ids;
  std::vector<float> prompt_last_logits, last_logits;
};

struct GoldenModel {
  std::filesystem::path path, golden;
};

const std::map<std::string, GoldenModel>& models() {
  static const std::filesystem::path data = QS_TEST_DATA "/models";
  static const std::map<std::string, GoldenModel> all = {
      {"stories260K-hf", {data / "stories260K-hf", data / "stories260K-hf"}},
      {"stories260K", {data / "stories260K/stories260K.bin", data / "stories260K-hf"}},
      {"sample-hf", {QS_RESOURCES "/sample/sample-hf", data / "sample-hf"}},
      {"sample-outliers-hf", {QS_SHARE "/sample/sample-outliers-hf", data / "sample-outliers-hf"}},
  };
  return all;
}

std::vector<Case> cases_of(const std::string& name) {
  const auto json = nlohmann::json::parse(qs::test::read_all(models().at(name).golden / "golden_greedy.json"));
  std::vector<Case> cases;
  if (json.contains("prompts")) {
    for (const auto& entry : json["prompts"])
      cases.push_back({entry["prompt"], entry["text"], entry["prompt_ids"], entry["all_ids"],
                       entry["prompt_last_logits"], entry["last_logits"]});
  } else {
    cases.push_back(
        {json["prompt"], json["greedy_text"], json["prompt_ids"], json["greedy_ids"], {}, json["last_logits"]});
  }
  return cases;
}

std::shared_ptr<const qs::Model> model(const std::string& name) {
  static std::map<std::string, std::shared_ptr<const qs::Model>> loaded;
  auto& slot = loaded[name];
  if (!slot) slot = qs::Model::load(models().at(name).path, {}, {});
  return slot;
}

std::shared_ptr<const qs::Variant> variant(const std::string& name, const std::string& kv = {}) {
  return qs::make_variant(model(name), std::nullopt, qs::parse_kv_setup(kv), nullptr, qs::WeightExecution::Simulated,
                          {});
}

double largest_difference(const at::Tensor& row, const std::vector<float>& expected) {
  const at::Tensor other = at::tensor(expected, at::kFloat);
  return (row - other).abs().max().item<double>();
}

qs::SamplingOptions greedy(std::size_t tokens) {
  qs::SamplingOptions options;
  options.max_tokens = static_cast<int>(tokens);
  options.stop_at_eos = false;
  return options;
}

Ids with_prompt(const qs::GenerationResult& result) {
  Ids ids = result.prompt_ids;
  ids.insert(ids.end(), result.ids.begin(), result.ids.end());
  return ids;
}

}  // namespace

class TestGeneration : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void initTestCase() { qs::set_threads(0); }

  void greedyIdsEqualTheReference_data() { name_rows(); }
  void greedyIdsEqualTheReference() {
    QFETCH(QString, name);
    for (const Case& golden : cases_of(name.toStdString())) {
      const std::size_t count = golden.all_ids.size() - golden.prompt_ids.size();
      const auto result = qs::generate(*variant(name.toStdString()), golden.prompt_ids, greedy(count), {}, {});
      QCOMPARE(with_prompt(result), golden.all_ids);
      QCOMPARE(result.cache.tokens, static_cast<std::int64_t>(golden.all_ids.size()) - 1);
    }
  }

  void theTextIsTheReferencesText_data() { name_rows(); }
  void theTextIsTheReferencesText() {
    QFETCH(QString, name);
    for (const Case& golden : cases_of(name.toStdString())) {
      const qs::Tokenizer& tokenizer = model(name.toStdString())->tokenizer();
      QCOMPARE(qs::encode_with_bos(tokenizer, golden.prompt), golden.prompt_ids);
      const std::size_t count = golden.all_ids.size() - golden.prompt_ids.size();
      std::string streamed;
      const auto result = qs::generate(*variant(name.toStdString()), golden.prompt_ids, greedy(count),
                                       [&](const qs::TokenStep& step) { streamed += step.text; }, {});
      QCOMPARE(QString::fromStdString(streamed), QString::fromStdString(result.text));
      QCOMPARE(QString::fromStdString(golden.prompt + result.text).trimmed(),
               QString::fromStdString(golden.text).trimmed());
    }
  }

  void logitsInOnePassAreTheReferences_data() { name_rows(); }
  void logitsInOnePassAreTheReferences() {
    QFETCH(QString, name);
    const auto m = model(name.toStdString());
    for (const Case& golden : cases_of(name.toStdString())) {
      qs::FullPrecisionWindow attention;
      const at::Tensor logits = qs::forward(m->spec(), m->weights(), qs::RaggedBatch::single(golden.all_ids), attention,
                                            qs::LogitRows::All, nullptr, {});
      const double last = largest_difference(logits[-1], golden.last_logits);
      QVERIFY2(last < 1e-3, qPrintable(QString::number(last)));
      if (golden.prompt_last_logits.empty()) continue;
      const auto row = static_cast<std::int64_t>(golden.prompt_ids.size()) - 1;
      QVERIFY(largest_difference(logits[row], golden.prompt_last_logits) < 1e-3);
    }
  }

  void logitsTokenByTokenAreTheReferences_data() { name_rows(); }
  void logitsTokenByTokenAreTheReferences() {
    QFETCH(QString, name);
    const auto m = model(name.toStdString());
    for (const Case& golden : cases_of(name.toStdString())) {
      qs::CachedAttention attention(m->spec(), nullptr, {}, at::kFloat, 1);
      at::Tensor logits;
      for (std::size_t i = 0; i < golden.all_ids.size(); ++i)
        logits = qs::forward(m->spec(), m->weights(),
                             qs::RaggedBatch::single({golden.all_ids[i]}, static_cast<std::int64_t>(i)), attention,
                             qs::LogitRows::LastOfSequence, nullptr, {});
      const double last = largest_difference(logits[0], golden.last_logits);
      QVERIFY2(last < 1e-3, qPrintable(QString::number(last)));
    }
  }

  void aPromptMayArriveInPieces() {
    const auto m = model("sample-hf");
    const Case golden = cases_of("sample-hf").front();
    qs::CachedAttention attention(m->spec(), nullptr, {}, at::kFloat, 1);
    const auto piece = [&](std::size_t begin, std::size_t end) {
      return qs::forward(m->spec(), m->weights(),
                         qs::RaggedBatch::single(Ids(golden.all_ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                                     golden.all_ids.begin() + static_cast<std::ptrdiff_t>(end)),
                                                 static_cast<std::int64_t>(begin)),
                         attention, qs::LogitRows::LastOfSequence, nullptr, {});
    };
    piece(0, 20);
    piece(20, 50);
    QVERIFY(largest_difference(piece(50, golden.all_ids.size())[0], golden.last_logits) < 1e-3);
  }

  void paddedBatchesEqualTheirPromptsOneByOne_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("kv");
    QTest::addColumn<bool>("left");
    for (const char* name : {"sample-hf", "sample-outliers-hf"})
      for (const char* kv : {"", "kivi:k_bits=4,v_bits=4,group_size=32,residual_length=32"})
        for (const bool left : {true, false})
          QTest::addRow("%s, %s, padding %s", name, *kv ? kv : "full precision", left ? "left" : "right")
              << name << kv << left;
  }
  void paddedBatchesEqualTheirPromptsOneByOne() {
    QFETCH(QString, name);
    QFETCH(QString, kv);
    QFETCH(bool, left);
    const auto golden = cases_of(name.toStdString());
    const auto v = variant(name.toStdString(), kv.toStdString());
    std::vector<Ids> ids;
    std::vector<std::vector<bool>> mask;
    for (const Case& one : golden) {
      Ids padded = one.prompt_ids;
      std::vector<bool> real(padded.size(), true);
      const std::size_t missing = 16 - padded.size();
      padded.insert(left ? padded.begin() : padded.end(), missing, 0);
      real.insert(left ? real.begin() : real.end(), missing, false);
      ids.push_back(padded);
      mask.push_back(real);
    }
    const auto together = qs::generate_batch(*v, ids, mask, greedy(40), {});
    QCOMPARE(together.size(), golden.size());
    for (std::size_t i = 0; i < golden.size(); ++i) {
      const auto alone = qs::generate(*v, golden[i].prompt_ids, greedy(40), {}, {});
      QCOMPARE(together[i].ids, alone.ids);
      QCOMPARE(together[i].prompt_ids, golden[i].prompt_ids);
      QCOMPARE(together[i].cache.bytes(), alone.cache.bytes());
      if (kv.isEmpty())
        QVERIFY(std::equal(alone.ids.begin(), alone.ids.end(),
                           golden[i].all_ids.begin() + static_cast<std::ptrdiff_t>(golden[i].prompt_ids.size())));
    }
  }

  void llama2cAndHuggingFaceFilesAreOneModel() {
    const auto a = model("stories260K"), b = model("stories260K-hf");
    for (const qs::LinearKind kind : qs::kLinearKinds)
      QVERIFY(at::equal(a->weights().blocks[3].linear(kind).weight(), b->weights().blocks[3].linear(kind).weight()));
    QCOMPARE(a->info().parameters, std::int64_t{260032});
    QCOMPARE(b->info().parameters, std::int64_t{260032});
    QCOMPARE(QString::fromStdString(a->info().format), QStringLiteral("llama2.c"));
  }

  void theBundledModelsDifferInTheirFingerprints() {
    QVERIFY(model("sample-hf")->info().fingerprint != model("sample-outliers-hf")->info().fingerprint);
    QCOMPARE(model("sample-hf")->info().fingerprint, qs::inspect_model(models().at("sample-hf").path).fingerprint);
    QCOMPARE(model("sample-hf")->info().parameters, std::int64_t{5475584});
    QCOMPARE(model("sample-hf")->info().kv_bytes_per_token(), std::int64_t{2 * 6 * 2 * 64 * 2});
  }

  void sixteenBitTypesAgreeWithF32OnTheFirstTokens() {
    std::vector<const char*> dtypes = {"bfloat16"};
    if (std::string_view(QS_TORCH_VERSION).starts_with("1.")) {
      QVERIFY_THROWS_EXCEPTION(qs::Error, qs::Model::load(models().at("sample-hf").path, {.dtype = "float16"}, {}));
    } else {
      dtypes.push_back("float16");
    }
    for (const char* dtype : dtypes) {
      const auto m = qs::Model::load(models().at("sample-hf").path, {.dtype = dtype}, {});
      const auto v = qs::make_variant(m, std::nullopt, std::nullopt, nullptr, qs::WeightExecution::Simulated, {});
      const Case golden = cases_of("sample-hf").front();
      const auto result = qs::generate(*v, golden.prompt_ids, greedy(8), {}, {});
      QCOMPARE(result.ids, Ids(golden.all_ids.begin() + static_cast<std::ptrdiff_t>(golden.prompt_ids.size()),
                               golden.all_ids.begin() + static_cast<std::ptrdiff_t>(golden.prompt_ids.size()) + 8));
    }
  }

  void equalSeedsGiveEqualTextsAndLogprobsDoNotChangeThem() {
    const auto v = variant("sample-hf");
    qs::SamplingOptions options = greedy(40);
    options.temperature = 0.9;
    options.top_p = 0.95;
    options.seed = 42;
    const Ids prompt = cases_of("sample-hf").front().prompt_ids;
    const auto first = qs::generate(*v, prompt, options, {}, {});
    const auto again = qs::generate(*v, prompt, options, [](const qs::TokenStep&) {}, {});
    QCOMPARE(first.ids, again.ids);
    options.seed = 43;
    QVERIFY(qs::generate(*v, prompt, options, {}, {}).ids != first.ids);
  }

  void stepsCarryTheirProbabilityAndTheFiveLikeliest() {
    std::vector<qs::TokenStep> steps;
    qs::generate(*variant("sample-hf"), cases_of("sample-hf").front().prompt_ids, greedy(10),
                 [&](const qs::TokenStep& step) { steps.push_back(step); }, {});
    QCOMPARE(steps.size(), std::size_t{10});
    for (const auto& step : steps) {
      QCOMPARE(step.top.size(), std::size_t{5});
      QCOMPARE(step.top.front().id, step.id);
      QVERIFY(std::abs(std::exp(step.logprob) - step.top.front().probability) < 1e-5f);
    }
  }

  void replayOfTheModelAgainstItselfShowsNoDifference() {
    const auto v = variant("sample-hf");
    const Case golden = cases_of("sample-hf").front();
    const auto first = static_cast<std::int64_t>(golden.prompt_ids.size());
    const auto steps = qs::replay(*v, *v, golden.all_ids, first, {}, {});
    QCOMPARE(steps.size(), golden.all_ids.size() - golden.prompt_ids.size());
    for (const auto& step : steps) {
      QVERIFY(std::abs(step.kl_nats) < 1e-12);
      QVERIFY(step.same_top1);
      QCOMPARE(step.reference_top.front().id, step.id);
    }
  }

  void replayOfACoarseCacheShowsADifference() {
    const auto reference = variant("sample-outliers-hf");
    const auto coarse = variant("sample-outliers-hf", "kivi:k_bits=2,v_bits=2,group_size=32,residual_length=32");
    const Case golden = cases_of("sample-outliers-hf").front();
    const auto steps = qs::replay(*reference, *coarse, golden.all_ids, 40, {}, {});
    QVERIFY(std::abs(steps.front().kl_nats) < 1e-9);  // the prompt's own attention is in full precision
    double total = 0.0;
    for (const auto& step : steps) total += step.kl_nats;
    QVERIFY(total > 1e-4);
  }

  void generationStopsWhenAsked() {
    std::stop_source stop;
    int tokens = 0;
    const qs::JobContext job(stop.get_token(), {});
    QVERIFY_EXCEPTION_THROWN(qs::generate(
                                 *variant("sample-hf"), {1, 5, 6}, greedy(200),
                                 [&](const qs::TokenStep&) {
                                   if (++tokens == 3) stop.request_stop();
                                 },
                                 job),
                             qs::Cancelled);
    QCOMPARE(tokens, 3);
  }

  void weightSetupsDecodeAlone_data() {
    QTest::addColumn<QString>("setup");
    for (const char* setup : {"rtn:bits=8,group_size=64", "rtn:bits=8,group_size=64,bits_a=8"})
      QTest::newRow(setup) << setup;
  }
  void weightSetupsDecodeAlone() {
    QFETCH(QString, setup);
    const auto weights = qs::parse_weight_setup(setup.toStdString());
    const auto v =
        qs::make_variant(model("sample-hf"), weights, std::nullopt, nullptr, qs::WeightExecution::Simulated, {});
    const Case golden = cases_of("sample-hf").front();
    const auto result = qs::generate(*v, golden.prompt_ids, greedy(6), {}, {});
    QCOMPARE(result.ids, Ids(golden.all_ids.begin() + static_cast<std::ptrdiff_t>(golden.prompt_ids.size()),
                             golden.all_ids.begin() + static_cast<std::ptrdiff_t>(golden.prompt_ids.size()) + 6));
    QVERIFY(v->weight_bits() > 8.0 && v->weight_bits() < 9.0);
    QVERIFY(v->label().text().find("rtn") != std::string::npos);
  }

  void keysAndValuesAreNotQuantizedTwice() {
    const auto weights = qs::parse_weight_setup("rtn:bits=8,bits_a=8");
    const auto kv = qs::parse_kv_setup("kivi:k_bits=4,v_bits=4,group_size=32,residual_length=32");
    try {
      const auto v = qs::make_variant(model("sample-hf"), weights, kv, nullptr, qs::WeightExecution::Simulated, {});
      qs::generate(*v, {1, 5, 6}, greedy(4), {}, {});
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(QString(e.what()).contains("quantize_attention=false"), e.what());
    }
  }

  void methodsThatNeedACalibrationSaySo() {
    const auto weights = qs::parse_weight_setup("smoothquant");
    QVERIFY_EXCEPTION_THROWN(
        qs::make_variant(model("sample-hf"), weights, std::nullopt, nullptr, qs::WeightExecution::Simulated, {}),
        qs::Error);
    qs::Calibration other;
    other.model_fingerprint = "of another model";
    other.source = "other.h5";
    try {
      qs::make_variant(model("sample-hf"), weights, std::nullopt, &other, qs::WeightExecution::Simulated, {});
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(QString(e.what()).contains("other.h5"), e.what());
    }
  }

  void promptsThatDoNotFitAreRefused() {
    QVERIFY_EXCEPTION_THROWN(qs::generate(*variant("stories260K-hf"), {}, {}, {}, {}), qs::Error);
    QVERIFY_EXCEPTION_THROWN(qs::generate(*variant("stories260K-hf"), Ids(512, 1), {}, {}, {}), qs::Error);
    QCOMPARE(qs::generate(*variant("stories260K-hf"), Ids(510, 1), greedy(50), {}, {}).ids.size(), std::size_t{2});
    QVERIFY_EXCEPTION_THROWN(qs::generate_batch(*variant("stories260K-hf"), {{1, 2}}, {{true}}, {}, {}), qs::Error);
  }

 private:
  static void name_rows() {
    QTest::addColumn<QString>("name");
    for (const auto& [name, paths] : models()) QTest::newRow(name.c_str()) << QString::fromStdString(name);
  }
};

QTEST_GUILESS_MAIN(TestGeneration)
#include "tst_generation.moc"
