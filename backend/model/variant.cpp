#include "backend/model/variant.h"

#include <ATen/core/Tensor.h>

#include <set>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/packed_linear.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

double stored_bits(const std::string& dtype) {
  if (dtype == "float64") return 64.0;
  return dtype == "float32" ? 32.0 : 16.0;
}

/// Bits of the block linears, from allocations where codes are kept. @param dense  of a linear without codes
template <typename DenseBits>
double mean_bits(const DecoderWeights& weights, double fallback, DenseBits&& dense) {
  double bits = 0.0, elements = 0.0;
  DecoderWeights copy = weights;
  for (const LinearSlot& slot : linear_slots(copy)) {
    const LinearOp& linear = **slot.op;
    const double count = static_cast<double>(linear.out_features()) * static_cast<double>(linear.in_features());
    bits += linear.packed() ? 8.0 * static_cast<double>(linear.bytes()) : count * dense(linear);
    elements += count;
  }
  return elements > 0.0 ? bits / elements : fallback;
}

/// "as stored: 4 bits, groups of 128" for a model whose checkpoint holds codes; empty for floating point.
std::string stored_codes(const DecoderWeights& weights) {
  DecoderWeights copy = weights;
  std::string text;
  for (const LinearSlot& slot : linear_slots(copy)) {
    const auto* const linear = dynamic_cast<const PackedLinear*>(slot.op->get());
    if (!linear) continue;
    const LinearCodes codes = linear->linear_codes(false);
    std::string found = std::to_string(codes.bits) + " bits";
    if (codes.groups() > 1) found += ", groups of " + std::to_string(codes.group_size);
    if (codes.inputs != CodedInputs::AsTheyAre) found += ", inputs too";
    if (text.empty()) text = found;
    if (text != found) return "as stored: mixed widths";
  }
  return text.empty() ? text : "as stored: " + text;
}

void check_calibration(const Model& model, const Setup& setup, const WeightContext& context) {
  const CalibrationNeeds needs = weight_calibration_needs(setup);
  const std::string line = format_setup(setup, weight_method_infos());
  if (needs.token_windows && (!context.windows || context.windows->windows.empty()))
    throw Error(ErrorCode::InvalidArgument, "The setup '" + line +
                                                "' needs windows of a calibration text that it runs through the "
                                                "model block by block. Name a text to calibrate on.");
  if (!needs.activation_maxima && !needs.input_rows) return;
  const Calibration* const calibration = context.calibration;
  if (!calibration)
    throw Error(ErrorCode::InvalidArgument,
                "The setup '" + line +
                    "' needs a calibration: the activation maxima of a capture of this model. Capture a text "
                    "with activations first.");
  if (!calibration->model_fingerprint.empty() && calibration->model_fingerprint != model.info().fingerprint)
    throw Error(ErrorCode::InvalidArgument, "The calibration from '" + calibration->source +
                                                "' was made on another model than '" + model.info().name +
                                                "'. Capture a text with this model.");
}

void check_kv_calibration(const Model& model, const Setup& setup, const KvArtifact* artifact) {
  const Setup* const calibrated = calibrated_kv_part(setup);
  if (calibrated && !artifact)
    throw Error(ErrorCode::InvalidArgument,
                "The KV method '" + calibrated->method + "' needs a calibration on '" + model.info().name +
                    "'. Calibrate it first (quantoscope-cli calibrate, or Quantize > Calibrate), or name a text to "
                    "calibrate on.");
  if (artifact && artifact->model_fingerprint != model.info().fingerprint)
    throw Error(ErrorCode::InvalidArgument, "The calibration from '" + artifact->source + "' was made on '" +
                                                artifact->model_name + "', not on '" + model.info().name +
                                                "'. Calibrate with this model.");
}

}  // namespace

Variant::Variant(std::shared_ptr<const Model> model, std::shared_ptr<const DecoderWeights> weights,
                 std::optional<Setup> weight_setup, std::shared_ptr<const KvPlan> kv, std::optional<Setup> kv_setup)
    : model_(std::move(model)),
      weights_(std::move(weights)),
      weight_setup_(std::move(weight_setup)),
      kv_(std::move(kv)),
      kv_setup_(std::move(kv_setup)) {}

Variant::~Variant() = default;

VariantLabel Variant::label() const {
  VariantLabel label;
  label.model = model_->info().name;
  label.weights = weight_setup_ ? format_setup(*weight_setup_, weight_method_infos()) : stored_codes(*weights_);
  if (kv_setup_) label.kv = format_setup(*kv_setup_, kv_method_infos());
  return label;
}

std::int64_t Variant::weight_bytes() const { return weights_->bytes(); }

double Variant::weight_bits() const {
  const double stored = stored_bits(model_->info().dtype);
  if (!weight_setup_) return mean_bits(*weights_, stored, [stored](const LinearOp&) { return stored; });
  const auto method = make_weight_method(*weight_setup_);
  DecoderWeights original = model_->weights();
  std::set<const LinearOp*> untouched;
  for (const LinearSlot& slot : linear_slots(original)) untouched.insert(slot.op->get());
  return mean_bits(*weights_, stored, [&](const LinearOp& linear) {
    if (untouched.count(&linear)) return stored;
    if (weights_->measured_bits > 0.0) return weights_->measured_bits;
    return method->effective_bits(linear.out_features(), linear.in_features());
  });
}

std::shared_ptr<const Variant> make_variant(std::shared_ptr<const Model> model, const std::optional<Setup>& weights,
                                            const std::optional<Setup>& kv, const Calibration* calibration,
                                            WeightExecution execution, const JobContext& job,
                                            const KvArtifact* kv_artifact) {
  WeightContext context;
  context.calibration = calibration;
  context.execution = execution;
  return make_variant(std::move(model), weights, kv, context, job, kv_artifact);
}

std::shared_ptr<const Variant> make_variant(std::shared_ptr<const Model> model, const std::optional<Setup>& weights,
                                            const std::optional<Setup>& kv, const WeightContext& context,
                                            const JobContext& job, const KvArtifact* kv_artifact) {
  std::shared_ptr<const KvPlan> plan;
  if (kv) {
    check_kv_calibration(*model, *kv, kv_artifact);
    plan = make_kv_plan(*kv, model->spec().layers, kv_artifact);
    for (std::int64_t layer = 0; layer < plan->layers(); ++layer)
      plan->layer(layer).check_fits(cache_shape(model->spec(), layer));
  }
  std::shared_ptr<const DecoderWeights> quantized = model->shared_weights();
  if (weights) {
    check_calibration(*model, *weights, context);
    const auto method = make_weight_method(*weights);
    quantized = translate_torch_errors("Quantizing the weights", [&] {
      return std::make_shared<const DecoderWeights>(method->apply(*model, context, job));
    });
  }
  return std::make_shared<const Variant>(std::move(model), std::move(quantized), weights, std::move(plan), kv);
}

}  // namespace qs
