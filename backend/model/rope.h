#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/model/architecture_spec.h"
#include "backend/model/decoder.h"
#include "backend/types/rope_spec.h"

namespace qs {

/// Angle per position of each rotating pair, [rotary_dim / 2]: pair i turns channels i and i + rotary_dim / 2. All 0
/// when nothing rotates.
///
/// Frequencies that depend on the length follow the text up to and including the call's last token: a whole text at
/// once uses its own length for every token, as the published models do; decoding token by token rotates each new key
/// with the length at that time and leaves those in the cache as they are.
/// @param length  tokens of the text; only Dynamic and LongRope look at it
std::vector<double> rope_frequencies(std::int64_t head_dim, const RopeSpec& rope, std::int64_t length);

/// Cosines and sines of some positions times the attention factor, computed in double and stored in f32
/// [tokens, 1, rotary_dim / 2].
struct RopeTable {
  at::Tensor cosine, sine;
};
/// @param length  as in rope_frequencies; 0: one more than the largest position
RopeTable rope_table(const std::vector<std::int64_t>& positions, std::int64_t head_dim, const RopeSpec& rope,
                     std::int64_t length = 0);

/// Rotates the half-split way (KV specification 1.7) in f32. @param x  [tokens, heads, head_dim]; the result has its
/// type
at::Tensor rotate(const at::Tensor& x, const RopeTable& table);

/// Tables of every token of a batch. Undefined when the architecture does not rotate.
struct RopeTables {
  RopeTable all, sliding;
  const RopeTable& of(const ArchitectureSpec& spec, std::int64_t layer) const {
    return spec.slides(layer) && spec.sliding_rope ? sliding : all;
  }
};
RopeTables rope_tables(const ArchitectureSpec& spec, const RaggedBatch& batch);

}  // namespace qs
