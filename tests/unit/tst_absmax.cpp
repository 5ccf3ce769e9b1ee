#include <ATen/ATen.h>

#include <QTest>
#include <cmath>
#include <functional>
#include <random>

#include "backend/method_registry.h"
#include "backend/methods/absmax_method.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::shared_ptr<const Model> model_of(const std::string& dtype = "float32") {
  static std::map<std::string, std::shared_ptr<const Model>> models;
  auto& model = models[dtype];
  if (!model) model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {.dtype = dtype}, {});
  return model;
}

std::unique_ptr<WeightMethod> method(const std::string& params) {
  return make_weight_method(*parse_weight_setup("absmax:" + params));
}

DecoderWeights applied(const std::string& params, WeightExecution execution = WeightExecution::Simulated,
                       const std::string& dtype = "float32") {
  WeightContext context;
  context.execution = execution;
  return method(params)->apply(*model_of(dtype), context, {});
}

at::Tensor random_rows(std::int64_t rows, std::int64_t columns) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  at::Tensor x = at::empty({rows, columns}, at::kFloat);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = normal(generator);
  return x;
}

/// A1 in double precision, one scale for every run of `length` values.
at::Tensor brute_force(const at::Tensor& x, int bits, std::int64_t length) {
  const double levels = std::pow(2.0, bits - 1) - 1.0;
  at::Tensor result = x.to(at::kDouble).contiguous().clone();
  double* const data = result.data_ptr<double>();
  for (std::int64_t begin = 0; begin < x.numel(); begin += length) {
    double largest = 1e-5;
    for (std::int64_t i = begin; i < begin + length; ++i) largest = std::max(largest, std::fabs(data[i]));
    const double scale = largest / levels;
    for (std::int64_t i = begin; i < begin + length; ++i) data[i] = std::nearbyint(data[i] / scale) * scale;
  }
  return result.to(at::kFloat);
}

at::Tensor logits_of(const DecoderWeights& weights) {
  std::vector<std::int64_t> ids = {1};
  while (ids.size() < 40) ids.push_back((ids.back() * 37 + 11) % 509 + 3);
  FullPrecisionWindow attention(weights.attention);
  return forward(model_of()->spec(), weights, RaggedBatch::single(ids), attention, LogitRows::All, nullptr, {});
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / expected.norm().item<double>();
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

class TestAbsmax : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void keysAndValuesAloneWithTheirOutputs() {
    DecoderWeights weights = applied("bits_w=4,bits_a=4,scope=kv"), plain = model_of()->weights();
    const auto after = linear_slots(weights), before = linear_slots(plain);
    for (std::size_t i = 0; i < after.size(); ++i) {
      const at::Tensor x = random_rows(5, (*after[i].op)->in_features());
      const at::Tensor original = (*before[i].op)->weight(), y = (*after[i].op)->apply(x);
      if (after[i].kind != LinearKind::K && after[i].kind != LinearKind::V) {
        QVERIFY(y.equal((*before[i].op)->apply(x)));
        continue;
      }
      const at::Tensor rounded = brute_force(original, 4, original.size(1));
      QVERIFY(at::allclose((*after[i].op)->weight(), rounded, 1e-3, 1e-6));  // scales are kept in f16
      // The inputs are not quantized, the outputs over the full width are.
      const at::Tensor product = at::mm(x, (*after[i].op)->weight().t());
      QVERIFY(at::allclose(y, brute_force(product, 4, product.size(1)), 1e-4, 1e-5));
    }
  }

  void weightsMayStayAlone() {
    const DecoderWeights weights = applied("bits_w=16,bits_a=8,scope=kv");
    QVERIFY(weights.blocks[0]
                .linear(LinearKind::K)
                .weight()
                .equal(model_of()->weights().blocks[0].linear(LinearKind::K).weight()));
    const double error = relative(logits_of(weights), logits_of(model_of()->weights()));
    QVERIFY(error > 0.0 && error < 0.05);
  }

  void allLinearsQuantizeTheirInputs() {
    const DecoderWeights weights = applied("bits_w=8,bits_a=8,scale_dtype=f32");
    const LinearOp& down = weights.blocks[1].linear(LinearKind::Down);
    const at::Tensor x = random_rows(4, down.in_features());
    const at::Tensor original = model_of()->weights().blocks[1].linear(LinearKind::Down).weight();
    const at::Tensor expected = at::mm(brute_force(x, 8, x.size(1)), brute_force(original, 8, original.size(1)).t());
    QVERIFY(relative(down.apply(x), expected) < 1e-5);
    const DecoderWeights whole = applied("act_quant=per_tensor,weight_quant=per_tensor,scale_dtype=f32");
    QVERIFY(relative(whole.blocks[1].linear(LinearKind::Down).weight(), brute_force(original, 8, original.numel())) <
            1e-6);
  }

  void productsOfAttentionMayBeQuantized() {
    const DecoderWeights with = applied("quantize_bmm_input=true"), without = applied("bits_a=8");
    const at::Tensor x = random_rows(4, 64);
    for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V}) {
      const at::Tensor y = without.blocks[0].linear(kind).apply(x);
      QVERIFY(at::allclose(with.blocks[0].linear(kind).apply(x), brute_force(y, 8, y.size(1)), 1e-4, 1e-5));
    }
    QVERIFY(with.blocks[0].linear(LinearKind::O).apply(x).equal(without.blocks[0].linear(LinearKind::O).apply(x)));
  }

  void packedEqualsSimulated() {
    for (const char* params : {"bits_w=8", "bits_w=4,bits_a=4", "bits_w=8,quantize_bmm_input=true",
                               "bits_w=8,bits_a=8,scope=kv", "bits_w=4,bits_a=16,weight_quant=per_tensor"}) {
      const DecoderWeights simulated = applied(params), packed = applied(params, WeightExecution::Packed);
      QVERIFY(packed.blocks[0].linear(LinearKind::K).packed());
      QVERIFY2(relative(logits_of(packed), logits_of(simulated)) < 1e-2, params);
    }
  }

  void otherLinearsKeepTheBitsTheyAreStoredIn() {
    const auto bits_of = [](const std::string& line, WeightExecution execution) {
      return make_variant(model_of(), parse_weight_setup(line), std::nullopt, nullptr, execution, {})->weight_bits();
    };
    const double stored = make_variant(model_of(), std::nullopt, std::nullopt, nullptr, {}, {})->weight_bits();
    DecoderWeights plain = model_of()->weights();
    double bits = 0.0, elements = 0.0, stored_part = 0.0;
    for (const LinearSlot& slot : linear_slots(plain)) {
      const double size = static_cast<double>((*slot.op)->weight().numel());
      const bool quantized = slot.kind == LinearKind::K || slot.kind == LinearKind::V;
      bits += size * (quantized ? 4.0 + 16.0 / static_cast<double>((*slot.op)->in_features()) : stored);
      elements += size;
      if (!quantized) stored_part += size;
    }
    for (const WeightExecution execution : {WeightExecution::Simulated, WeightExecution::Packed})
      QVERIFY(std::fabs(bits_of("absmax:bits_w=4,bits_a=4,scope=kv", execution) - bits / elements) < 1e-6);
    QVERIFY(std::fabs(bits_of("absmax:bits_w=4", WeightExecution::Simulated) - 4.0) < 0.3);
    // Behind a method that rewrites weights, what it rewrote and nobody quantized counts as 16-bit floats.
    DecoderWeights rewritten = model_of()->weights();
    for (const LinearSlot& slot : linear_slots(rewritten))
      *slot.op = std::make_shared<DenseLinear>((*slot.op)->weight(), (*slot.op)->bias());
    WeightContext context;
    context.weights = &rewritten;
    const DecoderWeights behind = method("bits_w=4,bits_a=4,scope=kv")->apply(*model_of(), context, {});
    QVERIFY(std::fabs(behind.measured_bits - (bits - stored_part * stored + stored_part * 16.0) / elements) < 1e-6);
  }

  void nativeArithmeticIsCoarser() {
    const DecoderWeights exact = applied("bits_a=16", WeightExecution::Simulated, "bfloat16"),
                         native = applied("bits_a=16,compute=native", WeightExecution::Simulated, "bfloat16");
    const at::Tensor original = model_of("bfloat16")->weights().blocks[0].linear(LinearKind::Up).weight();
    const double of_exact = relative(exact.blocks[0].linear(LinearKind::Up).weight(), original),
                 of_native = relative(native.blocks[0].linear(LinearKind::Up).weight(), original);
    QVERIFY2(of_native > of_exact && of_native < 0.05, qPrintable(QString("%1, %2").arg(of_native).arg(of_exact)));
  }

  void onlyTheLayersOfTheContextAreQuantized() {
    WeightContext context;
    context.layers = {{2, 2}};
    const DecoderWeights weights = method("bits_w=4")->apply(*model_of(), context, {});
    for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer)
      QCOMPARE(weights.blocks[layer]
                   .linear(LinearKind::Up)
                   .weight()
                   .equal(model_of()->weights().blocks[layer].linear(LinearKind::Up).weight()),
               layer != 2);
  }

  void whatDoesNotFitIsRefused() {
    QVERIFY(message_of([] { method("bits_w=9"); }).find("2 to 8, or 16") != std::string::npos);
    QVERIFY(message_of([] { method("scope=kv,quantize_bmm_input=true"); }).find("scope=all") != std::string::npos);
    QVERIFY(message_of([] { applied("compute=native", WeightExecution::Packed); }).find("simulated") !=
            std::string::npos);
  }

  void namesTellWhatIsQuantized() {
    const auto made = method("bits_w=4,scope=kv");
    const at::Tensor w = random_rows(8, 16);
    QVERIFY(made->quantize_weight(w, "model.layers.0.self_attn.q_proj.weight").values.equal(w));
    QVERIFY(!made->quantize_weight(w, "model.layers.0.self_attn.k_proj.weight").values.equal(w));
  }
};

QTEST_GUILESS_MAIN(TestAbsmax)
#include "tst_absmax.moc"
