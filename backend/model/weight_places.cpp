#include "backend/model/weight_places.h"

#include <ATen/core/Tensor.h>

#include <map>

namespace qs {
namespace {

std::string replace_first(std::string text, const std::string& what, std::int64_t number) {
  const std::size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), std::to_string(number));
}

std::string with_beginning(const std::string& name, const std::string& from, const std::string& to) {
  return name.starts_with(from) ? to + name.substr(from.size()) : name;
}

/// Writes down what is asked for. Patterns of one stored tensor add up.
class Recorder final : public WeightSource {
 public:
  at::Tensor tensor(const TensorPlace& place, std::int64_t layer, std::int64_t expert,
                    const std::vector<std::int64_t>& shape) override {
    const std::string name = stored_name(place, layer, expert);
    const bool part = place.rows.block > 0;
    const auto [known, fresh] = index_.emplace(name, expected.size());
    if (fresh) expected.push_back({.name = name, .shape = shape});
    std::vector<std::int64_t>& stored = expected[known->second].shape;
    if (fresh) {
      if (place.transposed && shape.size() == 2) std::swap(stored[0], stored[1]);
    } else if (part) {
      stored[place.transposed && shape.size() == 2 ? 1 : 0] += shape[0];
    }
    return {};
  }

  std::shared_ptr<const LinearOp> linear(const WeightPlace& place, bool with_bias, std::int64_t layer,
                                         std::int64_t expert, std::int64_t out_features,
                                         std::int64_t in_features) override {
    tensor(place.weight, layer, expert, {out_features, in_features});
    ExpectedTensor& weight = expected[index_.at(stored_name(place.weight, layer, expert))];
    weight.linear = true;
    weight.transposed = place.weight.transposed;
    if (with_bias) tensor(place.bias, layer, expert, {out_features});
    return nullptr;
  }

  std::vector<ExpectedTensor> expected;

 private:
  std::map<std::string, std::size_t> index_;
};

}  // namespace

WeightPlace weight_place(const std::string& stem) { return {{stem + ".weight"}, {stem + ".bias"}}; }

WeightNames with_prefix(WeightNames names, const std::string& from, const std::string& to) {
  const auto rename = [&](TensorPlace& place) { place.name = with_beginning(place.name, from, to); };
  rename(names.embedding);
  rename(names.positions);
  for (WeightPlace* place :
       {&names.project_in, &names.project_out, &names.final_norm, &names.lm_head, &names.input_norm, &names.mlp_norm,
        &names.attention_output_norm, &names.mlp_output_norm, &names.query_norm, &names.key_norm, &names.router}) {
    rename(place->weight);
    rename(place->bias);
  }
  for (WeightPlace& place : names.linears) {
    rename(place.weight);
    rename(place.bias);
  }
  return names;
}

std::string stored_name(const TensorPlace& place, std::int64_t layer, std::int64_t expert) {
  std::string name = place.name;
  if (layer >= 0) name = replace_first(std::move(name), "{}", layer);
  return expert >= 0 ? replace_first(std::move(name), "{e}", expert) : name;
}

std::vector<std::int64_t> stored_rows(const TensorPlace& place, std::int64_t expert, std::int64_t rows) {
  const RowPattern& pattern = place.rows;
  if (pattern.block == 0 && place.paired_heads == 0) return {};
  std::vector<std::int64_t> stored;
  if (pattern.block == 0) {
    for (std::int64_t row = 0; row < rows; ++row) stored.push_back(row);
  } else {
    const std::int64_t offset = pattern.offset + (expert > 0 ? expert * pattern.expert_stride : 0);
    for (std::int64_t run = 0; run < pattern.count; ++run)
      for (std::int64_t row = 0; row < pattern.block; ++row) stored.push_back(offset + run * pattern.period + row);
  }
  if (place.paired_heads == 0) return stored;
  std::vector<std::int64_t> halves(stored.size());
  const auto head_dim = static_cast<std::int64_t>(stored.size()) / place.paired_heads, half = head_dim / 2;
  for (std::int64_t head = 0; head < place.paired_heads; ++head)
    for (std::int64_t i = 0; i < head_dim; ++i)
      halves[static_cast<std::size_t>(head * head_dim + i)] =
          stored[static_cast<std::size_t>(head * head_dim + i % half * 2 + i / half)];
  return halves;
}

DecoderWeights assemble_weights(const ArchitectureSpec& spec, const WeightNames& names, WeightSource& source) {
  const std::int64_t hidden = spec.hidden_size, inner = spec.intermediate_size;
  const std::int64_t width = spec.embedding_width > 0 ? spec.embedding_width : hidden;
  const std::int64_t query_width = spec.heads * spec.head_dim, kv_width = spec.kv_heads * spec.head_dim;
  const auto norm = [&](const WeightPlace& place, std::int64_t layer, std::int64_t channels) {
    NormWeights weights{source.tensor(place.weight, layer, -1, {channels}), {}};
    if (spec.norm == NormKind::LayerNorm) weights.bias = source.tensor(place.bias, layer, -1, {channels});
    return weights;
  };

  DecoderWeights weights;
  weights.embedding = source.linear({names.embedding, {}}, false, -1, -1, spec.vocab_size, width);
  if (spec.position == PositionKind::Learned)
    weights.positions = source.tensor(names.positions, -1, -1, {spec.position_offset + spec.max_context, hidden});
  if (width != hidden) weights.project_in = source.linear(names.project_in, false, -1, -1, hidden, width);
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    DecoderBlock block;
    const auto linear = [&](LinearKind kind, bool bias, std::int64_t out, std::int64_t in, std::int64_t expert = -1) {
      return source.linear(names.linear(kind), bias, layer, expert, out, in);
    };
    block.input_norm = norm(names.input_norm, layer, hidden);
    block.linear_slot(LinearKind::Q) = linear(LinearKind::Q, spec.query_bias, query_width, hidden);
    block.linear_slot(LinearKind::K) = linear(LinearKind::K, spec.key_bias, kv_width, hidden);
    block.linear_slot(LinearKind::V) = linear(LinearKind::V, spec.value_bias, kv_width, hidden);
    block.linear_slot(LinearKind::O) = linear(LinearKind::O, spec.output_bias, hidden, query_width);
    if (spec.query_key_norm) {
      block.query_norm = norm(names.query_norm, layer, spec.head_dim);
      block.key_norm = norm(names.key_norm, layer, spec.head_dim);
    }
    if (spec.output_norms) block.attention_output_norm = norm(names.attention_output_norm, layer, hidden);
    if (!spec.shared_norm) block.mlp_norm = norm(names.mlp_norm, layer, hidden);
    if (spec.experts == 0) {
      if (spec.gated_mlp) block.linear_slot(LinearKind::Gate) = linear(LinearKind::Gate, spec.mlp_bias, inner, hidden);
      block.linear_slot(LinearKind::Up) = linear(LinearKind::Up, spec.mlp_bias, inner, hidden);
      block.linear_slot(LinearKind::Down) = linear(LinearKind::Down, spec.mlp_bias, hidden, inner);
    } else {
      block.router = source.linear(names.router, false, layer, -1, spec.experts, hidden);
    }
    for (std::int64_t expert = 0; expert < spec.experts; ++expert) {
      ExpertWeights one;
      if (spec.gated_mlp) one.gate = linear(LinearKind::Gate, spec.mlp_bias, inner, hidden, expert);
      one.up = linear(LinearKind::Up, spec.mlp_bias, inner, hidden, expert);
      one.down = linear(LinearKind::Down, spec.mlp_bias, hidden, inner, expert);
      block.experts.push_back(std::move(one));
    }
    if (spec.output_norms) block.mlp_output_norm = norm(names.mlp_output_norm, layer, hidden);
    weights.blocks.push_back(std::move(block));
  }
  if (spec.final_norm) weights.final_norm = norm(names.final_norm, -1, hidden);
  if (width != hidden) weights.project_out = source.linear(names.project_out, false, -1, -1, width, hidden);
  if (spec.tied_embeddings)
    weights.lm_head = weights.embedding;
  else
    weights.lm_head = source.linear(names.lm_head, spec.head_bias, -1, -1, spec.vocab_size, width);
  return weights;
}

std::vector<ExpectedTensor> expected_tensors(const ArchitectureSpec& spec, const WeightNames& names) {
  Recorder recorder;
  assemble_weights(spec, names, recorder);
  return std::move(recorder.expected);
}

}  // namespace qs
