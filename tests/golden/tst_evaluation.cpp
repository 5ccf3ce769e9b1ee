// Perplexities of the sample models' cards, and streaming evaluation against decoding token by token.
#include <ATen/ATen.h>

#include <QTest>
#include <cmath>
#include <functional>
#include <map>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/cross_entropy.h"
#include "backend/evaluation/evaluate.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/threads.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

using ModelPtr = std::shared_ptr<const Model>;
using VariantPtr = std::shared_ptr<const Variant>;

ModelPtr model(const std::string& name) {
  static std::map<std::string, ModelPtr> loaded;
  ModelPtr& slot = loaded[name];
  if (!slot) slot = Model::load((name == "sample-hf" ? QS_RESOURCES "/sample/" : QS_SHARE "/sample/") + name, {}, {});
  return slot;
}

const EvalText& valid_text() {
  static const EvalText text = read_text(QS_RESOURCES "/texts/sample-valid.txt");
  return text;
}

const Calibration& calibration(const std::string& name) {
  static std::map<std::string, Calibration> made;
  const auto found = made.find(name);
  if (found != made.end()) return found->second;
  std::vector<std::int64_t> ids = encode_with_bos(model(name)->tokenizer(), valid_text().text);
  ids.erase(ids.begin() + 1, ids.end() - 4096);  // the end of the text: none of the scored windows
  return made.emplace(name, calibrate(*model(name), ids, 512, "end of sample-valid.txt", {})).first->second;
}

VariantPtr variant(const std::string& name, const std::string& weights, const std::string& kv) {
  return make_variant(model(name), parse_weight_setup(weights), parse_kv_setup(kv), &calibration(name),
                      WeightExecution::Simulated, {});
}

/// The cards' protocol: BOS and 512 text tokens a window.
EvalRequest card_request(std::int64_t windows) {
  EvalRequest request;
  request.text = valid_text();
  request.tasks = {"ppl"};
  request.window = 513;
  request.windows = windows;
  request.bos_each_window = true;
  return request;
}

double perplexity(const std::string& name, const std::string& weights, const std::string& kv,
                  KvMode mode = KvMode::Streaming) {
  EvalRequest request = card_request(12);
  request.kv_mode = mode;
  const VariantPtr full = variant(name, "", ""), changed = variant(name, weights, kv);
  return evaluate(*changed, *full, request, {}).tasks.front().value;
}

double full_precision(const std::string& name) {
  static std::map<std::string, double> found;
  if (!found.count(name)) found[name] = perplexity(name, "", "");
  return found[name];
}

/// Decodes from the first token on through one live cache a layer.
class DecodingAttention final : public AttentionProvider {
 public:
  DecodingAttention(const KvPlan& plan, const ArchitectureSpec& spec)
      : pre_rope_(plan.layer(0).key_domain() == KeyDomain::PreRope) {
    for (std::int64_t layer = 0; layer < spec.layers; ++layer)
      caches_.push_back(plan.layer(layer).make_cache(cache_shape(spec, layer)));
  }
  at::Tensor attend(const AttentionCall& call) override {
    const at::Tensor& key = pre_rope_ ? call.key_pre_rope : call.key;
    return caches_[static_cast<std::size_t>(call.layer)]
        ->append_and_attend(call.query.select(1, 0).contiguous(), key.select(1, 0).contiguous(),
                            call.value.select(1, 0).contiguous())
        .unsqueeze(1);
  }

 private:
  bool pre_rope_;
  std::vector<std::unique_ptr<KvCache>> caches_;
};

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

class TestEvaluation : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() { set_threads(0); }

  void streamingEqualsDecodingTokenByToken_data() {
    QTest::addColumn<QString>("setup");
    for (const char* setup : {"kivi:k_bits=2,v_bits=2,group_size=32,residual_length=64",
                              "kivi:k_bits=4,v_bits=4,group_size=16,residual_length=32", "rtn:bits=4,group_size=64",
                              "rtn:bits=2,group_size=32"}) {
      QTest::newRow(setup) << setup;
    }
  }
  void streamingEqualsDecodingTokenByToken() {
    QFETCH(QString, setup);
    const VariantPtr changed = variant("sample-outliers-hf", "", setup.toStdString());
    std::vector<std::int64_t> ids = encode_with_bos(changed->model().tokenizer(), valid_text().text);
    ids.resize(200);
    const std::vector<double> streamed = token_nll(window_logits(*changed, ids, KvMode::Streaming, {}), ids);

    DecodingAttention attention(*changed->kv(), changed->model().spec());
    std::vector<at::Tensor> rows;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      rows.push_back(forward(changed->model().spec(), changed->weights(),
                             RaggedBatch::single({ids[i]}, static_cast<std::int64_t>(i)), attention, LogitRows::All,
                             nullptr, {}));
    }
    const std::vector<double> decoded = token_nll(at::cat(rows), ids);
    double mean = 0.0, worst = 0.0;
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      mean += (decoded[i] - streamed[i]) / static_cast<double>(decoded.size());
      worst = std::max(worst, std::abs(decoded[i] - streamed[i]));
    }
    // A code that rounds the other way because of a last digit moves single tokens, at 2 bits by a third of the range;
    // the mean is what is published. Which codes do so depends on the order of LibTorch's sums; one token of these 200
    // that moves by 0.1 moves the mean by 5e-4.
    QVERIFY2(std::abs(mean) < 5e-4, qPrintable(QString("mean %1, worst %2").arg(mean).arg(worst)));
    QVERIFY2(worst < 0.2, qPrintable(QString("worst %1").arg(worst)));
  }

  // The bundled text is half of the cards' text, so its windows are others and the figures move with the text: full
  // precision is 45.46 here and 38.48 there. What is held is the card's finding: what collapses, what holds, and by how
  // much.
  void outliersLeaveThePerplexityAlone() {
    QVERIFY(std::abs(full_precision("sample-hf") - 45.458) < 0.01);
    QVERIFY(std::abs(full_precision("sample-outliers-hf") / full_precision("sample-hf") - 1.0) < 1e-4);
  }

  void cardFindings_data() {
    QTest::addColumn<QString>("weights");
    QTest::addColumn<QString>("kv");
    QTest::addColumn<double>("atLeast");  // perplexity over that of full precision
    QTest::addColumn<double>("atMost");
    const QString inputs = "bits_a=4,activation_scope=norm_fed";
    QTest::newRow("4-bit inputs collapse")
        << "rtn:bits=16,sym_a=true,quantize_attention=false," + inputs << "" << 6.0 << 20.0;
    QTest::newRow("SmoothQuant holds them")
        << "smoothquant:alpha=0.5,bits_w=16,quantizer=absmax," + inputs << "" << 1.0 << 1.1;
    QTest::newRow("2-bit keys per token and head collapse") << ""
                                                            << "rtn:bits=2,group_size=64" << 2.5 << 10.0;
    QTest::newRow("2-bit keys per channel hold") << ""
                                                 << "rtn:scheme=channel_asym,bits=2,group_size=0" << 1.0 << 1.2;
    QTest::newRow("KIVI-2 holds") << ""
                                  << "kivi:k_bits=2,v_bits=2" << 1.0 << 1.1;
  }
  void cardFindings() {
    QFETCH(QString, weights);
    QFETCH(QString, kv);
    QFETCH(double, atLeast);
    QFETCH(double, atMost);
    const KvMode mode = kv.contains("channel") ? KvMode::PrefillQuantized : KvMode::Streaming;
    const double found = perplexity("sample-outliers-hf", weights.toStdString(), kv.toStdString(), mode);
    const double ratio = found / full_precision("sample-outliers-hf");
    QVERIFY2(ratio >= atLeast * 0.999 && ratio <= atMost,
             qPrintable(QString("perplexity %1, ratio %2").arg(found).arg(ratio)));
  }

  void fullPrecisionDiffersFromItselfByNothing() {
    const VariantPtr full = variant("sample-hf", "", "");
    EvalRequest request = card_request(3);
    request.window = 64;
    request.tasks = {"ppl", "kl", "top1"};
    const EvalReport report = evaluate(*full, *full, request, {});
    QCOMPARE(report.tasks.size(), std::size_t{3});
    QCOMPARE(report.tasks[0].n, std::int64_t{3});
    QVERIFY(std::abs(report.tasks[1].value) < 1e-9);
    QCOMPARE(report.tasks[2].value, 1.0);
    QCOMPARE(report.fingerprint.size(), std::size_t{16});
    QCOMPARE(report.memory.kv_bytes, report.memory.kv_bytes_full_precision);
    QCOMPARE(report.protocol.stride, std::int64_t{63});
  }

  void divergenceAndMemoryOfAQuantizedVariantAreReported() {
    const VariantPtr full = variant("sample-hf", "", ""),
                     changed = variant("sample-hf", "rtn:bits=4,group_size=32", "rtn:bits=4,group_size=64");
    EvalRequest request = card_request(3);
    request.window = 64;
    request.tasks = {"ppl", "kl", "top1"};
    const EvalReport before = evaluate(*full, *full, request, {}), after = evaluate(*changed, *full, request, {});
    QVERIFY(after.tasks[1].value > 1e-4 && after.tasks[1].standard_error > 0.0);
    QVERIFY(after.tasks[2].value < 1.0 && after.tasks[2].value > 0.5);
    QVERIFY(std::abs(after.weight_bits - (4.0 + 20.0 / 32.0)) < 1e-6);
    QVERIFY(std::abs(after.kv_bits - 4.5) < 0.01);
    QVERIFY(after.memory.kv_bytes * 3 < after.memory.kv_bytes_full_precision);
    const PairedDifference difference = paired_difference(before, after, "ppl");
    QCOMPARE(difference.n, std::int64_t{3});
    QVERIFY(difference.low < difference.mean && difference.mean < difference.high);

    EvalReport other = after;
    other.protocol.window = 128;
    other.fingerprint = "0000000000000000";
    QVERIFY(message_of([&] { paired_difference(before, other, "ppl"); }).find("window: 64 against 128") !=
            std::string::npos);
  }

  void textsTooShortAndUnknownTasksAreRefused() {
    const VariantPtr full = variant("sample-hf", "", "");
    EvalRequest request = card_request(1);
    request.text.text = "Once upon a time.";
    QVERIFY(message_of([&] { evaluate(*full, *full, request, {}); }).find("one window needs 512") != std::string::npos);
    request.tasks = {"speed"};
    QVERIFY(message_of([&] { evaluate(*full, *full, request, {}); }).find("ppl, kl, top1") != std::string::npos);
  }

  void setupsThatCannotStreamSaySo() {
    const VariantPtr changed = variant("sample-hf", "", "rtn:scheme=channel_asym,bits=2,group_size=0");
    QVERIFY(message_of([&] {
              window_logits(*changed, {1, 5, 9}, KvMode::Streaming, {});
            }).find("prefill_quantized") != std::string::npos);
  }
};

QTEST_GUILESS_MAIN(TestEvaluation)
#include "tst_evaluation.moc"
