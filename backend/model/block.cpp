#include <ATen/ATen.h>

#include "backend/model/decoder.h"
#include "backend/model/rope.h"
#include "backend/types/error.h"

namespace qs {
namespace {

at::Tensor activate(ActivationKind kind, const at::Tensor& x) {
  switch (kind) {
    case ActivationKind::Silu:
      return at::silu(x);
    case ActivationKind::Gelu:
      return at::gelu(x);
    case ActivationKind::GeluTanh:
      return at::gelu(x, "tanh");
    case ActivationKind::Relu:
      return at::relu(x);
  }
  throw Error(ErrorCode::Internal, "Unknown activation.");
}

/// One block over one batch.
class BlockPass {
 public:
  BlockPass(const ArchitectureSpec& spec, const DecoderBlock& block, std::int64_t layer, const RaggedBatch& batch,
            AttentionProvider& attention, TapSink* taps, const RopeTables& tables)
      : spec_(spec),
        block_(block),
        layer_(layer),
        batch_(batch),
        attention_(attention),
        taps_(taps),
        table_(tables.of(spec, layer)) {}

  at::Tensor run(const at::Tensor& hidden) const {
    const bool post = spec_.norm_placement == NormPlacement::Post;
    const at::Tensor attention_input = post ? hidden : norm(hidden, block_.input_norm);
    const at::Tensor attended = norm(attention_branch(attention_input), block_.attention_output_norm);
    if (spec_.parallel_residual) {
      const at::Tensor mlp_input = spec_.shared_norm ? attention_input : norm(hidden, block_.mlp_norm);
      return hidden + attended + mlp_branch(mlp_input);
    }
    at::Tensor middle = hidden + attended;
    if (post) middle = norm(middle, block_.input_norm);
    const at::Tensor mlp_input = post ? middle : norm(middle, block_.mlp_norm);
    const at::Tensor result = middle + norm(mlp_branch(mlp_input), block_.mlp_output_norm);
    return post ? norm(result, block_.mlp_norm) : result;
  }

 private:
  at::Tensor norm(const at::Tensor& x, const NormWeights& weights) const { return apply_norm(spec_, x, weights); }

  void tap(LinearKind kind, const at::Tensor& x, std::int64_t expert = -1) const {
    if (!taps_) return;
    if (expert < 0)
      taps_->on_linear_input(layer_, kind, x);
    else
      taps_->on_expert_input(layer_, expert, kind, x);
  }

  at::Tensor heads_of(LinearKind kind, const at::Tensor& x, std::int64_t heads) const {
    return block_.linear(kind).apply(x).view({x.size(0), heads, spec_.head_dim});
  }

  at::Tensor attention_branch(const at::Tensor& x) const {
    for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V}) tap(kind, x);
    at::Tensor query = norm(heads_of(LinearKind::Q, x, spec_.heads), block_.query_norm);
    const at::Tensor key_pre_rope = norm(heads_of(LinearKind::K, x, spec_.kv_heads), block_.key_norm);
    const at::Tensor value = heads_of(LinearKind::V, x, spec_.kv_heads);
    at::Tensor key = key_pre_rope;
    if (table_.cosine.defined()) {
      query = rotate(query, table_);
      key = rotate(key_pre_rope, table_);
    }
    std::vector<at::Tensor> outputs;
    for (std::size_t i = 0; i < batch_.sequences.size(); ++i) {
      const SequenceSpan& sequence = batch_.sequences[i];
      const auto of_sequence = [&sequence](const at::Tensor& t) {
        return t.narrow(0, sequence.offset, sequence.length).transpose(0, 1).contiguous();
      };
      AttentionCall call;
      call.layer = layer_;
      call.sequence = static_cast<std::int64_t>(i);
      call.first_position = sequence.first_position;
      call.query = of_sequence(query);
      call.key_pre_rope = of_sequence(key_pre_rope);
      call.key = of_sequence(key);
      call.value = of_sequence(value);
      call.rules = spec_.attention_rules(layer_);
      if (taps_) taps_->on_attention(call);
      const at::Tensor output = attention_.attend(call);
      outputs.push_back(output.transpose(0, 1).reshape({sequence.length, spec_.heads * spec_.head_dim}));
    }
    const at::Tensor attended = outputs.size() == 1 ? outputs.front() : at::cat(outputs, 0);
    if (taps_) taps_->on_attention_output(layer_, attended);
    tap(LinearKind::O, attended);
    return block_.linear(LinearKind::O).apply(attended);
  }

  at::Tensor mlp(const at::Tensor& x, const LinearOp* gate, const LinearOp& up, const LinearOp& down,
                 std::int64_t expert) const {
    at::Tensor inner;
    if (gate) {
      tap(LinearKind::Gate, x, expert);
      inner = activate(spec_.activation, gate->apply(x));
    }
    tap(LinearKind::Up, x, expert);
    const at::Tensor raised = up.apply(x);
    inner = gate ? inner * raised : activate(spec_.activation, raised);
    tap(LinearKind::Down, inner, expert);
    return down.apply(inner);
  }

  at::Tensor mlp_branch(const at::Tensor& x) const {
    if (!block_.experts.empty()) return mixture(x);
    const LinearOp* gate = block_.has(LinearKind::Gate) ? &block_.linear(LinearKind::Gate) : nullptr;
    return mlp(x, gate, block_.linear(LinearKind::Up), block_.linear(LinearKind::Down), -1);
  }

  /// Each token's experts_per_token best experts, weighted by the softmax over their router scores.
  at::Tensor mixture(const at::Tensor& x) const {
    if (taps_) taps_->on_router_input(layer_, x);
    const at::Tensor scores = at::softmax(block_.router->apply(x).to(at::kFloat), -1);
    const auto [best, chosen] = at::topk(scores, spec_.experts_per_token, -1);
    const at::Tensor shares = best / best.sum(-1, true);
    at::Tensor output = at::zeros_like(x);
    for (std::size_t i = 0; i < block_.experts.size(); ++i) {
      const at::Tensor mine = chosen == static_cast<std::int64_t>(i);
      const at::Tensor tokens = at::nonzero(mine.any(-1)).flatten();
      if (tokens.numel() == 0) continue;
      const ExpertWeights& expert = block_.experts[i];
      const at::Tensor share = (shares * mine).sum(-1, true).index_select(0, tokens).to(x.scalar_type());
      const at::Tensor result =
          mlp(x.index_select(0, tokens), expert.gate.get(), *expert.up, *expert.down, static_cast<std::int64_t>(i));
      output = output.index_add(0, tokens, result * share);
    }
    return output;
  }

  const ArchitectureSpec& spec_;
  const DecoderBlock& block_;
  std::int64_t layer_;
  const RaggedBatch& batch_;
  AttentionProvider& attention_;
  TapSink* taps_;
  const RopeTable& table_;
};

}  // namespace

at::Tensor apply_norm(const ArchitectureSpec& spec, const at::Tensor& x, const NormWeights& norm) {
  if (!norm.defined()) return x;
  if (spec.norm == NormKind::LayerNorm) return at::layer_norm(x, {x.size(-1)}, norm.weight, norm.bias, spec.norm_eps);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + spec.norm_eps);
  if (spec.norm == NormKind::RmsNormPlusOne) return (normed * (norm.weight.to(at::kFloat) + 1.0)).to(x.scalar_type());
  return normed.to(x.scalar_type()) * norm.weight;
}

at::Tensor run_block(const ArchitectureSpec& spec, const DecoderBlock& block, std::int64_t layer,
                     const RaggedBatch& batch, const at::Tensor& hidden, AttentionProvider& attention, TapSink* taps,
                     const RopeTables* tables) {
  const RopeTables own = tables ? RopeTables() : rope_tables(spec, batch);
  return BlockPass(spec, block, layer, batch, attention, taps, tables ? *tables : own).run(hidden);
}

}  // namespace qs
