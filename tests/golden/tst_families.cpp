// Every family against the transformers library: logits, hidden states, keys, values and every tap.
#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/evaluation/calibrate.h"
#include "backend/methods/smoothing.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/rope.h"
#include "backend/types/error.h"
#include "tests/support/family_cases.h"
#include "tests/support/model_files.h"

using namespace qs;
using namespace qs::test;

namespace {

constexpr double kTolerance = 1e-4;

at::Tensor run(const FamilyCase& family, const RaggedBatch& batch, TapSink* taps = nullptr) {
  FullPrecisionWindow attention;
  return forward(family.model->spec(), family.model->weights(), batch, attention, LogitRows::All, taps, {});
}

at::Tensor logits_with(const FamilyCase& family, const DecoderWeights& weights) {
  FullPrecisionWindow attention;
  return forward(family.model->spec(), weights, RaggedBatch::single(family.ids()), attention, LogitRows::All, nullptr,
                 {});
}

/// Logits of every token: the first `prompt` at once, the rest one by one through caches.
at::Tensor through_caches(const FamilyCase& family, std::int64_t prompt) {
  const std::vector<std::int64_t> ids = family.ids();
  CachedAttention attention(family.model->spec(), nullptr, {}, at::kFloat, 1);
  std::vector<at::Tensor> rows;
  for (std::int64_t position = 0; position < static_cast<std::int64_t>(ids.size());) {
    const std::int64_t count = position == 0 ? prompt : 1;
    const std::vector<std::int64_t> part(ids.begin() + position, ids.begin() + position + count);
    rows.push_back(forward(family.model->spec(), family.model->weights(), RaggedBatch::single(part, position),
                           attention, LogitRows::All, nullptr, {}));
    position += count;
  }
  return at::cat(rows, 0);
}

RaggedBatch joined(const std::vector<std::vector<std::int64_t>>& texts) {
  RaggedBatch batch;
  std::vector<std::int64_t> all;
  for (const auto& text : texts) {
    batch.sequences.push_back({static_cast<std::int64_t>(all.size()), static_cast<std::int64_t>(text.size()), 0});
    all.insert(all.end(), text.begin(), text.end());
  }
  batch.ids = at::tensor(all, at::kLong);
  return batch;
}

/// Keeps all that flows past.
struct Recorder final : TapSink {
  void on_attention(const AttentionCall& call) override { calls.push_back(call); }
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    inputs[linear_name(layer, kind)] = x.clone();
  }
  void on_router_input(std::int64_t layer, const at::Tensor& x) override { inputs[router_name(layer)] = x.clone(); }
  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    inputs[linear_name(layer, kind, expert)] = x.clone();
  }
  void on_attention_output(std::int64_t layer, const at::Tensor& output) override { outputs[layer] = output.clone(); }
  std::vector<AttentionCall> calls;
  std::map<std::string, at::Tensor> inputs;
  std::map<std::int64_t, at::Tensor> outputs;
};

void all_families() {
  QTest::addColumn<QString>("name");
  for (const std::string& name : family_names()) QTest::newRow(name.c_str()) << QString::fromStdString(name);
}

}  // namespace

class TestFamilies : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyFamilyHasACase() {
    std::set<std::string> seen;
    for (const std::string& name : family_names()) seen.insert(family_case(name).model->info().architecture);
    // The multimodal Gemma 3 is tested below, on the weights of the text model.
    for (const char* architecture :
         {"LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
          "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM", "OPTForCausalLM",
          "GPT2LMHeadModel", "GPTNeoXForCausalLM", "FalconForCausalLM"})
      QVERIFY2(seen.count(architecture), architecture);
  }

  void oneForwardPassMatches_data() { all_families(); }
  void oneForwardPassMatches() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const double difference = largest_difference(run(family, RaggedBatch::single(family.ids())), family.at("logits"));
    qDebug("%s: one pass, largest logit difference %.1e of %.1f", qPrintable(name), difference,
           family.at("logits").abs().max().item<double>());
    QVERIFY2(difference < kTolerance, qPrintable(QString::number(difference)));
  }

  void tokenByTokenMatches_data() { all_families(); }
  void tokenByTokenMatches() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const at::Tensor& expected = family.at(family.has("step_logits") ? "step_logits" : "logits");
    const double difference = largest_difference(through_caches(family, 1), expected);
    qDebug("%s: token by token, largest logit difference %.1e", qPrintable(name), difference);
    QVERIFY2(difference < kTolerance, qPrintable(QString::number(difference)));
    if (!family.model->spec().rope.depends_on_length())
      QVERIFY(largest_difference(through_caches(family, 17), expected) < kTolerance);
  }

  void theFrequenciesOfALengthFollowTheTextSoFar() {
    for (const char* name : {"llama_dynamic", "phi3_longrope"}) {
      const FamilyCase& family = family_case(name);
      QVERIFY(family.model->spec().rope.depends_on_length());
      QVERIFY(family.has("step_logits"));  // the library's two ways differ as well
      QVERIFY(largest_difference(through_caches(family, 1), family.at("logits")) > 1e-2);
    }
  }

  void blocksMatchOneByOne_data() { all_families(); }
  void blocksMatchOneByOne() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const ArchitectureSpec& spec = family.model->spec();
    const DecoderWeights& weights = family.model->weights();
    const RaggedBatch batch = RaggedBatch::single(family.ids());
    at::Tensor hidden = embed_tokens(spec, weights, batch);
    QVERIFY(largest_difference(hidden, family.at("embedded")) < 1e-5);
    FullPrecisionWindow attention;
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      hidden = run_block(spec, weights.blocks[static_cast<std::size_t>(layer)], layer, batch, hidden, attention);
      QVERIFY(largest_difference(hidden, family.at("hidden")[layer]) < kTolerance);
    }
    QVERIFY(largest_difference(final_logits(spec, weights, hidden), family.at("logits")) < kTolerance);
  }

  void everyTapHasItsMeaning_data() { all_families(); }
  void everyTapHasItsMeaning() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const ArchitectureSpec& spec = family.model->spec();
    const std::vector<std::int64_t> ids = family.ids();
    const auto tokens = static_cast<std::int64_t>(ids.size());
    Recorder taps;
    run(family, RaggedBatch::single(ids), &taps);
    QCOMPARE(static_cast<std::int64_t>(taps.calls.size()), spec.layers);
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      const AttentionCall& call = taps.calls[static_cast<std::size_t>(layer)];
      QCOMPARE(call.layer, layer);
      QCOMPARE(call.query.sizes().vec(), (std::vector<std::int64_t>{spec.heads, tokens, spec.head_dim}));
      QCOMPARE(call.key.sizes().vec(), (std::vector<std::int64_t>{spec.kv_heads, tokens, spec.head_dim}));
      QCOMPARE(call.rules.sliding_window, spec.slides(layer) ? spec.sliding_window : 0);
      QVERIFY(largest_difference(call.key, family.at("key")[layer]) < kTolerance);
      QVERIFY(largest_difference(call.key_pre_rope, family.at("key_pre_rope")[layer]) < kTolerance);
      QVERIFY(largest_difference(call.value, family.at("value")[layer]) < kTolerance);
      QVERIFY(largest_difference(call.query, family.at("query")[layer]) < kTolerance);
      const RopeSpec& rope = spec.rope_of(layer);
      QVERIFY(largest_difference(undo_rope(call.query, 0, rope), family.at("query_pre_rope")[layer]) < kTolerance);
      QVERIFY(largest_difference(apply_rope(call.key_pre_rope, 0, rope), call.key) < 1e-5);
      const bool rotated = largest_difference(call.key_pre_rope, call.key) > 1e-3;
      QCOMPARE(rotated, spec.position == PositionKind::Rope);
      QCOMPARE(taps.outputs.at(layer).sizes().vec(), (std::vector<std::int64_t>{tokens, spec.heads * spec.head_dim}));
    }
    const std::int64_t last = spec.layers - 1;
    for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V})
      QVERIFY(largest_difference(taps.inputs.at(linear_name(last, kind)), family.at("in.q")) < kTolerance);
    QVERIFY(largest_difference(taps.inputs.at(linear_name(last, LinearKind::O)), family.at("in.o")) < kTolerance);
    QVERIFY(largest_difference(taps.outputs.at(last), family.at("in.o")) < kTolerance);
    if (spec.experts > 0) {
      QVERIFY(largest_difference(taps.inputs.at(router_name(last)), family.at("in.up")) < kTolerance);
      std::int64_t routed = 0;
      for (std::int64_t expert = 0; expert < spec.experts; ++expert) {
        const auto found = taps.inputs.find(linear_name(last, LinearKind::Down, expert));
        if (found == taps.inputs.end()) continue;
        QCOMPARE(found->second.size(1), spec.intermediate_size);
        routed += found->second.size(0);
      }
      QCOMPARE(routed, tokens * spec.experts_per_token);
    } else {
      if (spec.gated_mlp)
        QVERIFY(largest_difference(taps.inputs.at(linear_name(last, LinearKind::Gate)), family.at("in.up")) <
                kTolerance);
      QVERIFY(largest_difference(taps.inputs.at(linear_name(last, LinearKind::Up)), family.at("in.up")) < kTolerance);
      QVERIFY(largest_difference(taps.inputs.at(linear_name(last, LinearKind::Down)), family.at("in.down")) <
              kTolerance);
    }
  }

  void aRaggedBatchNeedsNoPadding_data() { all_families(); }
  void aRaggedBatchNeedsNoPadding() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const std::vector<std::int64_t> ids = family.ids();
    const std::vector<std::int64_t> other = family.has("short_ids")
                                                ? family.ids("short_ids")
                                                : std::vector<std::int64_t>(ids.begin() + 5, ids.begin() + 16);
    const std::vector<std::vector<std::int64_t>> texts = {other, ids, {ids[3]}};
    const at::Tensor together = run(family, joined(texts));
    std::int64_t offset = 0;
    for (const std::vector<std::int64_t>& text : texts) {
      const auto count = static_cast<std::int64_t>(text.size());
      const at::Tensor alone = run(family, RaggedBatch::single(text));
      QVERIFY(largest_difference(together.narrow(0, offset, count), alone) < 2e-5);
      offset += count;
    }
    if (family.has("short_logits"))  // the library pads the batch on the left and masks the padding
      QVERIFY(largest_difference(together.narrow(0, 0, static_cast<std::int64_t>(other.size())),
                                 family.at("short_logits")) < kTolerance);
  }

  void linearScalingSaysHowFarItReaches() {
    QCOMPARE(family_case("llama_linear").model->info().max_context, 256);  // 4 times max_position_embeddings
    QCOMPARE(family_case("gemma3").model->info().max_context, 64);         // which here is the scaled context already
  }

  void textsAreLongerThanWindowsAndOriginalContexts() {
    for (const char* name : {"mistral", "qwen2", "gemma2", "gemma3", "phi3"}) {
      const FamilyCase& family = family_case(name);
      QVERIFY2(
          family.model->spec().sliding_window > 0 && family.at("ids").numel() > 2 * family.model->spec().sliding_window,
          name);
    }
    for (const char* name : {"llama3", "llama_yarn", "llama_dynamic", "phi3_longrope"}) {
      const RopeSpec& rope = family_case(name).model->spec().rope;
      QVERIFY2(rope.original_context > 0 && family_case(name).at("ids").numel() > 2 * rope.original_context, name);
    }
    QCOMPARE(family_case("llama_dynamic").model->info().max_context, 64);
    QVERIFY(family_case("phi3_longrope_short").model->spec().rope.original_context >
            family_case("phi3_longrope_short").at("ids").numel());
  }

  void slotsNameEveryLinearThatIsThere_data() { all_families(); }
  void slotsNameEveryLinearThatIsThere() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const ArchitectureSpec& spec = family.model->spec();
    DecoderWeights weights = family.model->weights();
    const std::vector<LinearSlot> slots = linear_slots(weights);
    const std::int64_t mlp = spec.gated_mlp ? 3 : 2;
    QCOMPARE(static_cast<std::int64_t>(slots.size()),
             spec.layers * (4 + mlp * std::max<std::int64_t>(1, spec.experts)));
    Recorder taps;
    run(family, RaggedBatch::single(family.ids()), &taps);
    for (const LinearSlot& slot : slots) {
      QCOMPARE(slot.name, linear_name(slot.layer, slot.kind, slot.expert));
      const auto input = taps.inputs.find(slot.name);
      QVERIFY2(input != taps.inputs.end() || slot.expert >= 0, slot.name.c_str());
      if (input != taps.inputs.end()) QCOMPARE(input->second.size(1), (*slot.op)->in_features());
    }
  }

  void gradientsReachTheEmbedding_data() { all_families(); }
  void gradientsReachTheEmbedding() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const RaggedBatch batch = RaggedBatch::single({5, 9, 4, 31, 7, 6, 12, 80, 3, 11});
    FullPrecisionWindow attention;
    DecoderWeights weights = family.model->weights();
    const at::Tensor embedding = weights.embedding->weight();
    const auto loss_at = [&](const at::Tensor& values) {
      weights.embedding = std::make_shared<const DenseLinear>(values);
      return forward_with_gradients(family.model->spec(), weights, batch, attention, LogitRows::All, nullptr, {})
          .to(at::kDouble)
          .log_softmax(-1)
          .square()
          .mean();
    };
    const at::Tensor leaf = embedding.clone().requires_grad_(true);
    loss_at(leaf).backward();
    QVERIFY(leaf.grad().defined());
    const at::Tensor direction = leaf.grad() / leaf.grad().norm();
    const double step = 2e-3;
    const double measured =
        (loss_at(embedding + step * direction) - loss_at(embedding - step * direction)).item<double>() / (2 * step);
    const double exact = leaf.grad().norm().item<double>();
    QVERIFY2(std::abs(measured - exact) < 0.03 * exact, qPrintable(QString("%1 %2").arg(measured).arg(exact)));
    QVERIFY(!logits_with(family, family.model->weights()).requires_grad());
  }

  void smoothingKeepsTheLogits_data() { all_families(); }
  void smoothingKeepsTheLogits() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const ArchitectureSpec& spec = family.model->spec();
    const Calibration calibration = calibrate(*family.model, family.ids(), 40, "test", {});
    const auto smoothed = [&](bool extended) {
      return smooth_decoder(spec, family.model->weights(), calibration, {.alpha = 0.6, .extended = extended}, nullptr,
                            {});
    };
    const auto refusal = [&](bool extended) -> QString {
      try {
        smoothed(extended);
      } catch (const Error& error) {
        return error.what();
      }
      return {};
    };
    if (spec.norm_placement == NormPlacement::Post) {
      QVERIFY2(refusal(false).contains("Choose another size of the model, or another method"),
               qPrintable(refusal(false)));
      return;
    }
    const at::Tensor original = logits_with(family, family.model->weights());
    const DecoderWeights weights = smoothed(false);
    QVERIFY(!at::equal(weights.blocks[0].linear(LinearKind::Q).weight(),
                       family.model->weights().blocks[0].linear(LinearKind::Q).weight()));
    QVERIFY(largest_difference(logits_with(family, weights), original) < 2e-4);
    if (spec.gated_mlp || spec.activation == ActivationKind::Relu) {
      const DecoderWeights extended = smoothed(true);
      QVERIFY(largest_difference(logits_with(family, extended), original) < 2e-4);
      // Both inner folds were made, biases of the producing rows included.
      DecoderWeights one = weights, other = extended;
      const std::vector<LinearSlot> plain = linear_slots(one), folded = linear_slots(other);
      for (std::size_t i = 0; i < plain.size(); ++i) {
        const bool inner = plain[i].kind == LinearKind::O || (plain[i].kind == LinearKind::Down && plain[i].expert < 0);
        if (inner) QVERIFY(!(*plain[i].op)->weight().equal((*folded[i].op)->weight()));
      }
    } else {
      QVERIFY2(refusal(true).contains("Leave extended out"), qPrintable(refusal(true)));
    }
  }

  void checkpointsInTheWildHaveOtherPrefixes_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("from");
    QTest::addColumn<QString>("to");
    QTest::newRow("gpt2 without transformer.") << "gpt2"
                                               << "transformer."
                                               << "";
    QTest::newRow("opt without model.") << "opt"
                                        << "model.decoder."
                                        << "decoder.";
    QTest::newRow("gemma 3 with images, older") << "gemma3"
                                                << "model."
                                                << "language_model.model.";
    QTest::newRow("gemma 3 with images, newer") << "gemma3"
                                                << "model."
                                                << "model.language_model.";
  }
  void checkpointsInTheWildHaveOtherPrefixes() {
    QFETCH(QString, name);
    QFETCH(QString, from);
    QFETCH(QString, to);
    const std::filesystem::path folder = family_folder(name.toStdString());
    const TensorTable table = read_safetensors_folder(folder);
    std::vector<StoredTensor> renamed = table.tensors;
    for (StoredTensor& tensor : renamed)
      if (tensor.name.starts_with(from.toStdString()))
        tensor.name = to.toStdString() + tensor.name.substr(static_cast<std::size_t>(from.size()));
    nlohmann::json config = nlohmann::json::parse(read_all(folder / "config.json"));
    if (name == "gemma3") {
      StoredTensor image = renamed.front();
      image.name = "vision_tower.patch_embedding.weight";
      renamed.push_back(image);
      config = {{"architectures", {"Gemma3ForConditionalGeneration"}}, {"text_config", config}, {"vision_config", {}}};
    }
    QTemporaryDir temporary;
    const std::filesystem::path copy = temporary.path().toStdString();
    write_safetensors(copy / "model.safetensors", renamed);
    write_all(copy / "config.json", config.dump());
    const FamilyCase& original = family_case(name.toStdString());
    const FamilyCase other{Model::load(copy, {}, {}), original.expected};
    QVERIFY(largest_difference(run(other, RaggedBatch::single(other.ids())), original.at("logits")) < kTolerance);
  }
};

QTEST_GUILESS_MAIN(TestFamilies)
#include "tst_families.moc"
