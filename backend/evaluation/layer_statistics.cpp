#include "backend/evaluation/layer_statistics.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <set>

#include "backend/evaluation/calibration_windows.h"
#include "backend/evaluation/protocol.h"
#include "backend/evaluation/window_attention.h"
#include "backend/evaluation/windows.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/linear_statistics.h"
#include "backend/methods/seen_input.h"
#include "backend/model/decoder.h"
#include "backend/model/rope.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::unique_ptr<AttentionProvider> attention_of(const Variant& variant, KvMode mode) {
  if (!variant.kv()) return std::make_unique<FullPrecisionWindow>(variant.weights().attention);
  if (!variant.weights().attention.off()) {
    throw Error(ErrorCode::InvalidArgument,
                "The weight setup quantizes the attention products and the KV setup the cache: keys and values would "
                "be quantized twice. Set quantize_attention=false in the weight setup, or leave out the KV setup.");
  }
  if (mode == KvMode::Streaming && variant.kv()->depends_on_attention()) {
    throw Error(ErrorCode::InvalidArgument,
                "This KV setup chooses by attention, so streaming evaluation decodes token by token, where layers are "
                "not compared. Use the KV mode prefill_quantized.");
  }
  return std::make_unique<WindowAttention>(*variant.kv(), mode, variant.model().spec(), JobContext());
}

LinearPlace place_of(std::int64_t layer, LinearKind kind, std::int64_t expert = -1) {
  return {linear_name(layer, kind, expert), layer, linear_id(kind), expert};
}

/// Means over windows that leave out infinite numbers and count them.
class WindowMean {
 public:
  void add(double value) {
    if (std::isfinite(value)) {
      sum_ += value;
      ++finite_;
    } else if (value > 0.0) {
      ++exact_;
    }
  }
  double mean() const {
    if (finite_ > 0) return sum_ / static_cast<double>(finite_);
    return exact_ > 0 ? kInfinity : std::numeric_limits<double>::quiet_NaN();
  }
  std::int64_t exact() const { return exact_; }

 private:
  double sum_ = 0.0;
  std::int64_t finite_ = 0, exact_ = 0;
};

/// Compares every linear of the quantized model with its unrounded weight while windows run through it.
class StatisticsSink final : public TapSink {
 public:
  StatisticsSink(const DecoderWeights& quantized, const DecoderWeights& unrounded, const JobContext& job)
      : quantized_(quantized), unrounded_(unrounded), job_(job.quiet()) {
    const std::vector<LinearSlot> slots = linear_slots(quantized_), originals = linear_slots(unrounded_);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      linears_[slots[i].name] = rows_.size();
      rows_.push_back(
          {place_of(slots[i].layer, slots[i].kind, slots[i].expert), *slots[i].op, *originals[i].op, {}, {}});
    }
  }

  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind), x);
  }
  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind, expert), x);
  }

  std::vector<LinearStatistics> result() const {
    std::vector<LinearStatistics> linears;
    for (const Row& row : rows_) {
      LinearStatistics linear{row.place, {}, {}, row.windows, row.tokens};
      for (const auto& [name, mean] : row.means) {
        linear.values[name] = mean.mean();
        if (name.rfind("sqnr_", 0) == 0) linear.exact_windows[name] = mean.exact();
      }
      linears.push_back(std::move(linear));
    }
    return linears;
  }

 private:
  struct Row {
    LinearPlace place;
    std::shared_ptr<const LinearOp> quantized, unrounded;
    std::map<std::string, double> of_weight;  ///< does not change from window to window
    std::map<std::string, WindowMean> means;
    std::int64_t windows = 0, tokens = 0;
  };

  void see(const std::string& name, const at::Tensor& x) {
    job_.checkpoint(0, 1, "Layer statistics");
    Row& row = rows_[linears_.at(name)];
    const at::Tensor seen = seen_input(*row.quantized, x);
    const at::Tensor weight = row.unrounded->weight(), kept = row.quantized->weight();
    if (row.of_weight.empty()) row.of_weight = weight_statistics(weight, kept);
    for (const auto& numbers :
         {row.of_weight, input_statistics(x, seen), output_statistics(x, seen, weight, kept, row.unrounded->bias())}) {
      for (const auto& [metric, value] : numbers) row.means[metric].add(value);
    }
    ++row.windows;
    row.tokens += x.size(0);
  }

  DecoderWeights quantized_, unrounded_;
  JobContext job_;
  std::map<std::string, std::size_t> linears_;
  std::vector<Row> rows_;
};

/// Inputs of the linears of one block in full precision, then their distance from those in the quantized model.
class DistanceSink final : public TapSink {
 public:
  enum class Side { Baseline, Quantized };

  void begin(Side side) {
    side_ = side;
    if (side == Side::Baseline) inputs_.clear();
  }
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    see(place_of(layer, kind), x);
  }
  void on_router_input(std::int64_t layer, const at::Tensor& x) override {
    see({router_name(layer), layer, "router", -1}, x);
  }
  void see(const LinearPlace& place, const at::Tensor& x) {
    if (side_ == Side::Baseline) {
      inputs_[place.name] = x.clone();
      return;
    }
    const at::Tensor expected = inputs_.at(place.name).to(at::kDouble), error = expected - x.to(at::kDouble);
    const double squares = error.square().sum().item<double>();
    Row& row = row_of(place);
    row.mse += squares / static_cast<double>(error.numel());
    row.sqnr.add(squares == 0.0 ? kInfinity : 10.0 * std::log10(expected.square().sum().item<double>() / squares));
    ++row.windows;
  }

  std::vector<LinearDistance> result() const {
    std::vector<LinearDistance> linears;
    for (const Row& row : rows_) {
      linears.push_back(
          {row.place, row.sqnr.mean(), row.mse / static_cast<double>(row.windows), row.sqnr.exact(), row.windows});
    }
    return linears;
  }

 private:
  struct Row {
    LinearPlace place;
    WindowMean sqnr;
    double mse = 0.0;
    std::int64_t windows = 0;
  };
  Row& row_of(const LinearPlace& place) {
    const auto [found, added] = index_.emplace(place.name, rows_.size());
    if (added) rows_.push_back({place, {}, 0.0, 0});
    return rows_[found->second];
  }

  Side side_ = Side::Baseline;
  std::map<std::string, at::Tensor> inputs_;
  std::map<std::string, std::size_t> index_;
  std::vector<Row> rows_;
};

at::Tensor head_input(const ArchitectureSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden) {
  const at::Tensor normed = apply_norm(spec, hidden, weights.final_norm);
  return weights.project_out ? weights.project_out->apply(normed) : normed;
}

/// Both models over one window, a block of one behind the same block of the other.
void run_side_by_side(const Variant& variant, const DecoderWeights& unrounded, const std::vector<std::int64_t>& ids,
                      KvMode mode, DistanceSink& sink, const JobContext& job) {
  const ArchitectureSpec& spec = variant.model().spec();
  const RaggedBatch batch = RaggedBatch::single(ids);
  const RopeTables tables = rope_tables(spec, batch);
  const std::unique_ptr<AttentionProvider> attention = attention_of(variant, mode);
  FullPrecisionWindow full;
  at::Tensor expected = embed_tokens(spec, unrounded, batch), hidden = embed_tokens(spec, variant.weights(), batch);
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    job.checkpoint(layer, spec.layers, "Layer distance");
    const auto index = static_cast<std::size_t>(layer);
    sink.begin(DistanceSink::Side::Baseline);
    expected = run_block(spec, unrounded.blocks[index], layer, batch, expected, full, &sink, &tables);
    sink.begin(DistanceSink::Side::Quantized);
    hidden = run_block(spec, variant.weights().blocks[index], layer, batch, hidden, *attention, &sink, &tables);
  }
  const LinearPlace head{"lm_head", -1, "lm_head", -1};
  sink.begin(DistanceSink::Side::Baseline);
  sink.see(head, head_input(spec, unrounded, expected));
  sink.begin(DistanceSink::Side::Quantized);
  sink.see(head, head_input(spec, variant.weights(), hidden));
}

std::string csv_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0.0 ? "inf" : "-inf";
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

}  // namespace

DecoderWeights unrounded_weights(const Model& model, const std::optional<Setup>& setup, const WeightContext& context,
                                 const JobContext& job) {
  if (!setup) return model.weights();
  const c10::NoGradGuard no_grad;
  WeightContext quiet = context;
  quiet.on_linear = {};
  return translate_torch_errors("Preparing the weights",
                                [&] { return make_weight_method(*setup)->prepare(model, quiet, job); });
}

LayerStatistics layer_statistics(const Variant& variant, const DecoderWeights& unrounded, const EvalRequest& request,
                                 const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const EvalWindows cut = cut_windows(variant.model(), request);
  LayerStatistics result;
  result.variant = variant.label();
  result.protocol = protocol_of(variant.model(), request, cut);
  result.fingerprint = fingerprint(result.protocol);
  StatisticsSink sink(variant.weights(), unrounded, job);
  const auto count = static_cast<std::int64_t>(cut.windows.size());
  for (std::int64_t i = 0; i < count; ++i) {
    job.checkpoint(i, count, "Layer statistics");
    const std::unique_ptr<AttentionProvider> attention = attention_of(variant, request.kv_mode);
    forward(variant.model().spec(), variant.weights(), RaggedBatch::single(cut.windows[static_cast<std::size_t>(i)]),
            *attention, LogitRows::None, &sink, job.quiet());
  }
  result.linears = sink.result();
  job.checkpoint(count, count, "Layer statistics");
  return result;
}

LayerDistance layer_distance(const Variant& variant, const DecoderWeights& unrounded, const DistanceRequest& request,
                             const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const Model& model = variant.model();
  const std::int64_t window =
      request.window > 0 ? request.window : std::min<std::int64_t>(2048, model.info().max_context);
  const CalibrationWindows drawn =
      calibration_windows(model, encode_with_bos(model.tokenizer(), request.text.text), request.text.name,
                          request.text.sha256, std::max<std::int64_t>(1, request.windows), window, request.seed);
  EvalRequest protocol{.text = request.text, .window = drawn.seqlen, .kv_mode = request.kv_mode};
  LayerDistance result;
  result.variant = variant.label();
  result.protocol = protocol_of(model, protocol, {drawn.windows, drawn.seqlen, 0});
  result.protocol.joining_rule = "random starts, seed " + std::to_string(request.seed);
  result.fingerprint = fingerprint(result.protocol);
  result.seed = request.seed;
  result.starts = drawn.starts;
  result.notes = drawn.notes;
  if (model.spec().experts > 0) {
    result.notes.emplace_back(
        "Linears of experts are left out: the two models route tokens apart. The router's input stands for them.");
  }
  DistanceSink sink;
  const auto count = static_cast<std::int64_t>(drawn.windows.size());
  translate_torch_errors("Comparing the models", [&] {
    for (std::int64_t i = 0; i < count; ++i) {
      const JobContext part = job.part(static_cast<double>(i) / static_cast<double>(count),
                                       static_cast<double>(i + 1) / static_cast<double>(count));
      run_side_by_side(variant, unrounded, drawn.windows[static_cast<std::size_t>(i)], request.kv_mode, sink, part);
    }
  });
  result.linears = sink.result();
  job.checkpoint(count, count, "Layer distance");
  return result;
}

std::string csv_text(const LayerStatistics& statistics) {
  std::string text = "layer";
  std::set<std::string> metrics;
  for (const LinearStatistics& linear : statistics.linears)
    for (const auto& [name, value] : linear.values) metrics.insert(name);
  for (const std::string& metric : metrics) text += "," + metric;
  text += "\n";
  for (const LinearStatistics& linear : statistics.linears) {
    text += linear.place.name;
    for (const std::string& metric : metrics) {
      const auto found = linear.values.find(metric);
      text += "," + (found == linear.values.end() ? std::string() : csv_number(found->second));
    }
    text += "\n";
  }
  return text;
}

std::string csv_text(const LayerDistance& distance) {
  std::string text = "layer,mse,sqnr\n";
  for (const LinearDistance& linear : distance.linears)
    text += linear.place.name + "," + csv_number(linear.mse) + "," + csv_number(linear.sqnr_db) + "\n";
  return text;
}

}  // namespace qs
