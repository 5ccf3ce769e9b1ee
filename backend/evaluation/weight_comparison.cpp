#include "backend/evaluation/weight_comparison.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/layer_statistics.h"
#include "backend/evaluation/tensor_bridge.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/linear_grid.h"
#include "backend/model/variant.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {

struct WeightComparison::Impl {
  std::shared_ptr<const Variant> variant;
  CaptureReader* capture = nullptr;
  std::unique_ptr<WeightMethod> method;
  DecoderWeights original, prepared, quantized;
  std::vector<LinearSlot> original_slots, prepared_slots, quantized_slots;

  std::size_t index_of(const std::string& name) const {
    for (std::size_t i = 0; i < quantized_slots.size(); ++i) {
      if (quantized_slots[i].name == name) return i;
    }
    throw Error(ErrorCode::NotFound, "The model has no linear layer '" + name + "'.");
  }

  double bits_of(std::size_t i) const {
    const LinearOp& linear = **quantized_slots[i].op;
    const double count = static_cast<double>(linear.out_features()) * static_cast<double>(linear.in_features());
    if (linear.packed()) return 8.0 * static_cast<double>(linear.bytes()) / count;
    if (quantized.measured_bits > 0.0) return quantized.measured_bits;
    return method->effective_bits(linear.out_features(), linear.in_features());
  }

  const LinearSlot* slot_of(const std::vector<LinearSlot>& slots, const std::string& name) const {
    const auto found = std::find_if(slots.begin(), slots.end(), [&](const LinearSlot& s) { return s.name == name; });
    return found == slots.end() ? nullptr : &*found;
  }

  /// Linears that read the same input as this one, the one that a capture names first.
  std::vector<std::string> sharing_input(const LinearSlot& slot) const {
    std::vector<std::string> names = {slot.name};
    if (slot.kind == LinearKind::K || slot.kind == LinearKind::V)
      names.push_back(linear_name(slot.layer, LinearKind::Q));
    if (slot.kind == LinearKind::Up) names.push_back(linear_name(slot.layer, LinearKind::Gate, slot.expert));
    const bool from_norm = slot.kind == LinearKind::Up || slot.kind == LinearKind::Gate;
    if (from_norm && slot.expert >= 0) names.push_back(router_name(slot.layer));
    if (from_norm && variant->model().spec().shared_norm) names.push_back(linear_name(slot.layer, LinearKind::Q));
    return names;
  }

  /// What smoothing multiplied the columns of a linear by, f32 [in_features]; undefined where it cannot be told because
  /// its rows were scaled too.
  at::Tensor column_factor(const LinearSlot& slot) const {
    // v_proj and up_proj may have had their rows divided; what shares their input was not.
    const LinearKind kind = slot.kind == LinearKind::K || slot.kind == LinearKind::V ? LinearKind::Q
                            : slot.kind == LinearKind::Up                            ? LinearKind::Gate
                                                                                     : slot.kind;
    const std::string name = linear_name(slot.layer, kind, slot.expert);
    const LinearSlot *before = slot_of(original_slots, name), *after = slot_of(prepared_slots, name);
    if (!before || !after) return {};
    const at::Tensor old_norm = (*before->op)->weight().square().sum(0), now = (*after->op)->weight().square().sum(0);
    return at::where(old_norm > 0, (now / old_norm).sqrt(), at::ones_like(old_norm));
  }

  std::vector<float> second_moment(std::size_t i) const {
    const LinearSlot& slot = quantized_slots[i];
    if (!capture) return {};
    const std::vector<std::string>& known = capture->info().linears;
    for (const std::string& name : sharing_input(slot)) {
      if (std::find(known.begin(), known.end(), name) == known.end()) continue;
      std::vector<float> moments = capture->activation_stats(name).second_moment;
      if (static_cast<std::int64_t>(moments.size()) != (*slot.op)->in_features()) return {};
      const bool smoothed = prepared_slots[i].op->get() != original_slots[i].op->get();
      if (!smoothed) return moments;
      const at::Tensor factor = column_factor(slot).defined() ? column_factor(slot).contiguous() : at::Tensor();
      if (!factor.defined()) return {};
      for (std::size_t j = 0; j < moments.size(); ++j) {
        const float s = factor.data_ptr<float>()[j];
        moments[j] /= s * s;
      }
      return moments;
    }
    return {};
  }
};

std::shared_ptr<const DecoderWeights> unrounded_weights(const Variant& variant, CaptureReader* capture,
                                                        const JobContext& job) {
  if (!variant.weight_setup()) {
    throw Error(ErrorCode::InvalidArgument,
                "The variant keeps its weights in full precision: there is nothing to compare.");
  }
  WeightContext context;
  Calibration calibration;
  const CalibrationNeeds needs = weight_calibration_needs(*variant.weight_setup());
  if (capture && (needs.activation_maxima || needs.input_rows)) {
    calibration = calibration_from_capture(*capture);
    if (needs.input_rows) {
      calibration.input_rows =
          calibrate(variant.model(), capture->token_ids(), 0, calibration.source, job.part(0.0, 0.5), kUsualInputSample)
              .input_rows;
    }
    context.calibration = &calibration;
  }
  return std::make_shared<const DecoderWeights>(
      unrounded_weights(variant.model(), variant.weight_setup(), context, job.part(0.5, 1.0)));
}

WeightComparison::WeightComparison(std::shared_ptr<const Variant> variant, CaptureReader* capture,
                                   const JobContext& job)
    : impl_(std::make_unique<Impl>()) {
  const c10::NoGradGuard no_gradients;
  Impl& impl = *impl_;
  impl.prepared = *unrounded_weights(*variant, capture, job);
  impl.variant = std::move(variant);
  impl.capture = capture;
  impl.method = make_weight_method(*impl.variant->weight_setup());
  impl.original = impl.variant->model().weights();
  impl.quantized = impl.variant->weights();
  impl.original_slots = linear_slots(impl.original);
  impl.prepared_slots = linear_slots(impl.prepared);
  impl.quantized_slots = linear_slots(impl.quantized);
}

WeightComparison::~WeightComparison() = default;

std::vector<std::string> WeightComparison::names() const {
  std::vector<std::string> names;
  for (const LinearSlot& slot : impl_->quantized_slots) names.push_back(slot.name);
  return names;
}

ComparedLinear WeightComparison::compare(const std::string& name) const {
  const c10::NoGradGuard no_gradients;
  const std::size_t i = impl_->index_of(name);
  ComparedLinear linear;
  linear.name = name;
  linear.layer = impl_->quantized_slots[i].layer;
  linear.original = as_view((*impl_->prepared_slots[i].op)->weight());
  linear.quantized = as_view((*impl_->quantized_slots[i].op)->weight());
  linear.effective_bits = impl_->bits_of(i);
  linear.input_second_moment = impl_->second_moment(i);
  return linear;
}

LinearGrid WeightComparison::grid(const std::string& name) const {
  const c10::NoGradGuard no_gradients;
  return linear_grid(**impl_->quantized_slots[impl_->index_of(name)].op);
}

}  // namespace qs
