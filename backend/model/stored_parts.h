#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/model/code_layout.h"
#include "backend/model/weight_places.h"

namespace qs {

class PackedLinear;

/// One of the decoder's tensors and where it belongs: a linear, or the values of a norm, a bias, positions.
struct Piece {
  TensorPlace place;
  std::int64_t layer = -1, expert = -1;
  const LinearOp* linear = nullptr;  ///< belongs to the decoder's weights
  at::Tensor values;                 ///< where it is no linear
  bool in_block = false;             ///< a linear that weight methods quantize
};

/// A tensor of the checkpoint, of one piece or, where the family fuses projections, of several.
struct Stored {
  std::string name;
  std::vector<Piece> pieces;
  std::vector<std::int64_t> shape;   ///< of ours: [out_features, in_features], or as the values
  std::optional<CodeFormat> format;  ///< it lies as codes
  StoredType type = StoredType::F32;

  bool linear() const { return pieces.front().linear != nullptr; }
  bool in_block() const { return linear() && pieces.front().in_block; }
  bool transposed() const { return pieces.front().place.transposed && shape.size() == 2; }
  std::vector<std::int64_t> stored_shape() const {
    return transposed() ? std::vector<std::int64_t>{shape[1], shape[0]} : shape;
  }
};

/// Everything that the description has, by the name it is stored under, in model order: the inverse of
/// assemble_weights. The embedding comes first.
std::vector<Stored> stored_parts(const ArchitectureSpec& spec, const WeightNames& names, const DecoderWeights& weights);

/// The linear that computes from codes; null for anything else.
const PackedLinear* packed(const Piece& piece);
/// Rows of the stored tensor that a piece of `rows` rows fills, int64; undefined: all, in order.
at::Tensor rows_of_piece(const Piece& piece, std::int64_t rows);

/// Why pieces that are stored as one tensor, all packed, cannot lie as one set of codes; empty when they can.
std::string joining_refusal(const Stored& stored);
/// The codes of all pieces, which fit one another, in the order of the stored tensor.
/// @param with_codes  false: a description, without work
LinearCodes joined_codes(const Stored& stored, bool with_codes);

}  // namespace qs
