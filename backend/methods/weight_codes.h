#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "backend/method.h"
#include "backend/methods/activation_quantization.h"
#include "backend/methods/affine_weight.h"

namespace qs {

enum class Granularity { PerTensor, PerChannel, Group };

/// How one weight matrix is quantized, whatever the method around it.
struct WeightQuantizer {
  QuantizerKind kind = QuantizerKind::Affine;
  AffineQuantizer affine;  ///< bits and scale_type hold for absmax too
  Granularity granularity = Granularity::PerChannel;
  std::int64_t group_size = -1;  ///< of Granularity::Group

  bool off() const { return affine.bits >= 16; }
  bool stores_zero_points() const { return kind == QuantizerKind::Affine && !affine.symmetric; }
  std::int64_t levels() const;
  /// Bits a weight as stored: codes, scales of scale_type and, asymmetric only, zero points of `bits` bits.
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const;
};

/// value[o, i] = scale[o, i / group] * (code[o, i] - zero_point[o, i / group]).
struct WeightCodes {
  at::Tensor codes;              ///< uint8 [out_features, in_features]
  at::Tensor scale, zero_point;  ///< f32 [out_features, in_features / group]; [1, 1] per tensor
  at::Tensor values;             ///< f32 [out_features, in_features], always in the original order
  at::Tensor order;  ///< int64 [in_features]: original column of each column of `codes`; undefined: as they are
};

/// @param weight  [out_features, in_features], any float type
/// @param name    for messages
/// @throws Error InvalidArgument naming row and column of a NaN or infinity, or a group size that does not divide with
/// the
///         nearest that does
WeightCodes quantize_weight_codes(const at::Tensor& weight, const WeightQuantizer& quantizer, const std::string& name);

/// `weight` as contiguous f32. @throws Error InvalidArgument unless it is a finite matrix, naming row and column
at::Tensor finite_weight(const at::Tensor& weight, const std::string& name);
/// @throws Error InvalidArgument naming the nearest group size that divides
void check_group_divides(std::int64_t features, std::int64_t group, const std::string& name);

/// The same as a QuantizedTensor in the type of `weight`; group_min = -scale * zero_point.
QuantizedTensor as_quantized_tensor(const WeightCodes& codes, const at::Tensor& weight,
                                    const WeightQuantizer& quantizer);

/// The linear layer of these codes: dequantized (Simulated) or computing from the packed codes.
/// @param bias  may be undefined
std::shared_ptr<const LinearOp> make_quantized_linear(const WeightCodes& codes, const WeightQuantizer& quantizer,
                                                      const at::Tensor& bias, const ActivationQuantization& activations,
                                                      WeightExecution execution, at::ScalarType compute_type);

/// @throws Error Unsupported when the linear layer is quantized already
void require_floating_point(const LinearOp& linear, const std::string& name);

}  // namespace qs
