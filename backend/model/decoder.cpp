#include "backend/model/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "backend/model/rope.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true).add_(eps));
  return (wide * scale).to(x.scalar_type()) * weight;
}

at::Tensor layer_norm(const ArchitectureSpec& spec, const at::Tensor& x, const at::Tensor& weight) {
  if (spec.norm == NormKind::RmsNorm) return rms_norm(x, weight, spec.norm_eps);
  return at::layer_norm(x, {x.size(-1)}, weight, {}, spec.norm_eps);
}

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

std::vector<std::int64_t> positions_of(const ArchitectureSpec& spec, const RaggedBatch& batch) {
  std::vector<std::int64_t> positions;
  std::int64_t offset = 0;
  for (const SequenceSpan& sequence : batch.sequences) {
    if (sequence.offset != offset || sequence.length < 1 || sequence.first_position < 0)
      throw Error(ErrorCode::InvalidArgument,
                  "The sequences of a batch must follow one another and hold at least one token each.");
    if (sequence.first_position + sequence.length > spec.max_context)
      throw Error(ErrorCode::InvalidArgument, "Position " +
                                                  std::to_string(sequence.first_position + sequence.length - 1) +
                                                  " is beyond the model's context of " +
                                                  std::to_string(spec.max_context) + " tokens. Use a shorter text.");
    for (std::int64_t i = 0; i < sequence.length; ++i) positions.push_back(sequence.first_position + i);
    offset += sequence.length;
  }
  if (offset == 0 || offset != batch.ids.numel())
    throw Error(ErrorCode::InvalidArgument,
                "A batch needs the tokens that its sequences name: " + std::to_string(offset) + " named, " +
                    std::to_string(batch.ids.numel()) + " given.");
  return positions;
}

void check_ids(const ArchitectureSpec& spec, const at::Tensor& ids) {
  const at::Tensor flat = ids.to(at::kLong).contiguous();
  const std::int64_t* data = flat.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < flat.numel(); ++i)
    if (data[i] < 0 || data[i] >= spec.vocab_size)
      throw Error(ErrorCode::InvalidArgument, "Token id " + std::to_string(data[i]) + " is outside the vocabulary of " +
                                                  std::to_string(spec.vocab_size) +
                                                  ". The tokenizer may belong to another model.");
}

/// One decoder pass over one batch.
class Pass {
 public:
  Pass(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
       AttentionProvider& attention, TapSink* taps)
      : spec_(spec), batch_(batch), attention_(attention), taps_(taps) {
    const std::vector<std::int64_t> positions = positions_of(spec, batch);
    check_ids(spec, batch.ids);
    if (spec.position == PositionKind::Rope) rope_ = rope_table(positions, spec.head_dim, spec.rope);
    hidden_ = weights.embedding.index_select(0, batch.ids.to(at::kLong));
  }

  void run_block(std::int64_t layer, const DecoderBlock& block) {
    const at::Tensor normed = layer_norm(spec_, hidden_, block.input_norm);
    for (const LinearKind kind : {LinearKind::Q, LinearKind::K, LinearKind::V}) tap(layer, kind, normed);
    const at::Tensor attended = attend(layer, block, normed);
    if (taps_) taps_->on_attention_output(layer, attended);
    tap(layer, LinearKind::O, attended);
    hidden_ = hidden_ + block.linear(LinearKind::O).apply(attended);
    hidden_ = hidden_ + mlp(layer, block, layer_norm(spec_, hidden_, block.post_attention_norm));
  }

  at::Tensor logits(const DecoderWeights& weights, LogitRows rows) const {
    at::Tensor selected = hidden_;
    if (rows == LogitRows::LastOfSequence) {
      std::vector<at::Tensor> last;
      for (const SequenceSpan& sequence : batch_.sequences)
        last.push_back(hidden_.narrow(0, sequence.offset + sequence.length - 1, 1));
      selected = last.size() == 1 ? last.front() : at::cat(last, 0);
    }
    return weights.lm_head->apply(layer_norm(spec_, selected, weights.final_norm)).to(at::kFloat);
  }

 private:
  void tap(std::int64_t layer, LinearKind kind, const at::Tensor& x) const {
    if (taps_) taps_->on_linear_input(layer, kind, x);
  }

  at::Tensor attend(std::int64_t layer, const DecoderBlock& block, const at::Tensor& x) {
    const std::int64_t tokens = x.size(0);
    at::Tensor query = block.linear(LinearKind::Q).apply(x).view({tokens, spec_.heads, spec_.head_dim});
    const at::Tensor key_pre_rope = block.linear(LinearKind::K).apply(x).view({tokens, spec_.kv_heads, spec_.head_dim});
    const at::Tensor value = block.linear(LinearKind::V).apply(x).view({tokens, spec_.kv_heads, spec_.head_dim});
    at::Tensor key = key_pre_rope;
    if (spec_.position == PositionKind::Rope) {
      query = rotate(query, rope_);
      key = rotate(key_pre_rope, rope_);
    }
    std::vector<at::Tensor> outputs;
    for (std::size_t i = 0; i < batch_.sequences.size(); ++i) {
      const SequenceSpan& sequence = batch_.sequences[i];
      const auto of_sequence = [&sequence](const at::Tensor& t) {
        return t.narrow(0, sequence.offset, sequence.length).transpose(0, 1).contiguous();
      };
      AttentionCall call;
      call.layer = layer;
      call.sequence = static_cast<std::int64_t>(i);
      call.first_position = sequence.first_position;
      call.query = of_sequence(query);
      call.key_pre_rope = of_sequence(key_pre_rope);
      call.key = of_sequence(key);
      call.value = of_sequence(value);
      if (taps_) taps_->on_attention(call);
      const at::Tensor output = attention_.attend(call);
      outputs.push_back(output.transpose(0, 1).reshape({sequence.length, spec_.heads * spec_.head_dim}));
    }
    return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 0);
  }

  at::Tensor mlp(std::int64_t layer, const DecoderBlock& block, const at::Tensor& x) const {
    at::Tensor inner;
    if (spec_.gated_mlp) {
      tap(layer, LinearKind::Gate, x);
      inner = activate(spec_.activation, block.linear(LinearKind::Gate).apply(x));
    }
    tap(layer, LinearKind::Up, x);
    const at::Tensor up = block.linear(LinearKind::Up).apply(x);
    inner = spec_.gated_mlp ? inner * up : activate(spec_.activation, up);
    tap(layer, LinearKind::Down, inner);
    return block.linear(LinearKind::Down).apply(inner);
  }

  const ArchitectureSpec& spec_;
  const RaggedBatch& batch_;
  AttentionProvider& attention_;
  TapSink* taps_;
  RopeTable rope_;
  at::Tensor hidden_;
};

}  // namespace

RaggedBatch RaggedBatch::single(const std::vector<std::int64_t>& ids, std::int64_t first_position) {
  RaggedBatch batch;
  batch.ids = at::tensor(ids, at::kLong);
  batch.sequences = {{0, static_cast<std::int64_t>(ids.size()), first_position}};
  return batch;
}

at::Tensor forward(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                   AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job) {
  return translate_torch_errors("The forward pass", [&]() -> at::Tensor {
    const c10::NoGradGuard no_gradients;
    Pass pass(spec, weights, batch, attention, taps);
    const auto layers = static_cast<std::int64_t>(weights.blocks.size());
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      job.checkpoint(layer, layers, "Forward pass");
      pass.run_block(layer, weights.blocks[static_cast<std::size_t>(layer)]);
    }
    job.checkpoint(layers, layers, "Forward pass");
    return rows == LogitRows::None ? at::Tensor() : pass.logits(weights, rows);
  });
}

}  // namespace qs
