#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/methods/kv_groups.h"
#include "kernels/kv_grouped.h"

namespace qs {

/// Type in which the scales and minima of a group are kept. The 8-bit floats saturate.
using ParameterType = kernels::ParameterFormat;
std::int64_t bytes_of(ParameterType type);
/// What reading back gives. @throws Error InvalidArgument when a value overflows f16
void store_and_read(ParameterType type, float* values, std::int64_t count);
/// @param to  `count` elements of `type`; the values must fit (store_and_read checks)
void store_parameters(ParameterType type, const float* values, std::int64_t count, void* to);
void read_parameters(ParameterType type, const void* from, std::int64_t count, float* values);

/// Which of the kv_heads * head_dim channels of a token share a scale: channel order[p] stands at place p, and group i
/// holds the places start[i] .. start[i + 1). Groups may be empty and may hold channels of several heads.
struct ChannelGroups {
  std::vector<std::int32_t> order, start;
  std::int64_t width() const { return static_cast<std::int64_t>(order.size()); }
  std::int64_t groups() const { return static_cast<std::int64_t>(start.size()) - 1; }
  std::vector<std::int32_t> group_of_channel() const;

  /// Blocks of `group` neighbouring channels.
  static ChannelGroups blocks(std::int64_t width, std::int64_t group);
  /// @throws Error InvalidArgument unless `order` is a permutation and `start` rises from 0 to its length
  static ChannelGroups from(const at::Tensor& order, const at::Tensor& start, const std::string& what);
};

/// SKVQ's quantizer (KV specification 5.2) for keys or for values.
struct SkvqQuantizer {
  int top = 3;                 ///< largest code, M: 2 for the three levels of "1.5 bits", else 2^bits - 1
  bool centre_clip = false;    ///< shrink the range about its middle instead of scaling both ends
  bool rounded_codes = false;  ///< codes from the stored parameters instead of the unrounded ones
  GroupCompute compute = GroupCompute::F32;
  ParameterType store = ParameterType::F16;
  ChannelGroups groups;
  std::vector<float> clip = {1.0f};  ///< one, or one a group
  std::vector<float> smooth;         ///< [width] factors before quantizing, divided out after; empty: none

  float clip_of(std::int64_t group) const { return clip.size() == 1 ? clip[0] : clip[static_cast<std::size_t>(group)]; }
};

/// Codes of a token matrix, channels in their original order.
struct TokenCodes {
  at::Tensor codes;             ///< uint8 [tokens, width]
  at::Tensor scale, group_min;  ///< f32 [tokens, groups], as stored; of an empty group 0
  at::Tensor values;            ///< f32 [tokens, width]
  double saturated = 0.0;       ///< share of elements beyond the clipped range
};

/// Reference path. A group whose elements are all equal gets code 0, scale 0 and that element as minimum.
/// @param x  f32 [tokens, width], finite
TokenCodes quantize_channel_groups(const at::Tensor& x, const SkvqQuantizer& quantizer);

/// The same codes for one token, for the packed path. @param x  f32 [width]; codes, scale and group_min as in
/// TokenCodes, parameters unrounded; scratch [2 * width]
void encode_token(const float* x, const SkvqQuantizer& quantizer, std::uint8_t* codes, float* scale, float* group_min,
                  float* scratch);

}  // namespace qs
