#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "backend/method.h"

namespace qs {

/// Arithmetic of the quantizer (KV specification 1.3): f32 steps, or every elementary operation rounded once to f16.
enum class GroupCompute { F32, F16 };
/// Type in which scales, minima and the tokens outside the quantized range are kept.
enum class GroupStore { F16, F32 };

struct GroupQuantizer {
  int bits = 2;
  bool symmetric = false;  ///< S1 instead of A1: no minimum is stored, codes are offset by 2^(bits-1) - 1
  GroupCompute compute = GroupCompute::F32;
  GroupStore store = GroupStore::F16;

  std::int64_t levels() const { return symmetric ? (std::int64_t{1} << bits) - 1 : std::int64_t{1} << bits; }
  std::int64_t parameter_bytes() const { return store == GroupStore::F16 ? 2 : 4; }
};

/// Result of quantize_groups; `scale` and `group_min` are f32 tensors holding what is stored (rounded for
/// GroupStore::F16).
struct GroupCodes {
  at::Tensor codes;      ///< uint8 [..., group]
  at::Tensor scale;      ///< f32 [...]
  at::Tensor group_min;  ///< f32 [...]; of the symmetric form: -scale * (2^(bits-1) - 1), which is not stored
  at::Tensor values;     ///< f32 [..., group]
};

/// One scale and minimum per run of the last axis (A1, A2 and S1 of KV specification 1.2). Codes come from the
/// unrounded parameters, values from the stored ones. A constant group gets scale 0 and codes 0 and reconstructs to its
/// minimum.
/// @param input  f32 [..., group] as `as_stored` gives it
/// @throws Error InvalidArgument when a scale or minimum does not fit f16
GroupCodes quantize_groups(const at::Tensor& input, const GroupQuantizer& quantizer);

/// `x` as the cache receives it: f32, rounded to f16 first when the cache keeps f16.
/// @throws Error InvalidArgument when a value overflows f16
at::Tensor as_stored(const at::Tensor& x, GroupStore store);

/// @param x  [kv_heads, tokens, head_dim]; [kv_heads, head_dim] is one token, number `first_token`
/// @throws Error InvalidArgument naming role, head and token of the first NaN or infinity
void check_finite(const at::Tensor& x, KvRole role, std::int64_t first_token = 0);

/// @throws Error InvalidArgument unless x is [kv_heads, tokens, head_dim] of a float type
void check_kv_tensor(const at::Tensor& x);

const char* role_name(KvRole role);  ///< "key" or "value"

/// The value nearest to `wanted` that divides `whole` and is a multiple of `step`; 0 when there is none.
std::int64_t nearest_divisor(std::int64_t whole, std::int64_t wanted, std::int64_t step, std::int64_t smallest,
                             std::int64_t largest);

}  // namespace qs
