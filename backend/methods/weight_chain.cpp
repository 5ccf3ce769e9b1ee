#include "backend/methods/weight_chain.h"

#include <ATen/ATen.h>

#include <charconv>

#include "backend/methods/activation_quantization.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

DecoderWeights start_of(const Model& model, const WeightContext& context) {
  return context.weights ? *context.weights : model.weights();
}

std::string joined(const std::string& behind, const std::string& line) {
  return behind.empty() ? line : behind + " then " + line;
}

JobContext slice(const JobContext& job, std::size_t index, std::size_t count) {
  const auto whole = static_cast<double>(count);
  return job.part(static_cast<double>(index) / whole, static_cast<double>(index + 1) / whole);
}

/// Puts back what a method that knows nothing of the one before it has dropped.
void keep_activations(DecoderWeights before, DecoderWeights& weights) {
  const std::vector<LinearSlot> old = linear_slots(before), now = linear_slots(weights);
  for (std::size_t i = 0; i < now.size(); ++i) *now[i].op = keep_input_quantization(**old[i].op, *now[i].op);
  if (weights.attention.off()) weights.attention = before.attention;
}

/// Bits of the linears that a run made and that are kept as floats: what the run measured, else the formula.
struct BitCount {
  double bits = 0.0, elements = 0.0;

  void add(const DecoderWeights& before, const DecoderWeights& after, const LayerRange& range,
           const WeightMethod& method) {
    DecoderWeights old = before, now = after;
    for (std::int64_t layer = range.first; layer <= range.last; ++layer) {
      const auto index = static_cast<std::size_t>(layer);
      const std::vector<LinearSlot> was = linear_slots(old.blocks[index], layer),
                                    is = linear_slots(now.blocks[index], layer);
      for (std::size_t i = 0; i < is.size(); ++i) {
        const LinearOp& linear = **is[i].op;
        if (*is[i].op == *was[i].op || linear.packed()) continue;
        const double count = static_cast<double>(linear.out_features()) * static_cast<double>(linear.in_features());
        bits +=
            count * (after.measured_bits > 0.0 ? after.measured_bits
                                               : method.effective_bits(linear.out_features(), linear.in_features()));
        elements += count;
      }
    }
  }
  double mean() const { return elements > 0.0 ? bits / elements : 0.0; }
};

std::int64_t layer_of(const std::string& name) {
  const std::string head = "layers.";
  const std::size_t begin = name.find(head);
  std::int64_t layer = -1;
  if (begin != std::string::npos) std::from_chars(name.data() + begin + head.size(), name.data() + name.size(), layer);
  if (layer >= 0) return layer;
  throw Error(ErrorCode::InvalidArgument,
              "A per-layer setup needs to know the layer, and '" + name +
                  "' names none (layers.3.mlp.up_proj would). Choose the setup of one layer.");
}

}  // namespace

DecoderWeights WeightMethod::prepare(const Model& model, const WeightContext& context, const JobContext&) const {
  return start_of(model, context);
}

DecoderWeights WeightChain::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  DecoderWeights weights = start_of(model, context);
  WeightContext own = context;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const bool last = i + 1 == stages_.size();
    own.weights = &weights;
    own.execution = last ? context.execution : WeightExecution::Simulated;
    DecoderWeights made = stages_[i].method->apply(model, own, slice(job, i, stages_.size()));
    keep_activations(weights, made);
    weights = std::move(made);
    own.behind = joined(own.behind, stages_[i].line);
  }
  return weights;
}

DecoderWeights WeightChain::prepare(const Model& model, const WeightContext& context, const JobContext& job) const {
  DecoderWeights weights = start_of(model, context);
  WeightContext own = context;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    own.weights = &weights;
    weights = stages_[i].method->prepare(model, own, slice(job, i, stages_.size()));
  }
  return weights;
}

QuantizedTensor WeightChain::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  return stages_.back().method->quantize_weight(weight, name);
}

double WeightChain::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  return stages_.back().method->effective_bits(out_features, in_features);
}

const NamedWeightMethod* LayeredWeightMethod::part_of(std::int64_t layer) const {
  for (const Entry& entry : entries_)
    if (entry.range.is_rest() || entry.range.holds(layer)) return &entry.part;
  throw Error(ErrorCode::InvalidArgument, "Per-layer setup: layer " + std::to_string(layer) +
                                              " has no setup; add a range for it, or '*' for the rest.");
}

std::vector<LayeredWeightMethod::Run> LayeredWeightMethod::runs(std::int64_t layers) const {
  for (const Entry& entry : entries_) {
    if (entry.range.last >= layers) {
      throw Error(ErrorCode::InvalidArgument, "Per-layer setup: the range " + entry.range.text() +
                                                  " goes beyond the model, whose layers are 0 to " +
                                                  std::to_string(layers - 1) + ".");
    }
  }
  std::vector<Run> found;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const NamedWeightMethod* part = part_of(layer);
    if (!found.empty() && found.back().part->line == part->line) {
      found.back().range.last = layer;
    } else {
      found.push_back({{layer, layer}, part});
    }
  }
  std::erase_if(found, [](const Run& run) { return run.part->method == nullptr; });
  return found;
}

DecoderWeights LayeredWeightMethod::apply(const Model& model, const WeightContext& context,
                                          const JobContext& job) const {
  DecoderWeights weights = start_of(model, context);
  WeightContext own = context;
  BitCount bits;
  const std::vector<Run> all = runs(static_cast<std::int64_t>(weights.blocks.size()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Run& run = all[i];
    weights.measured_bits = 0.0;
    own.weights = &weights;
    own.layers = {run.range};
    if (!context.checkpoint.empty()) own.checkpoint = context.checkpoint / ("layers-" + run.range.text());
    DecoderWeights made = run.part->method->apply(model, own, slice(job, i, all.size()));
    bits.add(weights, made, run.range, *run.part->method);
    weights = std::move(made);
    own.behind = joined(own.behind, run.range.text() + "=" + run.part->line);
  }
  weights.measured_bits = bits.mean();
  return weights;
}

DecoderWeights LayeredWeightMethod::prepare(const Model& model, const WeightContext& context,
                                            const JobContext& job) const {
  DecoderWeights weights = start_of(model, context);
  WeightContext own = context;
  const std::vector<Run> all = runs(static_cast<std::int64_t>(weights.blocks.size()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    own.weights = &weights;
    own.layers = {all[i].range};
    weights = all[i].part->method->prepare(model, own, slice(job, i, all.size()));
  }
  return weights;
}

QuantizedTensor LayeredWeightMethod::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const NamedWeightMethod* part = part_of(layer_of(name));
  if (part->method) return part->method->quantize_weight(weight, name);
  QuantizedTensor untouched;
  untouched.values = weight;
  untouched.codes = at::full(weight.sizes(), 255, at::kByte);
  untouched.full_precision = at::ones(weight.sizes(), at::kBool);
  return untouched;
}

double LayeredWeightMethod::effective_bits(std::int64_t, std::int64_t) const {
  throw Error(ErrorCode::InvalidArgument,
              "A per-layer setup has no single width; ask for one of its layers, or for the variant's weight bits.");
}

}  // namespace qs
