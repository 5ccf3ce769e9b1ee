#include "backend/methods/kv_gradients.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <stdexcept>

#include "backend/model/decoder.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

/// Full-precision attention that adds zeros to keys and values: the gradients of the zeros are those of what they were
/// added to, whatever depends on it.
class GradientProbe final : public AttentionProvider {
 public:
  struct Layer {
    at::Tensor key_zeros, value_zeros;  ///< leaves; those of keys are added after rotation
    at::Tensor key_pre_rope, value;
  };
  std::vector<Layer> layers;

  at::Tensor attend(const AttentionCall& call) override {
    const auto zeros = [](const at::Tensor& x) { return at::zeros(x.sizes(), x.options()).requires_grad_(true); };
    Layer layer{zeros(call.key), zeros(call.value), call.key_pre_rope.detach(), call.value.detach()};
    AttentionCall probed = call;
    probed.key = call.key + layer.key_zeros;
    probed.value = call.value + layer.value_zeros;
    layers.push_back(std::move(layer));
    return window_.attend(probed);
  }

 private:
  FullPrecisionWindow window_;
};

void differentiate(const at::Tensor& loss, const GradientProbe& probe, const JobContext& job) {
  bool cancelled = false;
  const auto layers = static_cast<std::int64_t>(probe.layers.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    // The engine lets a std::exception through and nothing else.
    const at::Tensor& leaf = probe.layers[static_cast<std::size_t>(layer)].value_zeros;
    leaf.register_hook([&cancelled, &job, layer, layers](const at::Tensor&) {
      try {
        job.checkpoint(layers - 1 - layer, layers, "Gradients");
      } catch (const Cancelled&) {
        cancelled = true;
        throw std::runtime_error("cancelled");
      }
    });
  }
  try {
    loss.backward();
  } catch (const std::exception&) {
    if (cancelled) throw Cancelled{};
    throw;
  }
}

}  // namespace

std::vector<ProjectionGradients> projection_gradients(const Model& model, const std::vector<std::int64_t>& ids,
                                                      const JobContext& job) {
  const auto tokens = static_cast<std::int64_t>(ids.size());
  if (tokens < 2) {
    throw Error(ErrorCode::InvalidArgument,
                "Gradients of the language-model loss need at least two tokens, found " + std::to_string(tokens) + ".");
  }
  const at::AutoGradMode with_gradients(true);
  const ArchitectureSpec& spec = model.spec();
  const RaggedBatch batch = RaggedBatch::single(ids);
  GradientProbe probe;
  const at::Tensor logits =
      forward_with_gradients(spec, model.weights(), batch, probe, LogitRows::All, nullptr, job.part(0.0, 0.4));
  const at::Tensor log_probability = at::log_softmax(logits.narrow(0, 0, tokens - 1), 1);
  const at::Tensor loss = log_probability.gather(1, batch.ids.narrow(0, 1, tokens - 1).unsqueeze(1)).sum().neg();
  differentiate(loss, probe, job.part(0.4, 1.0));
  const at::NoGradGuard done;
  std::vector<ProjectionGradients> result;
  for (std::size_t layer = 0; layer < probe.layers.size(); ++layer) {
    GradientProbe::Layer& probed = probe.layers[layer];
    // The rotation is orthogonal: the gradient of the keys before it is that of the rotated keys, rotated back.
    const at::Tensor rotated = probed.key_zeros.grad().to(at::kFloat);
    result.push_back({.key_pre_rope = probed.key_pre_rope,
                      .value = probed.value,
                      .key_gradient = undo_rope(rotated, 0, spec.rope_of(static_cast<std::int64_t>(layer)), tokens),
                      .value_gradient = probed.value_zeros.grad().to(at::kFloat)});
    probed = {};
  }
  return result;
}

}  // namespace qs
