#include "backend/evaluation/calibrate.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

class MaximumSink final : public TapSink {
 public:
  explicit MaximumSink(Calibration& calibration) : calibration_(&calibration) {}

  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind), x);
  }
  void on_router_input(std::int64_t layer, const at::Tensor& x) override { see(router_name(layer), x); }
  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    see(linear_name(layer, kind, expert), x);
  }

 private:
  void see(const std::string& name, const at::Tensor& x) {
    const at::Tensor maximum = at::amax(x.to(at::kFloat).abs(), {0});
    if (!at::isfinite(maximum).all().item<bool>()) {
      throw Error(ErrorCode::InvalidArgument,
                  "The input of '" + name + "' holds NaN or infinity; this model cannot be calibrated on this text.");
    }
    at::Tensor& kept = calibration_->activation_absmax[name];
    kept = kept.defined() ? at::maximum(kept, maximum) : maximum.clone();
  }

  Calibration* calibration_;
};

}  // namespace

Calibration calibrate(const Model& model, const std::vector<std::int64_t>& ids, std::int64_t window,
                      const std::string& source, const JobContext& job) {
  if (ids.empty()) throw Error(ErrorCode::InvalidArgument, "The calibration text '" + source + "' has no tokens.");
  const std::int64_t context = model.info().max_context;
  const std::int64_t step = std::min(window > 0 ? window : std::int64_t{512}, context);
  const auto tokens = static_cast<std::int64_t>(ids.size());
  Calibration calibration;
  calibration.model_fingerprint = model.info().fingerprint;
  calibration.source = source;
  calibration.tokens = tokens;
  MaximumSink sink(calibration);
  translate_torch_errors("Calibrating", [&] {
    const c10::NoGradGuard no_grad;
    FullPrecisionWindow attention;
    for (std::int64_t begin = 0; begin < tokens; begin += step) {
      job.checkpoint(begin, tokens, "Calibrating");
      const std::int64_t end = std::min(begin + step, tokens);
      const std::vector<std::int64_t> part(ids.begin() + begin, ids.begin() + end);
      forward(model.spec(), model.weights(), RaggedBatch::single(part), attention, LogitRows::None, &sink,
              JobContext());
    }
  });
  job.checkpoint(tokens, tokens, "Calibrating");
  return calibration;
}

}  // namespace qs
