#include "backend/methods/lkd.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <stdexcept>

#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-6;
/// Multiplications of a product between two looks at the stop request: about 0.1 s on one core.
constexpr std::int64_t kOperationsPerLook = std::int64_t{2} << 30;
constexpr std::int64_t kEvaluatedWindows = 8;

/// The engine of LibTorch lets a std::exception through and nothing else.
struct StopBackward : std::runtime_error {
  StopBackward() : std::runtime_error("cancelled") {}
};

void stop_backward_when_asked(const at::Tensor& x, const JobContext& job) {
  if (!x.requires_grad()) return;
  x.register_hook([job](const at::Tensor&) {
    if (job.stop_requested()) throw StopBackward();
  });
}

/// A linear layer of the student.
class StudentLinear final : public LinearOp {
 public:
  StudentLinear(const StudentWeight& weight, at::Tensor bias, TokenQuantization tokens, JobContext job)
      : weight_(&weight), bias_(std::move(bias)), tokens_(tokens), job_(std::move(job)) {}

  at::Tensor apply(const at::Tensor& x) const override {
    const at::Tensor input = straight_through_tokens(x, tokens_);
    const std::int64_t rows = input.size(0);
    const std::int64_t step =
        std::clamp<std::int64_t>(kOperationsPerLook / weight_->used.numel(), 16, std::max<std::int64_t>(16, rows));
    std::vector<at::Tensor> parts;
    std::int64_t begin = 0;
    do {
      job_.checkpoint(0, 1, "Distilling");
      parts.push_back(at::linear(input.narrow(0, begin, std::min(step, rows - begin)), weight_->used, bias_));
      stop_backward_when_asked(parts.back(), job_);
      begin += step;
    } while (begin < rows);
    return parts.size() == 1 ? parts.front() : at::cat(parts, 0);
  }
  at::Tensor weight() const override { return weight_->used.detach(); }
  at::Tensor bias() const override { return bias_; }
  std::int64_t bytes() const override { return weight_->master.numel() * 4; }
  std::int64_t in_features() const override { return weight_->master.size(1); }
  std::int64_t out_features() const override { return weight_->master.size(0); }

 private:
  const StudentWeight* weight_;
  at::Tensor bias_;
  TokenQuantization tokens_;
  JobContext job_;
};

at::Tensor trainable(const at::Tensor& x) {
  return x.defined() ? x.detach().to(at::kFloat).clone().requires_grad_(true) : at::Tensor();
}

/// A block whose parameters are all f32 and require gradients.
class Student {
 public:
  Student(const DecoderBlock& block, std::int64_t layer, const LkdQuantization& quantization, const LkdOptions& options,
          const JobContext& job)
      : block_(block), layer_(layer) {
    for (NormWeights* norm : norms(block_)) {
      norm->weight = trainable(norm->weight);
      norm->bias = trainable(norm->bias);
      if (norm->weight.defined()) add(norm->weight, norm->weight, options.compat_reference);
      if (norm->bias.defined()) add(norm->bias, norm->bias, false);
    }
    for (const LinearSlot& slot : linear_slots(block_, layer)) {
      require_floating_point(**slot.op, slot.name);
      replace(*slot.op, slot.name, quantization.weight(slot.kind), quantization.tokens, job);
    }
    if (block_.router) replace(block_.router, "router", ZeroQuantWeight{.bits = 16}, {}, job);
  }

  const DecoderBlock& block() const { return block_; }
  LkdProblem problem() {
    LkdProblem problem;
    problem.parameters = parameters_;
    for (StudentWeight& weight : weights_) problem.weights.push_back(&weight);
    return problem;
  }

  /// The trained block, to be quantized.
  DecoderBlock trained(at::ScalarType compute_type) {
    DecoderBlock result = block_;
    for (NormWeights* norm : norms(result)) {
      for (at::Tensor* part : {&norm->weight, &norm->bias})
        if (part->defined()) *part = part->detach().to(compute_type);
    }
    std::vector<std::shared_ptr<const LinearOp>*> places;
    for (const LinearSlot& slot : linear_slots(result, layer_)) places.push_back(slot.op);
    if (result.router) places.push_back(&result.router);
    for (std::size_t i = 0; i < places.size(); ++i) {
      const at::Tensor bias = (*places[i])->bias();
      *places[i] =
          std::make_shared<DenseLinear>(weights_[i].master, bias.defined() ? bias.detach().to(compute_type) : bias);
    }
    // The router is not quantized: it goes on in the compute type.
    if (result.router)
      result.router = std::make_shared<DenseLinear>(weights_.back().master.to(compute_type), result.router->bias());
    return result;
  }

 private:
  static std::vector<NormWeights*> norms(DecoderBlock& block) {
    return {&block.input_norm,      &block.mlp_norm,   &block.attention_output_norm,
            &block.mlp_output_norm, &block.query_norm, &block.key_norm};
  }
  void add(const at::Tensor& value, const at::Tensor& gradient, bool decays) {
    parameters_.push_back({value, gradient, decays});
  }
  void replace(std::shared_ptr<const LinearOp>& op, const std::string& name, const ZeroQuantWeight& quantizer,
               const TokenQuantization& tokens, const JobContext& job) {
    weights_.emplace_back(op->weight(), quantizer, name);
    const StudentWeight& weight = weights_.back();
    const at::Tensor bias = trainable(op->bias());
    add(weight.master, weight.used, true);
    if (bias.defined()) add(bias, bias, false);
    op = std::make_shared<StudentLinear>(weight, bias, tokens, job);
  }

  DecoderBlock block_;
  std::int64_t layer_;
  std::deque<StudentWeight> weights_;  ///< in the order of linear_slots, the router last
  std::vector<LkdAdamW::Parameter> parameters_;
};

double mean_square_error(LkdProblem& problem, std::int64_t windows) {
  const c10::NoGradGuard no_gradients;
  for (StudentWeight* weight : problem.weights) weight->refresh();
  double sum = 0.0, elements = 0.0;
  for (std::int64_t window = 0; window < windows; ++window) {
    const at::Tensor error = problem.predict(window) - problem.target(window);
    sum += error.to(at::kDouble).square().sum().item<double>();
    elements += static_cast<double>(error.numel());
  }
  return sum / elements;
}

std::string step_text(std::int64_t layer, double loss) {
  char text[80];
  std::snprintf(text, sizeof text, "Distilling layer %lld, loss %.4g", static_cast<long long>(layer), loss);
  return text;
}

}  // namespace

LkdAdamW::LkdAdamW(std::vector<Parameter> parameters, double learning_rate, double weight_decay)
    : parameters_(std::move(parameters)), learning_rate_(learning_rate), weight_decay_(weight_decay) {
  for (Parameter& parameter : parameters_) {
    parameter.first = at::zeros_like(parameter.value.detach());
    parameter.second = at::zeros_like(parameter.first);
  }
}

void LkdAdamW::step(const JobContext& job) {
  const c10::NoGradGuard no_gradients;
  ++steps_;
  const double count = static_cast<double>(steps_);
  const double rate = learning_rate_ * std::sqrt(1.0 - std::pow(kBeta2, count)) / (1.0 - std::pow(kBeta1, count));
  for (Parameter& parameter : parameters_) {
    job.checkpoint(0, 1, "Distilling");
    const at::Tensor gradient = parameter.gradient.grad();
    if (!gradient.defined()) continue;
    parameter.first.mul_(kBeta1).add_(gradient, 1.0 - kBeta1);
    parameter.second.mul_(kBeta2).addcmul_(gradient, gradient, 1.0 - kBeta2);
    parameter.value.addcdiv_(parameter.first, parameter.second.sqrt().add_(kEpsilon), -rate);
    if (parameter.decays && weight_decay_ > 0.0) parameter.value.mul_(1.0 - learning_rate_ * weight_decay_);
    parameter.gradient.mutable_grad() = at::Tensor();
  }
}

StudentWeight::StudentWeight(const at::Tensor& weight, const ZeroQuantWeight& quantizer_, std::string name_)
    : master(weight.detach().to(at::kFloat).clone()), quantizer(quantizer_), name(std::move(name_)) {
  used = master.clone().requires_grad_(true);
  refresh();
}

void StudentWeight::refresh() {
  const c10::NoGradGuard no_gradients;
  used.copy_(quantizer.off() ? master : quantize_zeroquant(master, quantizer, name).values);
}

at::Tensor straight_through_tokens(const at::Tensor& x, const TokenQuantization& quantization) {
  if (quantization.off()) return x;
  const at::Tensor values = quantize_tokens(x.detach(), quantization);
  return x.requires_grad() ? values + (x - x.detach()) : values;
}

std::vector<double> distill(LkdProblem& problem, const LkdOptions& options, const JobContext& job,
                            const std::function<void(std::int64_t, double)>& told) {
  const at::AutoGradMode with_gradients(true);
  LkdAdamW optimizer(problem.parameters, options.learning_rate, options.weight_decay);
  const std::int64_t batch = std::min(options.batch, problem.windows);
  const JobContext stop = job.quiet();
  std::vector<double> losses;
  for (std::int64_t step = 0; step < options.steps; ++step) {
    for (StudentWeight* weight : problem.weights) {
      stop.checkpoint(0, 1, "Distilling");
      weight->refresh();
    }
    std::vector<at::Tensor> targets;
    double elements = 0.0, loss = 0.0;
    for (std::int64_t i = 0; i < batch; ++i) {
      targets.push_back(problem.target((step * batch + i) % problem.windows));
      elements += static_cast<double>(targets.back().numel());
    }
    for (std::int64_t i = 0; i < batch; ++i) {
      stop.checkpoint(0, 1, "Distilling");
      const at::Tensor part =
          (problem.predict((step * batch + i) % problem.windows) - targets[static_cast<std::size_t>(i)])
              .square()
              .sum() /
          elements;
      loss += part.item<double>();
      try {
        part.backward();
      } catch (const std::exception&) {
        if (job.stop_requested()) throw Cancelled{};
        throw;
      }
    }
    if (!std::isfinite(loss)) {
      throw Error(ErrorCode::InvalidArgument, "The distillation diverged at step " + std::to_string(step + 1) +
                                                  ": its loss is not finite. Use a smaller learning rate (lkd_lr).");
    }
    losses.push_back(loss);
    optimizer.step(stop);
    if (told) told(step, loss);
  }
  for (StudentWeight* weight : problem.weights) weight->refresh();
  return losses;
}

LkdResult distill_block(const ArchitectureSpec& spec, const DecoderBlock& student_block, std::int64_t layer,
                        const std::vector<RaggedBatch>& batches, const std::vector<at::Tensor>& hidden,
                        const std::vector<at::Tensor>& targets, const LkdQuantization& quantization,
                        const LkdOptions& options, at::ScalarType compute_type, const JobContext& job) {
  Student student(student_block, layer, quantization, options, job.quiet());
  FullPrecisionWindow masked;
  UnmaskedWindow unmasked;
  AttentionProvider& attention = options.compat_reference ? static_cast<AttentionProvider&>(unmasked) : masked;
  LkdProblem problem = student.problem();
  problem.windows = static_cast<std::int64_t>(hidden.size());
  problem.predict = [&](std::int64_t window) {
    const auto index = static_cast<std::size_t>(window);
    return run_block(spec, student.block(), layer, batches[index], hidden[index].to(at::kFloat), attention);
  };
  problem.target = [&](std::int64_t window) { return targets[static_cast<std::size_t>(window)].to(at::kFloat); };

  LkdResult result;
  result.evaluated = std::min(kEvaluatedWindows, problem.windows);
  result.loss_before = mean_square_error(problem, result.evaluated);
  LkdOptions scaled = options;
  if (options.scale_rate_by_loss && result.loss_before > 0.0) scaled.learning_rate /= result.loss_before;
  job.checkpoint(0, options.steps, step_text(layer, result.loss_before));
  result.losses = distill(problem, scaled, job, [&](std::int64_t step, double loss) {
    job.checkpoint(step + 1, options.steps, step_text(layer, loss));
  });
  result.loss_after = mean_square_error(problem, result.evaluated);
  result.block = student.trained(compute_type);
  return result;
}

at::Tensor UnmaskedWindow::attend(const AttentionCall& call) {
  const std::int64_t heads = call.query.size(0), tokens = call.query.size(1), head_dim = call.query.size(2);
  const std::int64_t kv_heads = call.key.size(0), rows = heads / kv_heads * tokens;
  const double scale =
      call.rules.score_scale > 0.0 ? call.rules.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const at::Tensor query = call.query.to(at::kFloat).reshape({kv_heads, rows, head_dim});
  at::Tensor scores = at::bmm(query, call.key.to(at::kFloat).transpose(1, 2)) * scale;
  if (call.rules.score_softcap > 0.0) scores = at::tanh(scores / call.rules.score_softcap) * call.rules.score_softcap;
  return at::bmm(at::softmax(scores, -1), call.value.to(at::kFloat))
      .view({heads, tokens, head_dim})
      .to(call.query.scalar_type());
}

}  // namespace qs
