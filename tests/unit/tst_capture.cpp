#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest>
#include <cmath>
#include <filesystem>
#include <map>

#include "backend/method.h"
#include "backend/model/decoder.h"
#include "backend/storage/attention_statistics.h"
#include "backend/storage/capture.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/pyramid.h"
#include "backend/storage/results_file.h"
#include "backend/types/error.h"
#include "tests/support/synthetic_capture.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

std::shared_ptr<const Model> stories() {
  static const auto model = Model::load(fs::path(QS_TEST_DATA) / "models/stories260K-hf", {}, {});
  return model;
}

std::vector<std::int64_t> some_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count)
    ids.push_back(3 + (static_cast<std::int64_t>(ids.size()) * 7919) % 500);
  return ids;
}

at::Tensor tensor(const TensorView& view) {
  return at::from_blob(const_cast<float*>(view.data), view.shape, at::kFloat).clone();
}

double worst(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

/// Keeps clones of what flows by.
struct Recorder final : TapSink {
  std::map<std::int64_t, AttentionCall> calls;
  std::map<std::string, at::Tensor> inputs;
  void on_attention(const AttentionCall& call) override {
    AttentionCall& kept = calls[call.layer] = call;
    for (at::Tensor* t : {&kept.query, &kept.key, &kept.key_pre_rope, &kept.value}) *t = t->clone();
  }
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    inputs[linear_name(layer, kind)] = x.clone();
  }
};

Recorder record(const std::vector<std::int64_t>& ids) {
  Recorder recorder;
  FullPrecisionWindow attention;
  forward(stories()->spec(), stories()->weights(), RaggedBatch::single(ids), attention, LogitRows::None, &recorder, {});
  return recorder;
}

at::Tensor pooled_by_brute_force(const at::Tensor& x, std::int64_t factor, Pool pool) {
  const std::int64_t rows = (x.size(1) + factor - 1) / factor, columns = (x.size(2) + factor - 1) / factor;
  at::Tensor result = at::empty({x.size(0), rows, columns}, at::kFloat);
  for (std::int64_t h = 0; h < x.size(0); ++h) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) {
        const at::Tensor tile = x[h].slice(0, r * factor, (r + 1) * factor).slice(1, c * factor, (c + 1) * factor);
        result[h][r][c] = pool == Pool::Min ? tile.min() : pool == Pool::Max ? tile.max() : tile.mean();
      }
    }
  }
  return result;
}

}  // namespace

class TstCapture : public QObject {
  Q_OBJECT

  QTemporaryDir dir_;
  fs::path at(const char* name) const { return fs::path(dir_.path().toStdString()) / name; }

  static CaptureRequest request(std::int64_t tokens, std::int64_t window = 0) {
    CaptureRequest r;
    r.ids = some_ids(tokens);
    r.window = window;
    r.text_source = "test";
    r.text_sha256 = "00";
    return r;
  }

 private Q_SLOTS:
  void whatIsWrittenIsWhatWasTapped() {
    const auto wanted = request(300);
    const CaptureInfo info = capture(*stories(), wanted, at("tapped.h5"), false, {});
    QVERIFY(info.complete);
    QCOMPARE(info.tokens, 300);
    QCOMPARE(info.layers, stories()->info().layers);
    QCOMPARE(info.text_source, std::string("test"));
    QCOMPARE(info.window, stories()->info().max_context);
    const Recorder recorder = record(wanted.ids);
    const auto reader = CaptureReader::open(at("tapped.h5"));
    QCOMPARE(reader->token_ids(), wanted.ids);
    QCOMPARE(reader->token_texts().size(), std::size_t{300});
    QCOMPARE(reader->token_texts()[0], std::string("<s>"));
    for (const auto& [layer, call] : recorder.calls) {
      for (const auto& [tap, values] : {std::pair{"key", call.key},
                                        {"key_pre_rope", call.key_pre_rope},
                                        {"value", call.value},
                                        {"query", call.query}}) {
        QVERIFY(at::equal(tensor(reader->read_layer(layer, tap)), values.contiguous()));
      }
    }
    QCOMPARE(info.linears.size(), recorder.inputs.size());
    QCOMPARE(info.linears[1], linear_name(0, LinearKind::K));
    for (const auto& [linear, x] : recorder.inputs) {
      const ActivationStats stats = reader->activation_stats(linear);
      QCOMPARE(stats.tokens, 300);
      const auto close = [&](const std::vector<float>& found, const at::Tensor& expected) {
        return worst(at::from_blob(const_cast<float*>(found.data()), {expected.numel()}, at::kFloat), expected) < 1e-4;
      };
      QVERIFY2(close(stats.absmax, x.abs().amax(0)), linear.c_str());
      QVERIFY(close(stats.mean, x.mean(0)));
      QVERIFY(close(stats.second_moment, x.square().mean(0)));
    }
  }

  void keysBeforeRopeRotateIntoKeys() {
    auto wanted = request(200, 128);
    wanted.taps.insert("query_pre_rope");
    capture(*stories(), wanted, at("rope.h5"), false, {});
    const auto reader = CaptureReader::open(at("rope.h5"));
    for (const auto& [before, after] : {std::pair{"key_pre_rope", "key"}, {"query_pre_rope", "query"}}) {
      for (const auto& [begin, end] :
           {std::pair<std::int64_t, std::int64_t>{0, 128}, {128, 200}}) {  // positions restart at windows
        const at::Tensor raw = tensor(reader->read_layer(2, before, {{}, {begin, end}}));
        const at::Tensor rotated = tensor(reader->read_layer(2, after, {{}, {begin, end}}));
        QVERIFY(worst(apply_rope(raw, 0, reader->info().rope), rotated) < 1e-4);
      }
    }
  }

  void everyLayerKeepsItsRotationAndItsRules() {
    for (const char* name : {"gemma3", "gemma2", "phi3_longrope", "llama_yarn", "mixtral", "gpt2"}) {
      const auto model = Model::load(std::filesystem::path(QS_TEST_DATA "/families") / name, {}, {});
      CaptureRequest wanted;
      for (std::int64_t i = 0; i < 30; ++i) wanted.ids.push_back(3 + i * 7 % 90);
      wanted.taps = {"key", "key_pre_rope", "query", "query_pre_rope", "attention", "activations"};
      capture(*model, wanted, at("layers.h5"), false, {});
      const auto reader = CaptureReader::open(at("layers.h5"));
      for (std::int64_t layer = 0; layer < model->spec().layers; ++layer) {
        const RopeSpec& rope = reader->info().rope_of(layer);
        QVERIFY2(rope == model->spec().rope_of(layer), name);
        QVERIFY2(reader->info().rules_of(layer) == model->spec().attention_rules(layer), name);
        for (const auto& [before, after] : {std::pair{"key_pre_rope", "key"}, {"query_pre_rope", "query"}})
          QVERIFY(worst(apply_rope(tensor(reader->read_layer(layer, before)), 0, rope),
                        tensor(reader->read_layer(layer, after))) < 0.02);  // stored in float16
      }
      DecoderWeights weights = model->weights();
      for (const LinearSlot& slot : linear_slots(weights)) {
        const auto& linears = reader->info().linears;
        const bool there = std::find(linears.begin(), linears.end(), slot.name) != linears.end();
        QVERIFY2(there || slot.expert >= 0, slot.name.c_str());
      }
    }
  }

  void logSumExpRecomputesAttentionRows() {
    capture(*stories(), request(300), at("lse.h5"), false, {});
    const auto reader = CaptureReader::open(at("lse.h5"));
    const at::Tensor q = tensor(reader->read_layer(1, "query")), k = tensor(reader->read_layer(1, "key"));
    const at::Tensor lse = tensor(reader->read_layer(1, "log_sum_exp"));
    const std::int64_t heads = q.size(0), shared = heads / k.size(0);
    for (std::int64_t h = 0; h < heads; ++h) {
      const at::Tensor scores = at::matmul(q[h], k[h / shared].t()) / std::sqrt(static_cast<double>(q.size(2)));
      const at::Tensor future = at::ones({300, 300}, at::kBool).triu(1);
      const at::Tensor exact = at::softmax(scores.masked_fill(future, -INFINITY), 1);
      const at::Tensor recomputed = (scores - lse[h].unsqueeze(1)).exp().masked_fill(future, 0.0);
      QVERIFY(worst(exact, recomputed) < 1e-3);
    }
  }

  void attentionReductionsEqualBruteForce() {
    at::manual_seed(3);
    const std::int64_t heads = 4, tokens = 300;
    const at::Tensor q = at::randn({heads, tokens, 8}) * 2, k = at::randn({2, tokens, 8});
    const AttentionStatistics stats = attention_statistics(q, k, {}, {});
    QCOMPARE(stats.mass_by_distance.size(1), 10);  // distances 0..299
    for (std::int64_t h = 0; h < heads; ++h) {
      const at::Tensor scores = at::matmul(q[h], k[h / 2].t()) / std::sqrt(8.0);
      const at::Tensor p = at::softmax(scores.masked_fill(at::ones({tokens, tokens}, at::kBool).triu(1), -INFINITY), 1);
      std::vector<double> mass(10, 0.0), sinks(kSinkCounts.size(), 0.0);
      const at::Tensor rows = p.to(at::kDouble).contiguous();
      const double* data = rows.data_ptr<double>();
      at::Tensor map = at::zeros({150, 150});
      for (std::int64_t i = 0; i < tokens; ++i) {
        double entropy = 0.0, held = 0.0;
        std::int64_t span = 0;
        for (std::int64_t j = i; j >= 0; --j) {
          const double value = data[i * tokens + j];
          const std::int64_t distance = i - j;
          mass[distance == 0 ? 0 : static_cast<std::size_t>(std::floor(std::log2(distance))) + 1] += value / tokens;
          for (std::size_t s = 0; s < sinks.size(); ++s) {
            if (j < kSinkCounts[s]) sinks[s] += value / tokens;
          }
          if (value > 0) entropy -= value * std::log(value);
          held += value;
          if (held >= 0.9 && span == 0) span = distance + 1;
          float& cell = map.data_ptr<float>()[i / 2 * 150 + j / 2];
          cell = std::max(cell, static_cast<float>(value));
        }
        QVERIFY(std::abs(stats.entropy[h][i].item<double>() - entropy) < 1e-3);
        QVERIFY(std::abs(stats.span_90[h][i].item<double>() - static_cast<double>(span)) <=
                1.0);  // ties of rounding at 90 %
      }
      for (std::size_t b = 0; b < mass.size(); ++b)
        QVERIFY(std::abs(stats.mass_by_distance[h][static_cast<std::int64_t>(b)].item<double>() - mass[b]) < 1e-4);
      for (std::size_t s = 0; s < sinks.size(); ++s)
        QVERIFY(std::abs(stats.sink_mass[h][static_cast<std::int64_t>(s)].item<double>() - sinks[s]) < 1e-4);
      QCOMPARE(stats.map_factor, 2);
      QVERIFY(worst(stats.map_max[h], map) < 1e-5);
    }
  }

  void attentionReductionsDoNotDependOnTheBlocks() {
    at::manual_seed(4);
    const at::Tensor q = at::randn({8, 1500, 4}), k = at::randn({8, 1500, 4});  // several blocks of rows
    const AttentionStatistics whole = attention_statistics(q, k, {}, {}),
                              one = attention_statistics(q.narrow(0, 5, 1), k.narrow(0, 5, 1), {}, {});
    QVERIFY(worst(whole.map_mean[5], one.map_mean[0]) < 1e-6);
    QVERIFY(worst(whole.log_sum_exp[5], one.log_sum_exp[0]) < 1e-4);
    QVERIFY(worst(whole.mass_by_distance[5], one.mass_by_distance[0]) < 1e-5);
    QVERIFY(std::abs(whole.mass_by_distance.sum().item<double>() - 8.0) < 1e-3);
  }

  void appendedWindowsEqualOneLongCapture() {
    const auto whole = request(300, 100);
    auto first = whole, second = whole;
    first.ids.resize(100);
    second.ids.erase(second.ids.begin(), second.ids.begin() + 100);
    capture(*stories(), whole, at("whole.h5"), false, {});
    capture(*stories(), first, at("parts.h5"), false, {});
    capture(*stories(), second, at("parts.h5"), true, {});
    const auto a = CaptureReader::open(at("whole.h5")), b = CaptureReader::open(at("parts.h5"));
    QCOMPARE(b->info().tokens, 300);
    QVERIFY(b->info().complete);
    QCOMPARE(a->token_ids(), b->token_ids());
    QCOMPARE(a->token_texts(), b->token_texts());
    for (const DatasetInfo& dataset : a->info().datasets) {
      if (dataset.dtype == "utf-8" || dataset.path.rfind("/pyramids", 0) == 0) continue;
      const TensorView x = a->read(dataset.path), y = b->read(dataset.path);
      QCOMPARE(x.shape, y.shape);
      QVERIFY2(worst(tensor(x), tensor(y)) < 1e-4, dataset.path.c_str());
    }
    for (const auto pool : {Pool::Min, Pool::Max, Pool::Mean}) {
      QVERIFY(worst(tensor(a->read_pyramid(0, "key", pool, 2)), tensor(b->read_pyramid(0, "key", pool, 2))) < 1e-6);
    }
  }

  void anotherModelOrWindowIsNotAppended() {
    capture(*stories(), request(64, 64), at("other.h5"), false, {});
    QVERIFY_THROWS_EXCEPTION(Error, capture(*stories(), request(64, 32), at("other.h5"), true, {}));
    auto fewer = request(64, 64);
    fewer.taps = {"key"};
    QVERIFY_THROWS_EXCEPTION(Error, capture(*stories(), fewer, at("other.h5"), true, {}));
  }

  void slicesAreParts() {
    capture(*stories(), request(300), at("slices.h5"), false, {});
    const auto reader = CaptureReader::open(at("slices.h5"));
    const at::Tensor whole = tensor(reader->read_layer(3, "value"));
    QVERIFY(at::equal(tensor(reader->read_layer(3, "value", {{1, 3}, {250, 290}, {2, 5}})),
                      whole.slice(0, 1, 3).slice(1, 250, 290).slice(2, 2, 5)));
    QVERIFY(at::equal(tensor(reader->read_layer(3, "value", {{}, {299, -1}})), whole.slice(1, 299, 300)));
    QCOMPARE(reader->read_layer(3, "value", {{0, 0}}).size(), 0);
    QVERIFY_THROWS_EXCEPTION(Error, reader->read_layer(3, "value", {{}, {0, 301}}));
    QVERIFY_THROWS_EXCEPTION(Error, reader->read_layer(3, "value", {{-1, 2}}));
    QVERIFY_THROWS_EXCEPTION(Error, reader->read_layer(3, "nothing"));
  }

  void pyramidsEqualBruteForce() {
    capture(*stories(), request(301, 90), at("pyramid.h5"), false, {});  // windows that do not end on tiles
    const auto reader = CaptureReader::open(at("pyramid.h5"));
    const at::Tensor key = tensor(reader->read_layer(0, "key"));
    for (const std::int64_t factor : pyramid_factors(301, key.size(2))) {
      for (const auto pool : {Pool::Min, Pool::Max, Pool::Mean}) {
        const TensorView level = reader->read_pyramid(0, "key", pool, factor);
        QVERIFY(!level.empty());
        QVERIFY(worst(tensor(level), pooled_by_brute_force(key, factor, pool)) < 1e-5);
      }
    }
    QVERIFY(reader->read_pyramid(0, "key", Pool::Max, 1 << 20).empty());
  }

  void sixteenBitTypesAreStoredAsTheyAre() {
    const auto model = stories();
    for (const std::string dtype : {"float16", "bfloat16"}) {
      ModelInfo info = model->info();
      info.dtype = dtype;
      const Model typed(info, model->spec(), model->shared_weights(), nullptr, model->options());
      const auto wanted = request(64);
      capture(typed, wanted, at("half.h5"), false, {});
      const auto reader = CaptureReader::open(at("half.h5"));
      const auto type = dtype == "float16" ? at::kHalf : at::kBFloat16;
      QVERIFY(
          at::equal(tensor(reader->read_layer(0, "key")), record(wanted.ids).calls.at(0).key.to(type).to(at::kFloat)));
      for (const DatasetInfo& dataset : reader->info().datasets) {
        if (dataset.path == "/layers/000/key") QCOMPARE(dataset.dtype, dtype);
      }
      auto portable = wanted;
      portable.portable_f32 = true;
      capture(typed, portable, at("portable.h5"), false, {});
      QVERIFY(at::equal(tensor(CaptureReader::open(at("portable.h5"))->read_layer(0, "key")),
                        record(wanted.ids).calls.at(0).key));
    }
  }

  void weightsComeOnRequest() {
    auto wanted = request(16);
    wanted.weights = true;
    capture(*stories(), wanted, at("weights.h5"), false, {});
    const auto reader = CaptureReader::open(at("weights.h5"));
    const at::Tensor stored = tensor(reader->read("/weights/" + linear_name(1, LinearKind::Down) + ".weight"));
    QVERIFY(at::equal(stored, stories()->weights().blocks[1].linear(LinearKind::Down).weight()));
  }

  void theForecastIsAnUpperBound() {
    for (const std::int64_t tokens : {16, 300}) {
      const auto wanted = request(tokens);
      const CaptureForecast forecast = forecast_capture(stories()->info(), wanted, at("forecast.h5"));
      capture(*stories(), wanted, at("forecast.h5"), false, {});
      QVERIFY2(static_cast<std::int64_t>(fs::file_size(at("forecast.h5"))) <= forecast.bytes,
               qPrintable(QString("%1 bytes, forecast %2").arg(fs::file_size(at("forecast.h5"))).arg(forecast.bytes)));
      QVERIFY(forecast.free_disk > 0);
    }
  }

  void calibrationHoldsEveryLinear() {
    capture(*stories(), request(100), at("calibration.h5"), false, {});
    const auto reader = CaptureReader::open(at("calibration.h5"));
    const Calibration calibration = calibration_from_capture(*reader);
    QCOMPARE(calibration.activation_absmax.size(), static_cast<std::size_t>(stories()->info().layers * 7));
    QCOMPARE(calibration.tokens, 100);
    QCOMPARE(calibration.model_fingerprint, stories()->info().fingerprint);
  }

  void aCancelledCaptureKeepsWhatWasFlushed() {
    std::stop_source stop;
    const JobContext job(stop.get_token(), [&](double fraction, std::string_view) {
      if (fraction > 0.6) stop.request_stop();
    });
    bool cancelled = false;
    try {
      capture(*stories(), request(400, 100), at("cancelled.h5"), false, job);
    } catch (const Cancelled&) {
      cancelled = true;
    }
    QVERIFY(cancelled);
    const auto reader = CaptureReader::open(at("cancelled.h5"));
    QVERIFY(!reader->info().complete);
    const auto first = request(100).ids;
    QVERIFY(at::equal(tensor(reader->read_layer(0, "key", {{}, {0, 100}})), record(first).calls.at(0).key));
    QVERIFY(!fs::exists(at("cancelled.h5.journal")));
    QVERIFY(!fs::exists(at("cancelled.h5.part")));
  }

  void theSyntheticCaptureIsOne() {
    testing::write_synthetic_capture(at("synthetic.h5"), 3, 2100, 2, 96);
    const auto reader = CaptureReader::open(at("synthetic.h5"));
    QVERIFY(reader->info().complete);
    const at::Tensor key = tensor(reader->read_layer(2, "key"));
    QCOMPARE(key.sizes().vec(), (std::vector<std::int64_t>{2, 2100, 96}));
    QVERIFY(key[0].select(1, 3).abs().max().item<double>() > 4 * key[1].abs().max().item<double>());
    QVERIFY(worst(tensor(reader->read_pyramid(1, "key", Pool::Max, 16)), pooled_by_brute_force(key, 16, Pool::Max)) ==
            0.0);
  }

  void resultsComeBackAsTheyWere() {
    EvalReport report;
    report.variant = {"stories", "", "kivi:k_bits=2"};
    report.protocol.text_name = "text \xC3\xA9";
    report.protocol.window = 128;
    report.protocol.kv_mode = KvMode::PrefillQuantized;
    report.tasks = {{"ppl", "perplexity", 3.25, 0.125, 3, 1.5, {1.0, 2.0, 3.0}},
                    {"kl", "kl_divergence_nats", std::nan(""), 0.0, 0, 0.0, {}}};
    report.memory = {1, 2, 3, 4};
    report.kv_bits = 2.5;
    report.seed = 18446744073709551615ull;
    report.fingerprint = "abc";
    write_results(at("results.h5"), {report, report});
    write_results(at("results.h5"), {report});
    const auto back = read_results(at("results.h5"));
    QCOMPARE(back.size(), std::size_t{1});
    QVERIFY(back[0].variant == report.variant);
    QVERIFY(back[0].protocol == report.protocol);
    QCOMPARE(back[0].tasks[0].per_item, report.tasks[0].per_item);
    QCOMPARE(back[0].tasks[0].value, 3.25);
    QVERIFY(std::isnan(back[0].tasks[1].value));
    QCOMPARE(back[0].seed, report.seed);
    QCOMPARE(back[0].memory.peak_rss, 4);
  }
};

QTEST_GUILESS_MAIN(TstCapture)
#include "tst_capture.moc"
