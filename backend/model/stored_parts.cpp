#include "backend/model/stored_parts.h"

#include <ATen/ATen.h>

#include <map>

#include "backend/methods/packed_linear.h"

namespace qs {
namespace {

class Collector {
 public:
  Collector(const ArchitectureSpec& spec, const WeightNames& names, const DecoderWeights& weights) {
    linear({names.embedding, {}}, -1, -1, weights.embedding.get(), false);
    values(names.positions, -1, weights.positions);
    linear(names.project_in, -1, -1, weights.project_in.get(), false);
    for (std::size_t i = 0; i < weights.blocks.size(); ++i)
      block(names, static_cast<std::int64_t>(i), weights.blocks[i]);
    norm(names.final_norm, -1, weights.final_norm);
    linear(names.project_out, -1, -1, weights.project_out.get(), false);
    if (!spec.tied_embeddings) linear(names.lm_head, -1, -1, weights.lm_head.get(), false);
  }

  std::vector<Stored> stored;

 private:
  void block(const WeightNames& names, std::int64_t layer, const DecoderBlock& block) {
    norm(names.input_norm, layer, block.input_norm);
    norm(names.mlp_norm, layer, block.mlp_norm);
    norm(names.attention_output_norm, layer, block.attention_output_norm);
    norm(names.mlp_output_norm, layer, block.mlp_output_norm);
    norm(names.query_norm, layer, block.query_norm);
    norm(names.key_norm, layer, block.key_norm);
    for (const LinearKind kind : kLinearKinds)
      if (block.has(kind)) linear(names.linear(kind), layer, -1, &block.linear(kind), true);
    linear(names.router, layer, -1, block.router.get(), false);
    for (std::size_t i = 0; i < block.experts.size(); ++i) {
      const ExpertWeights& expert = block.experts[i];
      const auto index = static_cast<std::int64_t>(i);
      linear(names.linear(LinearKind::Gate), layer, index, expert.gate.get(), true);
      linear(names.linear(LinearKind::Up), layer, index, expert.up.get(), true);
      linear(names.linear(LinearKind::Down), layer, index, expert.down.get(), true);
    }
  }

  void norm(const WeightPlace& place, std::int64_t layer, const NormWeights& norm) {
    values(place.weight, layer, norm.weight);
    values(place.bias, layer, norm.bias);
  }

  void values(const TensorPlace& place, std::int64_t layer, const at::Tensor& tensor, std::int64_t expert = -1) {
    if (!tensor.defined()) return;
    add({.place = place, .layer = layer, .expert = expert, .values = tensor}, tensor.sizes().vec());
  }

  void linear(const WeightPlace& place, std::int64_t layer, std::int64_t expert, const LinearOp* op, bool in_block) {
    if (!op) return;
    add({.place = place.weight, .layer = layer, .expert = expert, .linear = op, .in_block = in_block},
        {op->out_features(), op->in_features()});
    values(place.bias, layer, op->bias(), expert);
  }

  void add(Piece piece, const std::vector<std::int64_t>& shape) {
    const std::string name = stored_name(piece.place, piece.layer, piece.expert);
    const auto [known, fresh] = index_.emplace(name, stored.size());
    if (fresh) {
      stored.push_back({.name = name, .shape = shape});
    } else {
      stored[known->second].shape[0] += shape[0];
    }
    stored[known->second].pieces.push_back(std::move(piece));
  }

  std::map<std::string, std::size_t> index_;
};

}  // namespace

std::vector<Stored> stored_parts(const ArchitectureSpec& spec, const WeightNames& names,
                                 const DecoderWeights& weights) {
  return Collector(spec, names, weights).stored;
}

const PackedLinear* packed(const Piece& piece) { return dynamic_cast<const PackedLinear*>(piece.linear); }

at::Tensor rows_of_piece(const Piece& piece, std::int64_t rows) {
  const std::vector<std::int64_t> stored = stored_rows(piece.place, piece.expert, rows);
  return stored.empty() ? at::Tensor() : at::tensor(stored, at::kLong);
}

LinearCodes joined_codes(const Stored& stored, bool with_codes) {
  const Piece& first = stored.pieces.front();
  LinearCodes all = packed(first)->linear_codes(with_codes);
  if (stored.pieces.size() == 1 && !rows_of_piece(first, all.out_features()).defined()) return all;
  const std::int64_t out_features = stored.shape[0];
  const auto widened = [&](const at::Tensor& like) { return at::empty({out_features, like.size(1)}, like.options()); };
  LinearCodes joined = all;
  joined.scale = widened(all.scale);
  joined.zero_point = widened(all.zero_point);
  if (with_codes) joined.codes = widened(all.codes);
  for (const Piece& piece : stored.pieces) {
    const LinearCodes part = packed(piece)->linear_codes(with_codes);
    const at::Tensor rows = rows_of_piece(piece, part.out_features());
    joined.scale.index_copy_(0, rows, part.scale);
    joined.zero_point.index_copy_(0, rows, part.zero_point);
    if (with_codes) joined.codes.index_copy_(0, rows, part.codes);
  }
  return joined;
}

std::string joining_refusal(const Stored& stored) {
  const LinearCodes first = packed(stored.pieces.front())->linear_codes(false);
  for (const Piece& piece : stored.pieces) {
    const LinearCodes part = packed(piece)->linear_codes(false);
    if (part.bits != first.bits || part.groups() != first.groups() || part.inputs != first.inputs ||
        part.scale.scalar_type() != first.scale.scalar_type())
      return "its fused parts have different settings";
    if (!at::equal(part.group_index, first.group_index)) return "its fused parts have different activation orders";
  }
  return {};
}

}  // namespace qs
