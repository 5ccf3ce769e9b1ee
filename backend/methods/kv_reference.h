#pragma once

#include "backend/methods/kv_groups.h"

namespace qs {

/// Reference quantizers that KV methods share, on x = [kv_heads, tokens, head_dim]. Values come back in the type of x.

/// One group per (head, channel) and block of `block` tokens. Tokens after the last whole block stay as held in full
/// precision. scale, group_min: [kv_heads, tokens / block, head_dim]
QuantizedTensor quantize_channel_blocks(const at::Tensor& x, std::int64_t block, const GroupQuantizer& quantizer);

/// One group per token and run of `group` channels inside a head. scale, group_min: [kv_heads, tokens, head_dim /
/// group]
QuantizedTensor quantize_token_runs_per_head(const at::Tensor& x, std::int64_t group, const GroupQuantizer& quantizer);

/// One group per token and run of `group` channels of the token's vector of kv_heads * head_dim channels (heads side by
/// side). scale, group_min: [tokens, kv_heads * head_dim / group]
QuantizedTensor quantize_token_runs(const at::Tensor& x, std::int64_t group, const GroupQuantizer& quantizer);

}  // namespace qs
