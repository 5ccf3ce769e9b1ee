#include "backend/model/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "backend/model/rope.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

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

at::Tensor last_of_sequences(const at::Tensor& hidden, const RaggedBatch& batch) {
  std::vector<at::Tensor> last;
  for (const SequenceSpan& sequence : batch.sequences)
    last.push_back(hidden.narrow(0, sequence.offset + sequence.length - 1, 1));
  return last.size() == 1 ? last.front() : at::cat(last, 0);
}

}  // namespace

RaggedBatch RaggedBatch::single(const std::vector<std::int64_t>& ids, std::int64_t first_position) {
  RaggedBatch batch;
  batch.ids = at::tensor(ids, at::kLong);
  batch.sequences = {{0, static_cast<std::int64_t>(ids.size()), first_position}};
  return batch;
}

at::Tensor embed_tokens(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch) {
  const std::vector<std::int64_t> positions = positions_of(spec, batch);
  check_ids(spec, batch.ids);
  at::Tensor hidden = weights.embedding->rows(batch.ids).to(weights.compute_type);
  // The published models round the scale to the type of the embedding first.
  if (spec.embedding_scale != 1.0)
    hidden = hidden * at::full({1}, spec.embedding_scale, hidden.options().requires_grad(false));
  if (weights.project_in) hidden = weights.project_in->apply(hidden);
  if (spec.position == PositionKind::Learned)
    hidden = hidden + weights.positions.index_select(0, at::tensor(positions, at::kLong) + spec.position_offset);
  return hidden;
}

at::Tensor final_logits(const ArchitectureSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden) {
  at::Tensor x = apply_norm(spec, hidden, weights.final_norm);
  if (weights.project_out) x = weights.project_out->apply(x);
  const at::Tensor logits = weights.lm_head->apply(x).to(at::kFloat);
  return spec.logit_softcap > 0.0 ? at::tanh(logits / spec.logit_softcap) * spec.logit_softcap : logits;
}

at::Tensor forward_with_gradients(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                                  AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job) {
  return translate_torch_errors("The forward pass", [&]() -> at::Tensor {
    at::Tensor hidden = embed_tokens(spec, weights, batch);
    const RopeTables tables = rope_tables(spec, batch);
    const auto layers = static_cast<std::int64_t>(weights.blocks.size());
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      job.checkpoint(layer, layers, "Forward pass");
      hidden = run_block(spec, weights.blocks[static_cast<std::size_t>(layer)], layer, batch, hidden, attention, taps,
                         &tables);
    }
    job.checkpoint(layers, layers, "Forward pass");
    if (rows == LogitRows::None) return {};
    return final_logits(spec, weights, rows == LogitRows::LastOfSequence ? last_of_sequences(hidden, batch) : hidden);
  });
}

at::Tensor forward(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                   AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job) {
  const c10::NoGradGuard no_gradients;
  return forward_with_gradients(spec, weights, batch, attention, rows, taps, job);
}

}  // namespace qs
