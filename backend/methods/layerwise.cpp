#include "backend/methods/layerwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "backend/methods/activation_quantization.h"
#include "backend/methods/layerwise_checkpoint.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Stages of a block in which inputs are captured anew (specification 5.4).
int stage_of(LinearKind kind) {
  switch (kind) {
    case LinearKind::Q:
    case LinearKind::K:
    case LinearKind::V:
      return 0;
    case LinearKind::O:
      return 1;
    case LinearKind::Gate:
    case LinearKind::Up:
      return 2;
    case LinearKind::Down:
      return 3;
  }
  return 3;
}
constexpr int kStages = 4;

/// Adds up H for the linears of one stage while the windows run through the block. Linears that read the same tensor
/// share one sum.
class InputSums final : public TapSink {
 public:
  /// @param names  linears to listen to
  InputSums(std::set<std::string> names, bool hessians, const JobContext& job)
      : names_(std::move(names)), hessians_(hessians), job_(job.quiet()) {}

  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    add(linear_name(layer, kind), x);
  }
  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    add(linear_name(layer, kind, expert), x);
  }
  void end_of_window() {
    last_ = {};
    ++windows_;
    for (auto& [name, sum] : sums_) sum->add(at::empty({0, sum->features()}), 1, job_);
  }
  const HessianSum* sum(const std::string& name) const {
    const auto found = shared_.find(name);
    return found == shared_.end() ? nullptr : sums_.at(found->second).get();
  }

 private:
  void add(const std::string& name, const at::Tensor& x) {
    job_.checkpoint(0, 1, "Running the calibration windows");
    if (!hessians_ || !names_.count(name)) return;
    const auto known = shared_.find(name);
    if (known == shared_.end()) {
      const bool same = last_.second.defined() && last_.second.data_ptr() == x.data_ptr() &&
                        last_.second.sizes() == x.sizes() && sums_.count(last_.first);
      shared_[name] = same ? last_.first : name;
      if (!same) {
        sums_[name] = std::make_unique<HessianSum>(x.size(-1));
        sums_[name]->add(at::empty({0, x.size(-1)}), windows_, job_);
      }
    }
    if (shared_.at(name) != name) return;
    sums_.at(name)->add(x, 0, job_);
    last_ = {name, x};  // held, so that its memory is not given to another input meanwhile
  }

  std::set<std::string> names_;
  bool hessians_;
  JobContext job_;
  std::int64_t windows_ = 0;
  std::map<std::string, std::string> shared_;  ///< linear to the one whose sum it reads
  std::map<std::string, std::unique_ptr<HessianSum>> sums_;
  std::pair<std::string, at::Tensor> last_;
};

class Engine {
 public:
  Engine(const Model& model, LinearQuantizer& quantizer, const LayerwisePlan& plan, const WeightContext& context)
      : model_(model),
        quantizer_(quantizer),
        plan_(plan),
        context_(context),
        weights_(context.weights ? *context.weights : model.weights()),
        layers_(static_cast<std::int64_t>(weights_.blocks.size())),
        attention_(weights_.attention) {
    weights_.measured_bits = 0.0;
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      if (!context.quantizes(layer)) continue;
      if (first_ < 0) first_ = layer;
      last_ = layer;
    }
    if (!context.windows || context.windows->windows.empty()) {
      throw Error(ErrorCode::InvalidArgument,
                  "This method runs windows of a calibration text through the model. Name a text to calibrate on.");
    }
    for (const std::vector<std::int64_t>& window : context.windows->windows)
      batches_.push_back(RaggedBatch::single(window));
  }

  DecoderWeights run(const JobContext& job) {
    forecast();
    std::optional<LayerwiseCheckpoint> checkpoint;
    if (!context_.checkpoint.empty()) checkpoint.emplace(context_.checkpoint, identity());
    embed();
    for (std::int64_t layer = 0; layer <= last_; ++layer) {
      const JobContext part = layer_part(job, layer);
      if (!context_.quantizes(layer)) {
        run_windows(weights_.blocks[static_cast<std::size_t>(layer)], layer, nullptr, part);
        continue;
      }
      DecoderBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
      std::vector<LinearArtifact> artifacts;
      const std::vector<std::string> names = names_of(block, layer);
      if (checkpoint && checkpoint->has(layer)) {
        artifacts = checkpoint->load(layer, names);
        if (layer == first_ && !artifacts.empty()) quantizer_.restore(artifacts.front());
        for (const LinearArtifact& artifact : artifacts) tell(artifact);
      } else {
        artifacts = quantize_block(layer, part.part(0.0, 0.9));
        if (checkpoint) checkpoint->save(layer, artifacts);
      }
      finish_block(layer, artifacts, part.part(0.9, 1.0));
    }
    job.checkpoint(1, 1, "Quantizing layer by layer");
    return std::move(weights_);
  }

  void redo(std::int64_t redone, const JobContext& job) {
    if (redone < 0 || redone >= layers_) {
      throw Error(ErrorCode::InvalidArgument, "The model has the layers 0 to " + std::to_string(layers_ - 1) +
                                                  ", not " + std::to_string(redone) + ".");
    }
    if (!context_.quantizes(redone)) {
      throw Error(ErrorCode::InvalidArgument,
                  "Layer " + std::to_string(redone) + " is not quantized by this setup, so it cannot be redone.");
    }
    const LayerwiseCheckpoint checkpoint(context_.checkpoint, identity(), true);
    for (std::int64_t layer = 0; layer <= redone; ++layer) {
      if (checkpoint.has(layer) || !context_.quantizes(layer)) continue;
      throw Error(ErrorCode::InvalidArgument, "Layer " + std::to_string(layer) + " is not in the checkpoint '" +
                                                  context_.checkpoint.string() +
                                                  "' yet. Quantize up to the layer first.");
    }
    embed();
    for (std::int64_t layer = 0; layer < redone; ++layer) {
      const DecoderBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
      if (context_.quantizes(layer)) {
        finish_block(layer, checkpoint.load(layer, names_of(block, layer)), job.part(0.0, 0.5));
      } else {
        run_windows(block, layer, nullptr, job.part(0.0, 0.5));
      }
    }
    note_ = "Redone as " + plan_.setup + ".";
    checkpoint.save(redone, quantize_block(redone, job.part(0.5, 1.0)));
  }

 private:
  void tell(const LinearArtifact& artifact) const {
    if (context_.on_linear) context_.on_linear(artifact.progress);
  }

  JobContext layer_part(const JobContext& job, std::int64_t layer) const {
    const double count = static_cast<double>(last_ + 1);
    return job.part(static_cast<double>(layer) / count, static_cast<double>(layer + 1) / count);
  }

  CheckpointIdentity identity() const { return checkpoint_identity(model_, weights_, context_, plan_.setup); }

  void forecast() const {
    const WeightForecast need = forecast_layerwise(model_, quantizer_, plan_, context_);
    if (context_.on_forecast) context_.on_forecast(need);
    if (need.bytes <= need.available_bytes) return;
    const auto gib = [](std::int64_t bytes) {
      char text[32];
      std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0));
      return std::string(text);
    };
    throw Error(ErrorCode::OutOfMemory,
                "Quantizing '" + model_.info().name + "' layer by layer needs " + gib(need.bytes) +
                    " beside the model (" + gib(need.hidden_bytes) + " hidden states of the windows, " +
                    gib(need.hessian_bytes) + " for H and its factors), and " + gib(need.available_bytes) +
                    " can be allocated. Use fewer windows (nsamples) or shorter ones (seqlen), or "
                    "true_sequential=true, which keeps fewer H at a time.");
  }

  void embed() {
    hidden_.clear();
    for (const RaggedBatch& batch : batches_) hidden_.push_back(embed_tokens(model_.spec(), weights_, batch));
  }

  std::vector<std::string> names_of(const DecoderBlock& block, std::int64_t layer) const {
    DecoderBlock copy = block;
    std::vector<std::string> names;
    for (const LinearSlot& slot : linear_slots(copy, layer)) names.push_back(slot.name);
    return names;
  }

  /// Runs all windows through a block. @param sums  listens; null: the outputs become the inputs of the next block
  void run_windows(const DecoderBlock& block, std::int64_t layer, InputSums* sums, const JobContext& job) {
    InputSums nobody({}, false, job);
    const auto count = static_cast<std::int64_t>(batches_.size());
    for (std::int64_t i = 0; i < count; ++i) {
      job.checkpoint(i, count, "Running the calibration windows");
      const auto index = static_cast<std::size_t>(i);
      at::Tensor output =
          run_block(model_.spec(), block, layer, batches_[index], hidden_[index], attention_, sums ? sums : &nobody);
      if (sums) {
        sums->end_of_window();
      } else {
        hidden_[index] = std::move(output);
      }
    }
  }

  std::vector<LinearArtifact> quantize_block(std::int64_t layer, const JobContext& job) {
    DecoderBlock block = weights_.blocks[static_cast<std::size_t>(layer)];
    const std::vector<LinearSlot> slots = linear_slots(block, layer);
    std::vector<LinearArtifact> artifacts(slots.size());
    const int stages = plan_.true_sequential ? kStages : 1;
    for (int stage = 0; stage < stages; ++stage) {
      std::vector<std::size_t> chosen;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (stages == 1 || stage_of(slots[i].kind) == stage) chosen.push_back(i);
      }
      const JobContext part = job.part(static_cast<double>(stage) / stages, static_cast<double>(stage + 1) / stages);
      quantize_stage(layer, block, slots, chosen, artifacts, part);
    }
    return artifacts;
  }

  void quantize_stage(std::int64_t layer, const DecoderBlock& block, const std::vector<LinearSlot>& slots,
                      const std::vector<std::size_t>& chosen, std::vector<LinearArtifact>& artifacts,
                      const JobContext& job) {
    if (chosen.empty()) return;
    std::set<std::string> names;
    for (const std::size_t i : chosen) names.insert(slots[i].name);
    InputSums sums(names, quantizer_.wants_hessian(), job);
    if (quantizer_.wants_hessian()) run_windows(block, layer, &sums, job.part(0.0, 0.5));
    std::vector<LinearTask> tasks;
    for (const std::size_t i : chosen) {
      const LinearOp& linear = **slots[i].op;
      require_floating_point(linear, slots[i].name);
      const HessianSum* inputs = sums.sum(slots[i].name);
      if (!inputs && quantizer_.wants_hessian()) inputs = &nothing(linear.in_features());
      tasks.push_back({slots[i].name, linear.weight(), inputs});
    }
    if (layer == first_ && !tuned_) {
      quantizer_.tune(tasks, job.part(0.5, 0.6));
      tuned_ = true;
    }
    const auto count = static_cast<double>(tasks.size());
    for (std::size_t k = 0; k < tasks.size(); ++k) {
      const auto begin = Clock::now();
      const double from = 0.6 + 0.4 * static_cast<double>(k) / count;
      LinearArtifact artifact = quantizer_.quantize(tasks[k], job.part(from, from + 0.4 / count));
      artifact.progress.layer = layer;
      artifact.progress.layers = layers_;
      artifact.progress.seconds = seconds_since(begin);
      if (!note_.empty()) artifact.progress.notes.push_back(note_);
      tell(artifact);
      const LinearSlot& slot = slots[chosen[k]];
      // Later stages of the block read what the quantized linear gives.
      *slot.op = simulated(artifact, **slot.op, slot.name);
      artifacts[chosen[k]] = std::move(artifact);
    }
  }

  std::shared_ptr<const LinearOp> simulated(const LinearArtifact& artifact, const LinearOp& original,
                                            const std::string& name) const {
    require_floating_point(original, name);
    auto linear = quantizer_.make_linear(artifact, original.bias(), WeightExecution::Simulated, weights_.compute_type);
    check_shape(*linear, original, name);
    return keep_input_quantization(original, std::move(linear));
  }

  void check_shape(const LinearOp& linear, const LinearOp& original, const std::string& name) const {
    if (linear.in_features() == original.in_features() && linear.out_features() == original.out_features()) return;
    throw Error(ErrorCode::BadFormat, "The checkpoint of '" + name +
                                          "' has another shape than the model's weight. "
                                          "Delete the file of this layer to quantize it again.");
  }

  /// An input that no token reached.
  const HessianSum& nothing(std::int64_t features) {
    auto& sum = empty_[features];
    if (!sum) sum = std::make_unique<HessianSum>(features);
    return *sum;
  }

  /// Puts the quantized linears into the model and runs the windows through them.
  void finish_block(std::int64_t layer, const std::vector<LinearArtifact>& artifacts, const JobContext& job) {
    DecoderBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
    DecoderBlock runs = block;
    const std::vector<LinearSlot> running = linear_slots(runs, layer), kept = linear_slots(block, layer);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const std::shared_ptr<const LinearOp> original = *kept[i].op;
      const at::Tensor bias = original->bias();
      const at::ScalarType type = weights_.compute_type;
      const double size = static_cast<double>(original->in_features()) * static_cast<double>(original->out_features());
      bits_ += artifacts[i].progress.effective_bits * size;
      elements_ += size;
      *running[i].op = simulated(artifacts[i], *original, kept[i].name);
      if (context_.execution == WeightExecution::Packed) {
        *kept[i].op = keep_input_quantization(
            *original, quantizer_.make_linear(artifacts[i], bias, WeightExecution::Packed, type));
      } else {
        *kept[i].op = *running[i].op;
      }
    }
    weights_.measured_bits = elements_ > 0.0 ? bits_ / elements_ : 0.0;
    if (layer < last_) run_windows(runs, layer, nullptr, job);
  }

  const Model& model_;
  LinearQuantizer& quantizer_;
  const LayerwisePlan& plan_;
  const WeightContext& context_;
  DecoderWeights weights_;
  const std::int64_t layers_;
  std::int64_t first_ = -1, last_ = -1;  ///< layers that are quantized
  FullPrecisionWindow attention_;
  std::vector<RaggedBatch> batches_;
  std::vector<at::Tensor> hidden_;
  std::map<std::int64_t, std::unique_ptr<HessianSum>> empty_;
  bool tuned_ = false;
  std::string note_;  ///< added to every linear
  double bits_ = 0.0, elements_ = 0.0;
};

/// Operations a second of an f32 matrix product, measured.
double product_rate() {
  constexpr std::int64_t kSize = 384;
  const at::Tensor a = at::ones({kSize, kSize}), b = at::ones({kSize, kSize});
  at::Tensor c = at::mm(a, b);
  const auto begin = Clock::now();
  int calls = 0;
  do {
    at::mm_out(c, a, b);
    ++calls;
  } while (seconds_since(begin) < 0.02);
  return 2.0 * kSize * kSize * kSize * calls / seconds_since(begin);
}

}  // namespace

DecoderWeights quantize_layerwise(const Model& model, LinearQuantizer& quantizer, const LayerwisePlan& plan,
                                  const WeightContext& context, const JobContext& job) {
  const c10::NoGradGuard no_gradients;
  return Engine(model, quantizer, plan, context).run(job);
}

void redo_layer(const Model& model, std::int64_t layer, LinearQuantizer& quantizer, const LayerwisePlan& plan,
                const WeightContext& context, const JobContext& job) {
  if (context.checkpoint.empty()) {
    throw Error(ErrorCode::InvalidArgument, "Redoing a layer needs the checkpoint folder of the run.");
  }
  const c10::NoGradGuard no_gradients;
  Engine(model, quantizer, plan, context).redo(layer, job);
}

WeightForecast forecast_layerwise(const Model& model, const LinearQuantizer& quantizer, const LayerwisePlan& plan,
                                  const WeightContext& context) {
  WeightForecast need;
  DecoderWeights weights = context.weights ? *context.weights : model.weights();
  const std::int64_t tokens = static_cast<std::int64_t>(context.windows->windows.size()) * context.windows->seqlen;
  const auto element = static_cast<std::int64_t>(c10::elementSize(weights.compute_type));
  need.hidden_bytes = 2 * tokens /
                          std::max<std::int64_t>(1, static_cast<std::int64_t>(context.windows->windows.size())) *
                          model.info().hidden_size * element +
                      tokens * model.info().hidden_size * element;
  double operations = 0.0;
  std::int64_t results = 0, worst = 0;
  for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    const bool quantizes = context.quantizes(static_cast<std::int64_t>(layer));
    std::map<int, std::map<std::string, std::int64_t>> sums;  // stage, input, bytes of H
    std::int64_t largest = 0;
    double forward = 0.0;
    std::set<std::string> counted;
    for (const LinearSlot& slot : linear_slots(weights.blocks[layer], static_cast<std::int64_t>(layer))) {
      const std::int64_t in = (*slot.op)->in_features(), out = (*slot.op)->out_features();
      const double i = static_cast<double>(in), o = static_cast<double>(out);
      forward += 2.0 * i * o * static_cast<double>(tokens);
      if (!quantizes) continue;
      // Q, K, V read one input, and so do gate and up.
      const std::string input = std::to_string(stage_of(slot.kind)) + "/" + std::to_string(slot.expert);
      sums[plan.true_sequential ? stage_of(slot.kind) : 0][input] = in * in * 4;
      largest = std::max(largest, 4 * (4 * in * in + 4 * in * out));
      operations += i * i * i + o * i * i;
      if (counted.insert(input).second) operations += i * i * static_cast<double>(tokens);
      results += out * in * (context.execution == WeightExecution::Packed ? 1 : element);
    }
    operations += forward * (1.0 + (quantizes && plan.true_sequential ? kStages : 1));
    for (const auto& [stage, of_stage] : sums) {
      std::int64_t bytes = largest;
      for (const auto& [input, size] : of_stage) bytes += size;
      worst = std::max(worst, bytes);
    }
  }
  need.hessian_bytes = quantizer.wants_hessian() ? worst : 0;
  const MemoryEstimate pass = estimate_memory(model.info(), model.options(), context.windows->seqlen);
  need.bytes = need.hidden_bytes + need.hessian_bytes + results + pass.scratch;
  need.available_bytes = available_memory();
  need.seconds = operations / product_rate();
  return need;
}

}  // namespace qs
