#include "backend/evaluation/calibrate.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "backend/evaluation/python_random.h"
#include "backend/methods/smoothing.h"
#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kSampleBytes = std::int64_t{256} << 20;

class MaximumSink final : public TapSink {
 public:
  explicit MaximumSink(Calibration& calibration) : calibration_(&calibration) {}

  void on_attention(const AttentionCall& call) override {
    see_operand(call.layer, "query", call.query);
    see_operand(call.layer, "key", call.key);
    see_operand(call.layer, "value", call.value);
  }
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind), x);
  }
  void on_router_input(std::int64_t layer, const at::Tensor& x) override { see(router_name(layer), x); }
  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind, expert), x);
  }

  /// @param names   inputs to keep
  /// @param tokens  ascending indices into the text
  void keep_rows(std::vector<std::string> names, std::vector<std::int64_t> tokens, std::int64_t features) {
    tokens_ = std::move(tokens);
    for (std::string& name : names) {
      calibration_->input_rows[std::move(name)] =
          at::empty({static_cast<std::int64_t>(tokens_.size()), features}, at::kFloat);
    }
  }
  void begin_pass(std::int64_t begin, std::int64_t end) {
    const auto first = std::lower_bound(tokens_.begin(), tokens_.end(), begin),
               last = std::lower_bound(first, tokens_.end(), end);
    first_row_ = first - tokens_.begin();
    chosen_ = at::tensor(std::vector<std::int64_t>(first, last), at::kLong) - begin;
  }

 private:
  void see_operand(std::int64_t layer, const char* operand, const at::Tensor& x) {
    const at::Tensor maximum = at::amax(x.to(at::kFloat).abs(), {1});
    at::Tensor& kept = calibration_->activation_absmax[attention_operand_name(layer, operand)];
    kept = kept.defined() ? at::maximum(kept, maximum) : maximum;
  }

  void see(const std::string& name, const at::Tensor& x) {
    if (const auto rows = calibration_->input_rows.find(name);
        rows != calibration_->input_rows.end() && chosen_.numel() > 0) {
      rows->second.narrow(0, first_row_, chosen_.numel()).copy_(x.index_select(0, chosen_));
    }
    const at::Tensor maximum = at::amax(x.to(at::kFloat).abs(), {0});
    if (!at::isfinite(maximum).all().item<bool>()) {
      throw Error(ErrorCode::InvalidArgument,
                  "The input of '" + name + "' holds NaN or infinity; this model cannot be calibrated on this text.");
    }
    at::Tensor& kept = calibration_->activation_absmax[name];
    kept = kept.defined() ? at::maximum(kept, maximum) : maximum.clone();
  }

  Calibration* calibration_;
  std::vector<std::int64_t> tokens_;  ///< whose inputs are kept
  std::int64_t first_row_ = 0;        ///< of the pass
  at::Tensor chosen_;                 ///< int64, tokens of the pass
};

/// The first reader of every norm (the router of a mixture of experts): all linears behind the norm read the same.
std::vector<std::string> sampled_inputs(const ArchitectureSpec& spec) {
  std::vector<std::string> names;
  for (const SmoothingPair& pair : smoothing_pairs(spec))
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) names.push_back(pair_input(pair, layer));
  return names;
}

void sample_rows(MaximumSink& sink, const Model& model, std::int64_t tokens, const InputSample& sample) {
  std::vector<std::string> names = sampled_inputs(model.spec());
  const std::int64_t features = model.info().hidden_size;
  const std::int64_t fit = kSampleBytes / (static_cast<std::int64_t>(names.size()) * features * 4);
  const std::int64_t rows = std::min({sample.rows, tokens, std::max<std::int64_t>(fit, 16)});
  std::vector<std::int64_t> chosen = PythonRandom(sample.seed).sample(tokens, rows);
  std::sort(chosen.begin(), chosen.end());
  sink.keep_rows(std::move(names), std::move(chosen), features);
}

}  // namespace

Calibration calibrate(const Model& model, const std::vector<std::int64_t>& ids, std::int64_t window,
                      const std::string& source, const JobContext& job, const InputSample& sample) {
  if (ids.size() < 2) {
    throw Error(ErrorCode::InvalidArgument, "The calibration text '" + source + "' has " + std::to_string(ids.size()) +
                                                " tokens for this model; maxima of so few say nothing. Use a text of "
                                                "some thousand tokens.");
  }
  const std::int64_t context = model.info().max_context;
  const std::int64_t step = std::min(window > 0 ? window : std::int64_t{512}, context);
  const auto tokens = static_cast<std::int64_t>(ids.size());
  Calibration calibration;
  calibration.model_fingerprint = model.info().fingerprint;
  calibration.source = source;
  calibration.tokens = tokens;
  MaximumSink sink(calibration);
  if (sample.rows > 0) sample_rows(sink, model, tokens, sample);
  translate_torch_errors("Calibrating", [&] {
    const c10::NoGradGuard no_grad;
    FullPrecisionWindow attention;
    for (std::int64_t begin = 0; begin < tokens; begin += step) {
      job.checkpoint(begin, tokens, "Calibrating");
      const std::int64_t end = std::min(begin + step, tokens);
      sink.begin_pass(begin, end);
      const std::vector<std::int64_t> part(ids.begin() + begin, ids.begin() + end);
      forward(model.spec(), model.weights(), RaggedBatch::single(part), attention, LogitRows::None, &sink,
              JobContext());
    }
  });
  job.checkpoint(tokens, tokens, "Calibrating");
  return calibration;
}

}  // namespace qs
