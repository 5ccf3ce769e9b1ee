#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/model/decoder.h"

namespace qs {

/// The rows of a stored matrix that make one of ours: `count` runs of `block` rows, `period` rows apart, the first at
/// `offset`. Fused projections are one stored tensor with several patterns.
struct RowPattern {
  std::int64_t offset = 0;
  std::int64_t block = 0;  ///< 0: all rows
  std::int64_t period = 0, count = 1;
  std::int64_t expert_stride = 0;  ///< added to offset for each expert, where the experts lie in one tensor
};

/// Where a tensor of the decoder lies in a checkpoint. Tensors of more than two dimensions count as rows of their last
/// one.
struct TensorPlace {
  std::string name;         ///< "{}" stands for the layer, "{e}" for the expert
  bool transposed = false;  ///< stored as [in_features, out_features]
  RowPattern rows = {};     ///< after the transposition
  /// Heads whose channels lie as (0, half, 1, half + 1, ...), the order of llama.cpp's Llama files; 0: as we have them.
  std::int64_t paired_heads = 0;
};

struct WeightPlace {
  TensorPlace weight, bias;
};
/// `stem` + ".weight" and ".bias".
WeightPlace weight_place(const std::string& stem);

/// Where each weight of a decoder lies. What the ArchitectureSpec does not ask for is not looked at.
struct WeightNames {
  TensorPlace embedding, positions;
  WeightPlace project_in, project_out, final_norm, lm_head;
  WeightPlace input_norm, mlp_norm, attention_output_norm, mlp_output_norm, query_norm, key_norm, router;
  std::array<WeightPlace, kLinearKinds.size()> linears;  ///< in the order of kLinearKinds; with {e} for experts
  std::vector<std::string> ignored_beginnings;           ///< tensors that carry nothing the decoder needs
  std::vector<std::string> ignored_endings;

  WeightPlace& linear(LinearKind kind) { return linears[static_cast<std::size_t>(kind)]; }
  const WeightPlace& linear(LinearKind kind) const { return linears[static_cast<std::size_t>(kind)]; }
};

/// Replaces the beginning `from` of every name by `to`.
WeightNames with_prefix(WeightNames names, const std::string& from, const std::string& to);

/// The name of the stored tensor.
std::string stored_name(const TensorPlace& place, std::int64_t layer, std::int64_t expert);

/// Row indices in the stored tensor of our rows; empty when our rows are exactly the stored ones.
/// @param rows  of our tensor
std::vector<std::int64_t> stored_rows(const TensorPlace& place, std::int64_t expert, std::int64_t rows);

/// Gives the assembly of a decoder its tensors.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// @param layer, expert  -1 where the place has none; @param shape  of our tensor
  virtual at::Tensor tensor(const TensorPlace& place, std::int64_t layer, std::int64_t expert,
                            const std::vector<std::int64_t>& shape) = 0;
  virtual std::shared_ptr<const LinearOp> linear(const WeightPlace& place, bool with_bias, std::int64_t layer,
                                                 std::int64_t expert, std::int64_t out_features,
                                                 std::int64_t in_features) = 0;
};

/// Asks `source` for every weight that the description has, in model order.
DecoderWeights assemble_weights(const ArchitectureSpec& spec, const WeightNames& names, WeightSource& source);

/// A tensor of a checkpoint as the description expects it.
struct ExpectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;  ///< as stored
  bool linear = false;              ///< the weight of a linear layer, which may lie as codes
  bool transposed = false;          ///< stored as [in_features, out_features]
};
std::vector<ExpectedTensor> expected_tensors(const ArchitectureSpec& spec, const WeightNames& names);

}  // namespace qs
