#include <ATen/ATen.h>

#include <QTest>
#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/evaluation/calibrate.h"
#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::shared_ptr<const Model> model() {
  static const std::shared_ptr<const Model> loaded = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
  return loaded;
}

std::vector<std::int64_t> text_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count) ids.push_back((ids.back() * 37 + 11) % 509 + 3);
  return ids;
}

const Calibration& calibration() {
  static const Calibration made = calibrate(*model(), text_ids(256), 128, "test", {});
  return made;
}

DecoderWeights quantized(const std::string& line, const Calibration& from = calibration()) {
  WeightContext context;
  context.calibration = &from;
  return make_weight_method(*parse_weight_setup(line))->apply(*model(), context, {});
}

QString message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

using Row = std::vector<double>;
/// [head][token][channel], or of probabilities [head][query][key].
using Cube = std::vector<std::vector<Row>>;

Cube cube_of(const at::Tensor& x) {
  Cube cube(static_cast<std::size_t>(x.size(0)));
  const at::Tensor wide = x.to(at::kDouble).contiguous();
  const double* data = wide.data_ptr<double>();
  for (auto& plane : cube) {
    for (std::int64_t i = 0; i < x.size(1); ++i, data += x.size(2)) plane.emplace_back(data, data + x.size(2));
  }
  return cube;
}

/// What section 2 and 3 of the weights specification do to one run of values.
struct Rule {
  int bits = 8;
  bool symmetric = false, absmax = false;
  double fixed = 0.0;  ///< maximum of a fixed absmax range

  /// In single precision, as the specification has it: the largest value of a symmetric range lies half a step above
  /// the grid, and only the same arithmetic rounds it to the same side.
  void operator()(const std::vector<double*>& run) const {
    float low = 0.0f, high = 0.0f;
    for (const double* v : run) {
      low = std::min(low, static_cast<float>(*v));
      high = std::max(high, static_cast<float>(*v));
    }
    const float largest = std::max(-low, high);
    if (absmax) {
      const float levels = std::pow(2.0f, static_cast<float>(bits - 1)) - 1.0f;
      const float scale = (fixed > 0.0 ? static_cast<float>(fixed) : std::max(largest, 1e-5f)) / levels;
      for (double* v : run) {
        float code = std::nearbyint(static_cast<float>(*v) / scale);
        if (fixed > 0.0) code = std::clamp(code, -levels, levels);
        *v = code * scale;
      }
      return;
    }
    const float steps = std::pow(2.0f, static_cast<float>(bits)) - 1.0f;
    if (symmetric) low = -largest, high = largest;
    if (low == 0.0f && high == 0.0f) low = -1.0f, high = 1.0f;
    const float scale = (high - low) / steps;
    const float zero = symmetric ? (steps + 1.0f) / 2.0f : std::nearbyint(-low / scale);
    for (double* v : run)
      *v = scale * (std::clamp(std::nearbyint(static_cast<float>(*v) / scale) + zero, 0.0f, steps) - zero);
  }
};

void each_row(Cube& cube, const Rule& rule) {
  for (auto& plane : cube) {
    for (Row& row : plane) {
      std::vector<double*> run;
      for (double& v : row) run.push_back(&v);
      rule(run);
    }
  }
}

void each_channel(Cube& cube, const Rule& rule) {
  for (auto& plane : cube) {
    for (std::size_t channel = 0; channel < plane.front().size(); ++channel) {
      std::vector<double*> run;
      for (Row& row : plane) run.push_back(&row[channel]);
      rule(run);
    }
  }
}

void whole(Cube& cube, const Rule& rule) {
  std::vector<double*> run;
  for (auto& plane : cube)
    for (Row& row : plane)
      for (double& v : row) run.push_back(&v);
  rule(run);
}

/// Causal attention with quantized operands, in plain loops over doubles.
class BruteForce final : public AttentionProvider {
 public:
  std::function<void(Cube& query, std::int64_t layer)> on_query;
  std::function<void(Cube& key, std::int64_t layer)> on_key;
  std::function<void(Cube& value, std::int64_t layer)> on_value;
  std::function<void(Cube& probabilities)> on_probabilities;

  at::Tensor attend(const AttentionCall& call) override {
    Cube query = cube_of(call.query), key = cube_of(call.key), value = cube_of(call.value);
    on_query(query, call.layer);
    on_key(key, call.layer);
    on_value(value, call.layer);
    const std::size_t heads = query.size(), tokens = query[0].size(), channels = query[0][0].size();
    const std::size_t group = heads / key.size();
    Cube probabilities(heads, std::vector<Row>(tokens, Row(tokens, 0.0)));
    for (std::size_t h = 0; h < heads; ++h) {
      for (std::size_t t = 0; t < tokens; ++t) {
        double sum = 0.0, largest = -1e300;
        Row scores(t + 1, 0.0);
        for (std::size_t k = 0; k <= t; ++k) {
          for (std::size_t c = 0; c < channels; ++c) scores[k] += query[h][t][c] * key[h / group][k][c];
          scores[k] /= std::sqrt(static_cast<double>(channels));
          largest = std::max(largest, scores[k]);
        }
        for (const double score : scores) sum += std::exp(score - largest);
        for (std::size_t k = 0; k <= t; ++k) probabilities[h][t][k] = std::exp(scores[k] - largest) / sum;
      }
    }
    on_probabilities(probabilities);
    at::Tensor output = at::zeros(call.query.sizes(), at::kDouble);
    auto out = output.accessor<double, 3>();
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t k = 0; k <= t; ++k)
          for (std::size_t c = 0; c < channels; ++c)
            out[static_cast<std::int64_t>(h)][static_cast<std::int64_t>(t)][static_cast<std::int64_t>(c)] +=
                probabilities[h][t][k] * value[h / group][k][c];
    return output.to(call.query.scalar_type());
  }
};

at::Tensor logits_of(const DecoderWeights& weights, AttentionProvider& attention) {
  return forward(model()->spec(), weights, RaggedBatch::single(text_ids(32)), attention, LogitRows::All, nullptr, {});
}

/// One operand after another of one attention call: no rounding of an earlier layer can hide an error.
at::Tensor first_attention(const DecoderWeights& weights, AttentionProvider& attention) {
  struct Sink final : TapSink {
    at::Tensor output;
    void on_attention_output(std::int64_t layer, const at::Tensor& x) override {
      if (layer == 0) output = x.clone();
    }
  } sink;
  forward(model()->spec(), weights, RaggedBatch::single(text_ids(32)), attention, LogitRows::None, &sink, {});
  return sink.output;
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / expected.norm().item<double>();
}

}  // namespace

class TestAttentionQuantization : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everyOperandFollowsTheTable_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<int>("bits");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<bool>("absmax");
    QTest::addColumn<QString>("ranges");  // of queries and keys, of values, of probabilities
    QTest::newRow("rtn") << "rtn:bits=16,bits_a=6" << 6 << false << false << "row row row";
    QTest::newRow("rtn symmetric") << "rtn:bits=16,bits_a=6,sym_a=true" << 6 << true << false << "row row row";
    QTest::newRow("rtn published") << "rtn:bits=16,bits_a=6,v_axis=channel" << 6 << false << false << "row channel row";
    QTest::newRow("smoothquant") << "smoothquant:bits_w=16,bits_a=6,quantize_attention=true" << 6 << false << false
                                 << "row row row";
    QTest::newRow("smoothquant channel") << "smoothquant:bits_w=16,bits_a=5,quantize_attention=true,v_axis=channel" << 5
                                         << false << false << "row channel row";
    QTest::newRow("O1") << "smoothquant:bits_w=16,bits_a=8,quantizer=absmax,level=O1,quantize_attention=true" << 8
                        << false << true << "row row row";
    QTest::newRow("O2") << "smoothquant:bits_w=16,bits_a=8,quantizer=absmax,level=O2,quantize_attention=true" << 8
                        << false << true << "tensor tensor one";
    QTest::newRow("O2 affine") << "smoothquant:bits_w=16,bits_a=6,level=O2,quantize_attention=true" << 6 << false
                               << false << "tensor tensor one";
    QTest::newRow("O3") << "smoothquant:bits_w=16,bits_a=8,quantizer=absmax,level=O3,quantize_attention=true" << 8
                        << false << true << "fixed fixed one";
  }
  void everyOperandFollowsTheTable() {
    QFETCH(QString, line);
    QFETCH(int, bits);
    QFETCH(bool, symmetric);
    QFETCH(bool, absmax);
    QFETCH(QString, ranges);
    const QStringList kinds = ranges.split(u' ');
    const Rule rule{bits, symmetric, absmax, 0.0};
    const auto over = [&](const QString& kind, const char* operand) {
      return [=](Cube& cube, std::int64_t layer) {
        Rule own = rule;
        if (kind == "row") return each_row(cube, own);
        if (kind == "channel") return each_channel(cube, own);
        if (kind == "fixed") {
          const std::string name = "layers." + std::to_string(layer) + ".self_attn." + operand;
          own.fixed = calibration().activation_absmax.at(name).max().item<double>();
        }
        whole(cube, own);
      };
    };
    BruteForce expected;
    expected.on_query = over(kinds[0], "query");
    expected.on_key = over(kinds[0], "key");
    expected.on_value = over(kinds[1], "value");
    expected.on_probabilities = [&](Cube& cube) {
      if (kinds[2] == "row") return each_row(cube, rule);
      // The probabilities of a window reach 1: its first query sees itself alone.
      Rule own = rule;
      if (absmax) own.fixed = 1.0;
      whole(cube, own);
    };
    const DecoderWeights weights = quantized(line.toStdString());
    QVERIFY(!weights.attention.off());
    FullPrecisionWindow actual(weights.attention), exact;
    const at::Tensor seen = first_attention(weights, actual), brute = first_attention(weights, expected);
    // A probability on the edge between two codes may fall to either side in f32.
    QVERIFY2(relative(seen, brute) < 2e-3, qPrintable(QString::number(relative(seen, brute))));
    QVERIFY(relative(first_attention(weights, exact), brute) > 3e-3);
    // Through all layers: each has its own ranges, and what one rounds otherwise the next ones see.
    const double through_all = relative(logits_of(weights, actual), logits_of(weights, expected));
    QVERIFY2(through_all < 6e-2, qPrintable(QString::number(through_all)));
  }

  void fixedRangesClampAndProbabilitiesHave127Steps() {
    AttentionQuantization fixed{.bits = 8, .absmax = true, .per_tensor = true, .maxima = {{1.0, 1.0, 1.0}}};
    // One key: the only probability is 1, and the output is the value on its grid, clamped to the calibrated maximum.
    const at::Tensor one = at::ones({1, 1, 2}), value = at::tensor({0.3f, 5.0f}).view({1, 1, 2});
    const at::Tensor output = causal_attention(one, one, value, fixed);
    QVERIFY(std::abs(output[0][0][0].item<double>() - std::nearbyint(0.3 * 127) / 127) < 1e-6);
    QVERIFY(std::abs(output[0][0][1].item<double>() - 1.0) < 1e-6);
    // Two equal keys: probabilities of one half become 64 / 127 (half to even).
    const at::Tensor keys = at::zeros({1, 2, 2}), values = at::ones({1, 2, 2});
    const at::Tensor halves = causal_attention(at::zeros({1, 1, 2}), keys, values, fixed);
    QVERIFY(std::abs(halves[0][0][0].item<double>() - 2.0 * 64.0 / 127.0) < 1e-6);
  }

  /// Ranges over tokens would use the future, so every decode step has ranges of tokens.
  void decodingKnowsTokenRangesOnly() {
    const std::vector<std::int64_t> ids = text_ids(24);
    const auto decoded = [&](const char* line) {
      const DecoderWeights weights = quantized(line);
      CachedAttention cache(model()->spec(), nullptr, weights.attention, at::kFloat, 1);
      std::vector<at::Tensor> rows;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        rows.push_back(forward(model()->spec(), weights, RaggedBatch::single({ids[i]}, static_cast<std::int64_t>(i)),
                               cache, LogitRows::All, nullptr, {}));
      }
      return at::cat(rows, 0);
    };
    const at::Tensor by_token = decoded("rtn:bits=16,bits_a=6");
    QVERIFY(by_token.equal(decoded("rtn:bits=16,bits_a=6,v_axis=channel")));
    // The whole window with token ranges is what decoding sees.
    const DecoderWeights weights = quantized("rtn:bits=16,bits_a=6");
    FullPrecisionWindow window(weights.attention);
    const at::Tensor at_once =
        forward(model()->spec(), weights, RaggedBatch::single(ids), window, LogitRows::All, nullptr, {});
    QVERIFY(relative(by_token, at_once) < 2e-2);
    const DecoderWeights fixed = quantized("smoothquant:quantizer=absmax,level=O3,quantize_attention=true");
    FullPrecisionWindow fixed_window(fixed.attention);
    QVERIFY(relative(decoded("smoothquant:quantizer=absmax,level=O3,quantize_attention=true"),
                     forward(model()->spec(), fixed, RaggedBatch::single(ids), fixed_window, LogitRows::All, nullptr,
                             {})) < 2e-2);
  }

  void whatContradictsIsRefused() {
    const auto refusal = [](const char* line) { return message_of([line] { parse_weight_setup(line); }); };
    QVERIFY(refusal("smoothquant:quantizer=absmax,level=O2,quantize_attention=true,v_axis=channel").contains("v_axis"));
    QVERIFY(
        refusal("smoothquant:quantizer=absmax,level=O3,quantize_attention=true,extended=true").contains("extended"));
    QVERIFY(refusal("rtn:v_axis=sequence").contains("token"));
    Calibration capture = calibration();
    std::erase_if(capture.activation_absmax, [](const auto& entry) { return entry.first.ends_with(".key"); });
    QVERIFY(message_of([&] {
              quantized("smoothquant:quantizer=absmax,level=O3,quantize_attention=true", capture);
            }).contains("Calibrate on a text, not on a capture"));
  }
};

QTEST_GUILESS_MAIN(TestAttentionQuantization)
#include "tst_attention_quantization.moc"
