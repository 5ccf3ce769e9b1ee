#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/methods/zeroquant.h"

namespace qs {

/// Layer-by-layer knowledge distillation of ZeroQuant (arXiv:2206.01861, section 4; weights specification 9.4): each
/// block is trained by itself to give, from quantized weights and inputs, what the full-precision block gives.

struct LkdOptions {
  std::int64_t steps = 100;
  std::int64_t batch = 4;  ///< windows a step; taken in order, from the beginning again after the last
  double learning_rate = 5e-6;
  double weight_decay = 0.01;       ///< of matrices; biases and norms have none
  bool scale_rate_by_loss = false;  ///< learning rate / loss before the first step
  /// The published experiment on Llama calls the block without a mask, so that both sides attend to later tokens, and
  /// lets the weights of norms decay too.
  bool compat_reference = false;
};

/// AdamW as the specification has it: the bias correction is folded into the step (epsilon is added to the uncorrected
/// sqrt(v)), and the decay is decoupled and comes after the step.
class LkdAdamW {
 public:
  struct Parameter {
    at::Tensor value;     ///< f32, changed in place
    at::Tensor gradient;  ///< the tensor whose grad() is used: `value` itself, or what was quantized from it
    bool decays = false;
    at::Tensor first = {}, second = {};  ///< moments
  };

  LkdAdamW(std::vector<Parameter> parameters, double learning_rate, double weight_decay);
  /// One step with the gradients there are, which are then dropped. A parameter without a gradient stays.
  void step(const JobContext& job);

 private:
  std::vector<Parameter> parameters_;
  double learning_rate_, weight_decay_;
  std::int64_t steps_ = 0;
};

/// A matrix of the student: the f32 master, and its quantized values, which the forward pass multiplies with. The
/// gradient of the values is taken for that of the master (straight-through, also outside the clamp).
struct StudentWeight {
  at::Tensor master;  ///< f32 [out_features, in_features]
  at::Tensor used;    ///< the same shape; requires gradients
  ZeroQuantWeight quantizer;
  std::string name;

  StudentWeight(const at::Tensor& weight, const ZeroQuantWeight& quantizer, std::string name);
  void refresh();  ///< makes `used` from the master
};
/// `x` with the values of quantize_tokens and the gradient of `x`.
at::Tensor straight_through_tokens(const at::Tensor& x, const TokenQuantization& quantization);

/// What is trained, and on what. Errors are of windows, so that one window is held at a time.
struct LkdProblem {
  std::vector<LkdAdamW::Parameter> parameters;
  std::vector<StudentWeight*> weights;  ///< refreshed before every step; must outlive the run
  std::int64_t windows = 0;
  std::function<at::Tensor(std::int64_t window)> predict;  ///< under gradients, any shape
  std::function<at::Tensor(std::int64_t window)> target;   ///< the same shape
};

/// Runs the steps. @return the loss of every step before its update: mean over all elements of the batch of
///         (prediction - target)^2
/// @param told  called after every step with its number and loss; may be empty
/// @throws Cancelled out of the forward or the backward pass
std::vector<double> distill(LkdProblem& problem, const LkdOptions& options, const JobContext& job,
                            const std::function<void(std::int64_t, double)>& told = {});

/// How the linears of a student block are quantized.
struct LkdQuantization {
  std::function<ZeroQuantWeight(LinearKind)> weight;
  TokenQuantization tokens;
};

struct LkdResult {
  DecoderBlock block;  ///< trained: linears are f32 DenseLinears, norms and biases of the compute type
  double loss_before = 0.0, loss_after = 0.0;  ///< over `evaluated` windows
  std::int64_t evaluated = 0;
  std::vector<double> losses;  ///< of every step
};

/// Distils one block. @param student  starts from its weights
/// @param hidden   the teacher's input of the block, one tensor a window [tokens, hidden_size]
/// @param targets  the teacher's output, the same shapes
LkdResult distill_block(const ArchitectureSpec& spec, const DecoderBlock& student, std::int64_t layer,
                        const std::vector<RaggedBatch>& batches, const std::vector<at::Tensor>& hidden,
                        const std::vector<at::Tensor>& targets, const LkdQuantization& quantization,
                        const LkdOptions& options, at::ScalarType compute_type, const JobContext& job);

/// Attention without a causal mask and without a sliding window: what the published experiment distils.
class UnmaskedWindow final : public AttentionProvider {
 public:
  at::Tensor attend(const AttentionCall& call) override;
};

}  // namespace qs
