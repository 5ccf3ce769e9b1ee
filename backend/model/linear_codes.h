#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace qs {

class LinearOp;

/// What a linear layer that computes from codes does to its input.
enum class CodedInputs {
  AsTheyAre,
  Int8Absmax,  ///< 8 bits, symmetric, one scale a token: its absolute maximum / 127 (weights specification, A1)
  Other        ///< a quantization that no checkpoint layout describes
};

/// A linear layer as codes, independent of how memory or a checkpoint holds them (weights specification 5.6):
/// weight[o, i] = scale[o, g] * (code[o, i] - zero_point[o, g]) with g = group_index[i].
struct LinearCodes {
  int bits = 0;
  at::Tensor codes;        ///< uint8 [out_features, in_features], original column order; undefined in a description
  at::Tensor scale;        ///< f16, bf16 or f32, as stored [out_features, groups]
  at::Tensor zero_point;   ///< uint8 [out_features, groups], 0 .. 2^bits - 1
  at::Tensor group_index;  ///< int32 [in_features]
  std::int64_t group_size = 0;  ///< columns that share a scale; the last group may have fewer
  CodedInputs inputs = CodedInputs::AsTheyAre;

  std::int64_t out_features() const { return scale.size(0); }
  std::int64_t in_features() const { return group_index.size(0); }
  std::int64_t groups() const { return scale.size(1); }
  bool symmetric() const;        ///< every zero point is 2^(bits - 1)
  bool groups_are_runs() const;  ///< group_index[i] = i / group_size: no activation order
  at::Tensor values() const;     ///< the weight, f32 [out_features, in_features]
};

/// These rows of a layer. @param rows  indices
LinearCodes rows_of(const LinearCodes& codes, const std::vector<std::int64_t>& rows);

/// Makes the layer that computes from codes. @param bias  may be undefined
using PackedLinearFactory = std::shared_ptr<const LinearOp> (*)(const LinearCodes& codes, const at::Tensor& bias);

/// Loading knows no method, so whoever puts a program together says what codes become: once, before a model is loaded.
void set_packed_linear_factory(PackedLinearFactory factory);
/// @throws Error Internal when no factory was set
std::shared_ptr<const LinearOp> make_packed_linear(const LinearCodes& codes, const at::Tensor& bias);

}  // namespace qs
