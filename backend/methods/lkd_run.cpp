#include "backend/methods/lkd_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "backend/methods/code_run.h"
#include "backend/methods/layerwise_checkpoint.h"
#include "backend/methods/zeroquant_linear.h"
#include "backend/model/model.h"
#include "backend/model/rope.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::string block_name(std::int64_t layer) { return "layers." + std::to_string(layer) + ".block"; }

/// Trained tensors beside the linears of the slots, by their names in the artifact "block".
std::map<std::string, at::Tensor*> norm_tensors(DecoderBlock& block) {
  std::map<std::string, at::Tensor*> tensors;
  const auto add = [&tensors](const std::string& name, NormWeights& norm) {
    if (norm.weight.defined()) tensors[name + ".weight"] = &norm.weight;
    if (norm.bias.defined()) tensors[name + ".bias"] = &norm.bias;
  };
  add("input_norm", block.input_norm);
  add("mlp_norm", block.mlp_norm);
  add("attention_output_norm", block.attention_output_norm);
  add("mlp_output_norm", block.mlp_output_norm);
  add("query_norm", block.query_norm);
  add("key_norm", block.key_norm);
  return tensors;
}

LinearArtifact artifact_of(const LinearSlot& slot, const ZeroQuantWeight& quantizer) {
  const LinearOp& linear = **slot.op;
  const std::int64_t out = linear.out_features(), in = linear.in_features();
  LinearArtifact artifact;
  artifact.progress.linear = slot.name;
  artifact.progress.effective_bits = quantizer.effective_bits(out, in);
  if (linear.bias().defined()) artifact.tensors["bias"] = linear.bias();
  if (quantizer.off()) {
    artifact.tensors["weight"] = linear.weight();
    return artifact;
  }
  const ZeroQuantCodes codes = quantize_zeroquant(linear.weight(), quantizer, slot.name);
  artifact.tensors["codes"] = pack_codes(codes.codes, quantizer.bits);
  artifact.tensors["scale"] = codes.scale;
  artifact.tensors["zero_point"] = codes.zero_point;
  artifact.tensors["shape"] = at::tensor({out, in, std::int64_t{quantizer.bits}, codes.run_length}, at::kLong);
  return artifact;
}

std::shared_ptr<const LinearOp> linear_of(const LinearArtifact& artifact, const LinearOp& original,
                                          const ZeroQuantWeight& quantizer, const TokenQuantization& tokens,
                                          WeightExecution execution, at::ScalarType compute_type) {
  const std::int64_t out = original.out_features(), in = original.in_features();
  at::Tensor bias;
  if (original.bias().defined()) {
    bias = artifact_tensor(artifact, "bias", {}, 1).to(compute_type);
    if (bias.numel() != out) throw_broken_artifact(artifact, "bias");
  }
  if (quantizer.off()) {
    const at::Tensor& weight = artifact_tensor(artifact, "weight", at::kFloat, 2);
    if (weight.size(0) != out || weight.size(1) != in) throw_broken_artifact(artifact, "weight");
    std::shared_ptr<const LinearOp> linear = std::make_shared<DenseLinear>(weight.to(compute_type), bias);
    if (!tokens.off()) linear = std::make_shared<TokenQuantizedLinear>(std::move(linear), tokens);
    return linear;
  }
  const std::int64_t length = quantizer.layout.length(out, in, artifact.progress.linear), runs = out * in / length;
  const at::Tensor shape = at::tensor({out, in, std::int64_t{quantizer.bits}, length}, at::kLong);
  if (!artifact_tensor(artifact, "shape", at::kLong, 1).equal(shape)) throw_broken_artifact(artifact, "shape");
  ZeroQuantCodes codes;
  codes.codes = unpack_codes(artifact_tensor(artifact, "codes", at::kByte, 1), {out, in}, quantizer.bits);
  codes.scale = artifact_tensor(artifact, "scale", at::kFloat, 1);
  codes.zero_point = artifact_tensor(artifact, "zero_point", at::kFloat, 1);
  if (codes.scale.numel() != runs) throw_broken_artifact(artifact, "scale");
  if (codes.zero_point.numel() != runs) throw_broken_artifact(artifact, "zero_point");
  codes.run_length = length;
  codes.values = codes.codes.to(at::kFloat)
                     .view({runs, length})
                     .sub(codes.zero_point.unsqueeze(1))
                     .mul_(codes.scale.unsqueeze(1))
                     .view({out, in});
  return make_zeroquant_linear(codes, quantizer, bias, tokens, execution, compute_type);
}

class LkdRun {
 public:
  LkdRun(const Model& model, DecoderWeights& weights, const std::set<std::int64_t>& layers,
         const LkdQuantization& quantization, const LkdOptions& options, const WeightContext& context)
      : model_(model),
        teacher_(model.weights()),
        weights_(weights),
        layers_(layers),
        quantization_(quantization),
        options_(options),
        context_(context),
        type_(weights.compute_type) {
    if (!context.windows || context.windows->windows.empty()) {
      throw Error(ErrorCode::InvalidArgument,
                  "zeroquant: lkd=true trains on windows of a text. Name a text to calibrate on, or leave lkd out.");
    }
    for (const std::vector<std::int64_t>& window : context.windows->windows)
      batches_.push_back(RaggedBatch::single(window));
  }

  void run(const std::string& setup, const JobContext& job) {
    std::optional<LayerwiseCheckpoint> checkpoint;
    if (!context_.checkpoint.empty())
      checkpoint.emplace(context_.checkpoint, checkpoint_identity(model_, weights_, context_, setup));
    check_memory();
    for (const RaggedBatch& batch : batches_) hidden_.push_back(embed_tokens(model_.spec(), teacher_, batch));
    tell_forecast();
    // Nobody needs hidden states behind the last block that is not finished yet.
    std::int64_t last = -1;
    for (const std::int64_t layer : layers_)
      if (!checkpoint || !checkpoint->has(layer)) last = layer;
    double done = 0.0, total = 0.0;
    for (std::int64_t layer = 0; layer <= *layers_.rbegin(); ++layer) total += cost(layer, last, checkpoint);
    for (std::int64_t layer = 0; layer <= *layers_.rbegin(); ++layer) {
      const double next = done + cost(layer, last, checkpoint);
      const JobContext part = job.part(done / total, next / total);
      done = next;
      const bool chosen = layers_.count(layer) > 0;
      const bool kept = chosen && checkpoint && checkpoint->has(layer);
      std::vector<at::Tensor> outputs;
      if (layer <= last) outputs = teacher_outputs(layer, chosen && !kept ? part.part(0.0, 0.1) : part);
      if (chosen) {
        const std::vector<std::string> names = names_of(layer);
        std::vector<LinearArtifact> artifacts =
            kept ? checkpoint->load(layer, names) : distil(layer, outputs, part.part(0.1, 1.0));
        if (checkpoint && !kept) checkpoint->save(layer, artifacts);
        if (context_.on_linear) context_.on_linear(artifacts.back().progress);
        install(layer, artifacts);
      }
      hidden_ = std::move(outputs);
    }
  }

 private:
  /// In window passes of a block, a backward pass counted twice.
  double cost(std::int64_t layer, std::int64_t last, const std::optional<LayerwiseCheckpoint>& checkpoint) const {
    double passes = layer <= last ? static_cast<double>(batches_.size()) : 0.01;
    if (layers_.count(layer) && !(checkpoint && checkpoint->has(layer)))
      passes += 3.0 * static_cast<double>(options_.steps * std::min<std::int64_t>(options_.batch, window_count()));
    return passes;
  }

  std::int64_t window_count() const { return static_cast<std::int64_t>(batches_.size()); }

  std::vector<std::string> names_of(std::int64_t layer) const {
    DecoderBlock copy = weights_.blocks[static_cast<std::size_t>(layer)];
    std::vector<std::string> names;
    for (const LinearSlot& slot : linear_slots(copy, layer)) names.push_back(slot.name);
    names.push_back(block_name(layer));
    return names;
  }

  std::vector<at::Tensor> teacher_outputs(std::int64_t layer, const JobContext& job) {
    FullPrecisionWindow attention;
    return run_teacher(layer, attention, job);
  }

  std::vector<at::Tensor> run_teacher(std::int64_t layer, AttentionProvider& attention, const JobContext& job) {
    const c10::NoGradGuard no_gradients;
    const DecoderBlock& block = teacher_.blocks[static_cast<std::size_t>(layer)];
    std::vector<at::Tensor> outputs;
    for (std::int64_t i = 0; i < window_count(); ++i) {
      job.checkpoint(i, window_count(), "Running the teacher");
      const auto index = static_cast<std::size_t>(i);
      outputs.push_back(run_block(model_.spec(), block, layer, batches_[index], hidden_[index], attention));
    }
    return outputs;
  }

  std::vector<LinearArtifact> distil(std::int64_t layer, const std::vector<at::Tensor>& outputs,
                                     const JobContext& job) {
    const auto begin = Clock::now();
    std::vector<at::Tensor> targets = outputs;
    if (options_.compat_reference) {
      UnmaskedWindow unmasked;
      targets = run_teacher(layer, unmasked, job.part(0.0, 0.05));
    }
    LkdResult result = distill_block(model_.spec(), weights_.blocks[static_cast<std::size_t>(layer)], layer, batches_,
                                     hidden_, targets, quantization_, options_, type_, job.part(0.05, 1.0));
    std::vector<LinearArtifact> artifacts;
    double bits = 0.0, elements = 0.0;
    for (const LinearSlot& slot : linear_slots(result.block, layer)) {
      artifacts.push_back(artifact_of(slot, quantization_.weight(slot.kind)));
      const double size =
          static_cast<double>((*slot.op)->out_features()) * static_cast<double>((*slot.op)->in_features());
      bits += size * artifacts.back().progress.effective_bits;
      elements += size;
    }
    LinearArtifact block;
    for (const auto& [name, tensor] : norm_tensors(result.block)) block.tensors[name] = *tensor;
    if (result.block.router) {
      block.tensors["router.weight"] = result.block.router->weight();
      if (result.block.router->bias().defined()) block.tensors["router.bias"] = result.block.router->bias();
    }
    LayerProgress& progress = block.progress;
    progress.layer = layer;
    progress.layers = static_cast<std::int64_t>(weights_.blocks.size());
    progress.linear = block_name(layer);
    progress.loss = result.loss_after;
    progress.rtn_loss = result.loss_before;
    progress.seconds = seconds_since(begin);
    for (const RaggedBatch& batch : batches_) progress.tokens += batch.ids.numel();
    progress.effective_bits = elements > 0.0 ? bits / elements : 0.0;
    progress.notes.push_back(note_of(result));
    artifacts.push_back(std::move(block));
    return artifacts;
  }

  std::string note_of(const LkdResult& result) const {
    char text[240];
    std::snprintf(text, sizeof text,
                  "Distilled in %lld steps: mean squared error of the block's output %.4g before, %.4g after (%lld "
                  "windows).%s",
                  static_cast<long long>(options_.steps), result.loss_before, result.loss_after,
                  static_cast<long long>(result.evaluated),
                  result.loss_after < result.loss_before
                      ? ""
                      : " It did not fall: use a smaller learning rate (lkd_lr) or more windows (nsamples).");
    return text;
  }

  void install(std::int64_t layer, const std::vector<LinearArtifact>& artifacts) {
    DecoderBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
    std::size_t next = 0;
    for (const LinearSlot& slot : linear_slots(block, layer))
      *slot.op = linear_of(artifacts[next++], **slot.op, quantization_.weight(slot.kind), quantization_.tokens,
                           context_.execution, type_);
    const LinearArtifact& trained = artifacts.back();
    for (const auto& [name, place] : norm_tensors(block)) {
      const at::Tensor tensor = artifact_tensor(trained, name, {}, 1).to(type_);
      if (tensor.numel() != place->numel()) throw_broken_artifact(trained, name);
      *place = tensor;
    }
    if (!block.router) return;
    const at::Tensor& router = artifact_tensor(trained, "router.weight", at::kFloat, 2);
    if (router.size(0) != block.router->out_features() || router.size(1) != block.router->in_features())
      throw_broken_artifact(trained, "router.weight");
    const at::Tensor bias =
        block.router->bias().defined() ? artifact_tensor(trained, "router.bias", {}, 1).to(type_) : at::Tensor();
    block.router = std::make_shared<DenseLinear>(router.to(type_), bias);
  }

  /// Hidden states before and behind a block, and a block in f32 with its quantized values, gradients and two moments.
  WeightForecast needed() const {
    WeightForecast need;
    const ModelInfo& info = model_.info();
    const ArchitectureSpec& spec = model_.spec();
    std::int64_t tokens = 0, longest = 0, largest = 0;
    for (const RaggedBatch& batch : batches_) {
      tokens += batch.ids.numel();
      longest = std::max(longest, batch.ids.numel());
    }
    for (const std::int64_t layer : layers_) {
      DecoderBlock copy = weights_.blocks[static_cast<std::size_t>(layer)];
      std::int64_t elements = 0;
      for (const LinearSlot& slot : linear_slots(copy, layer))
        elements += (*slot.op)->out_features() * (*slot.op)->in_features();
      largest = std::max(largest, elements);
    }
    const auto element = static_cast<std::int64_t>(c10::elementSize(type_));
    need.hidden_bytes = tokens * info.hidden_size * element * (options_.compat_reference ? 3 : 2);
    constexpr std::int64_t kCopies = 5, kHiddenTensors = 16, kScoreTensors = 3;
    const std::int64_t graph =
        4 * longest *
        (kHiddenTensors * info.hidden_size + 4 * spec.intermediate_size + kScoreTensors * spec.heads * longest);
    need.bytes = need.hidden_bytes + kCopies * largest * 4 + graph;
    need.available_bytes = available_memory();
    return need;
  }

  void check_memory() const {
    const WeightForecast need = needed();
    if (need.bytes <= need.available_bytes) return;
    char text[200];
    const double gib = 1024.0 * 1024.0 * 1024.0;
    std::snprintf(text, sizeof text, "%.1f GiB beside the model (%.1f GiB hidden states of the windows), and %.1f GiB",
                  static_cast<double>(need.bytes) / gib, static_cast<double>(need.hidden_bytes) / gib,
                  static_cast<double>(need.available_bytes) / gib);
    throw Error(ErrorCode::OutOfMemory,
                "Distilling blocks of '" + model_.info().name + "' needs " + text +
                    " can be allocated. Use fewer windows (nsamples) or shorter ones (seqlen).");
  }

  void tell_forecast() {
    if (!context_.on_forecast) return;
    WeightForecast need = needed();
    const c10::NoGradGuard no_gradients;
    FullPrecisionWindow attention;
    const auto begin = Clock::now();
    run_block(model_.spec(), teacher_.blocks.front(), 0, batches_.front(), hidden_.front(), attention);
    const double pass = seconds_since(begin);
    for (std::int64_t layer = 0; layer <= *layers_.rbegin(); ++layer)
      need.seconds += pass * cost(layer, *layers_.rbegin(), {});
    context_.on_forecast(need);
  }

  const Model& model_;
  const DecoderWeights& teacher_;
  DecoderWeights& weights_;
  const std::set<std::int64_t>& layers_;
  const LkdQuantization& quantization_;
  const LkdOptions& options_;
  const WeightContext& context_;
  at::ScalarType type_;
  std::vector<RaggedBatch> batches_;
  std::vector<at::Tensor> hidden_;
};

}  // namespace

void run_lkd(const Model& model, DecoderWeights& weights, const std::set<std::int64_t>& layers,
             const LkdQuantization& quantization, const LkdOptions& options, const std::string& setup,
             const WeightContext& context, const JobContext& job) {
  const c10::InferenceMode off(false);  // what is made under it can have no gradients
  LkdRun(model, weights, layers, quantization, options, context).run(setup, job);
}

}  // namespace qs
