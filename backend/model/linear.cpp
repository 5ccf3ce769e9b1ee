#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>

#include "backend/model/decoder.h"
#include "backend/model/matmul.h"
#include "kernels/dispatch.h"

namespace qs {

const char* linear_id(LinearKind kind) {
  constexpr std::array kIds = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  return kIds[static_cast<std::size_t>(kind)];
}

std::string linear_name(std::int64_t layer, LinearKind kind, std::int64_t expert) {
  const bool in_mlp = kind == LinearKind::Gate || kind == LinearKind::Up || kind == LinearKind::Down;
  std::string name = "layers." + std::to_string(layer) + (in_mlp ? ".mlp." : ".self_attn.");
  if (expert >= 0) name += "experts." + std::to_string(expert) + ".";
  return name + linear_id(kind);
}

std::string router_name(std::int64_t layer) { return "layers." + std::to_string(layer) + ".mlp.router"; }

std::vector<LinearSlot> linear_slots(DecoderBlock& block, std::int64_t layer) {
  std::vector<LinearSlot> slots;
  const auto add = [&](LinearKind kind, std::int64_t expert, std::shared_ptr<const LinearOp>& op) {
    if (op) slots.push_back({layer, kind, expert, linear_name(layer, kind, expert), &op});
  };
  for (const LinearKind kind : kLinearKinds) add(kind, -1, block.linear_slot(kind));
  for (std::size_t i = 0; i < block.experts.size(); ++i) {
    const auto expert = static_cast<std::int64_t>(i);
    add(LinearKind::Gate, expert, block.experts[i].gate);
    add(LinearKind::Up, expert, block.experts[i].up);
    add(LinearKind::Down, expert, block.experts[i].down);
  }
  return slots;
}

std::vector<LinearSlot> linear_slots(DecoderWeights& weights) {
  std::vector<LinearSlot> slots;
  for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer)
    for (LinearSlot& slot : linear_slots(weights.blocks[layer], static_cast<std::int64_t>(layer)))
      slots.push_back(std::move(slot));
  return slots;
}

bool half_products_work() {
  static const bool work = [] {
    try {
      const at::Tensor one = at::ones({2, 2}, at::kHalf);
      return at::mm(one, one).defined() && at::bmm(one.unsqueeze(0), one.unsqueeze(0)).defined();
    } catch (const c10::Error&) {
      return false;  // LibTorch 1.13 has no f16 products on the CPU
    }
  }();
  return work;
}

namespace {

/// Below this a second thread costs more than it brings.
constexpr std::int64_t kMinBytesPerThread = 1 << 20;
constexpr std::int64_t kRowBlock = 16;

std::optional<kernels::DenseType> kernel_type(const at::Tensor& weight) {
  if (weight.scalar_type() == at::kFloat) return kernels::DenseType::F32;
  if (weight.scalar_type() == at::kHalf) return kernels::DenseType::F16;
  if (weight.scalar_type() == at::kBFloat16) return kernels::DenseType::BF16;
  return std::nullopt;
}

}  // namespace

at::Tensor few_token_product(const at::Tensor& x, const void* data, kernels::DenseType type, std::int64_t out_features,
                             std::int64_t in_features) {
  const std::int64_t tokens = x.size(0);
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({tokens, out_features}, at::kFloat);
  const float* input = wide.data_ptr<float>();
  float* output = y.data_ptr<float>();
  const std::int64_t blocks = (out_features + kRowBlock - 1) / kRowBlock;
  const std::int64_t block_bytes = kRowBlock * in_features * (type == kernels::DenseType::F32 ? 4 : 2);
  const std::int64_t grain = std::max<std::int64_t>(1, kMinBytesPerThread / std::max<std::int64_t>(1, block_bytes));
  at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    kernels::GemvArgs args;
    args.x = input;
    args.tokens = tokens;
    args.y = output;
    args.row_begin = begin * kRowBlock;
    args.row_end = std::min(end * kRowBlock, out_features);
    kernels::kernel_set().dense_gemv(type, data, in_features, out_features, args);
  });
  return y.to(x.scalar_type());
}

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto type = kernel_type(weight);
  const bool differentiates = c10::GradMode::is_enabled() &&
                              (x.requires_grad() || weight.requires_grad() || (bias.defined() && bias.requires_grad()));
  const bool few = !differentiates && x.dim() == 2 && x.size(0) > 0 && x.size(0) <= kMaxGemvTokens;
  if (few && type && weight.is_contiguous() && weight.device().is_cpu() && x.scalar_type() == weight.scalar_type()) {
    const at::Tensor y = few_token_product(x, weight.data_ptr(), *type, weight.size(0), weight.size(1));
    return bias.defined() ? y + bias : y;
  }
  if (x.scalar_type() != at::kHalf || half_products_work()) return at::linear(x, weight, bias);
  return at::linear(x.to(at::kFloat), weight.to(at::kFloat), bias.defined() ? bias.to(at::kFloat) : bias).to(at::kHalf);
}

at::Tensor LinearOp::rows(const at::Tensor& ids) const { return weight().index_select(0, ids.to(at::kLong)); }

at::Tensor DenseLinear::rows(const at::Tensor& ids) const { return weight_.index_select(0, ids.to(at::kLong)); }

DenseLinear::DenseLinear(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

at::Tensor DenseLinear::apply(const at::Tensor& x) const { return linear_product(x, weight_, bias_); }

at::Tensor DenseLinear::weight() const { return weight_.to(at::kFloat); }

std::int64_t DenseLinear::bytes() const {
  const auto of = [](const at::Tensor& t) {
    return t.defined() ? static_cast<std::int64_t>(t.numel() * t.element_size()) : 0;
  };
  return of(weight_) + of(bias_);
}

std::int64_t DenseLinear::in_features() const { return weight_.size(1); }

std::int64_t DenseLinear::out_features() const { return weight_.size(0); }

std::int64_t DecoderWeights::bytes() const {
  std::vector<const void*> seen;
  std::int64_t total = 0;
  const auto count = [&](const void* identity, std::int64_t bytes) {
    for (const void* known : seen)
      if (known == identity) return;
    seen.push_back(identity);
    total += bytes;
  };
  const auto count_tensor = [&](const at::Tensor& t) {
    if (t.defined()) count(t.data_ptr(), static_cast<std::int64_t>(t.numel() * t.element_size()));
  };
  const auto count_linear = [&](const LinearOp* linear) {
    if (!linear) return;
    if (const auto* dense = dynamic_cast<const DenseLinear*>(linear)) {
      count_tensor(dense->stored_weight());
      count_tensor(dense->bias());
    } else {
      count(linear, linear->bytes());
    }
  };
  const auto count_norm = [&](const NormWeights& norm) {
    count_tensor(norm.weight);
    count_tensor(norm.bias);
  };
  count_tensor(positions);
  count_norm(final_norm);
  for (const auto* linear : {&embedding, &project_in, &project_out, &lm_head}) count_linear(linear->get());
  for (const DecoderBlock& block : blocks) {
    for (const NormWeights* norm : {&block.input_norm, &block.mlp_norm, &block.attention_output_norm,
                                    &block.mlp_output_norm, &block.query_norm, &block.key_norm})
      count_norm(*norm);
    count_linear(block.router.get());
    for (const auto& linear : block.linears) count_linear(linear.get());
    for (const ExpertWeights& expert : block.experts)
      for (const auto* linear : {&expert.gate, &expert.up, &expert.down}) count_linear(linear->get());
  }
  return total;
}

}  // namespace qs
