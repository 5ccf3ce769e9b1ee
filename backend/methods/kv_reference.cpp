#include "backend/methods/kv_reference.h"

#include <ATen/ATen.h>

namespace qs {

QuantizedTensor quantize_channel_blocks(const at::Tensor& x, std::int64_t block, const GroupQuantizer& quantizer) {
  const std::int64_t kv_heads = x.size(0), tokens = x.size(1), head_dim = x.size(2);
  const std::int64_t whole = block > 0 ? tokens / block * block : 0;
  const at::Tensor held = as_stored(x, quantizer.store);
  QuantizedTensor result;
  result.levels = quantizer.levels();
  at::Tensor values = held.clone();
  result.codes = at::full(x.sizes(), 255, at::kByte);
  if (whole > 0) {
    const at::Tensor blocks =
        held.narrow(1, 0, whole).reshape({kv_heads, whole / block, block, head_dim}).transpose(2, 3);
    const GroupCodes groups = quantize_groups(blocks, quantizer);
    values.narrow(1, 0, whole).copy_(groups.values.transpose(2, 3).reshape({kv_heads, whole, head_dim}));
    result.codes.narrow(1, 0, whole).copy_(groups.codes.transpose(2, 3).reshape({kv_heads, whole, head_dim}));
    result.scale = groups.scale;
    result.group_min = groups.group_min;
  } else {
    result.scale = result.group_min = at::zeros({kv_heads, 0, head_dim});
  }
  if (whole < tokens) {
    result.full_precision = at::zeros(x.sizes(), at::kBool);
    result.full_precision.narrow(1, whole, tokens - whole).fill_(true);
  }
  result.values = values.to(x.scalar_type());
  return result;
}

QuantizedTensor quantize_token_runs_per_head(const at::Tensor& x, std::int64_t group, const GroupQuantizer& quantizer) {
  const at::Tensor runs = as_stored(x, quantizer.store).reshape({x.size(0), x.size(1), x.size(2) / group, group});
  const GroupCodes groups = quantize_groups(runs, quantizer);
  return {.values = groups.values.reshape(x.sizes()).to(x.scalar_type()),
          .codes = groups.codes.reshape(x.sizes()),
          .scale = groups.scale,
          .group_min = groups.group_min,
          .levels = quantizer.levels()};
}

QuantizedTensor quantize_token_runs(const at::Tensor& x, std::int64_t group, const GroupQuantizer& quantizer) {
  const std::int64_t kv_heads = x.size(0), tokens = x.size(1), head_dim = x.size(2);
  const at::Tensor token_matrix = as_stored(x, quantizer.store).transpose(0, 1).reshape({tokens, kv_heads * head_dim});
  const GroupCodes groups =
      quantize_groups(token_matrix.reshape({tokens, kv_heads * head_dim / group, group}), quantizer);
  const auto by_head = [&](const at::Tensor& t) {
    return t.reshape({tokens, kv_heads, head_dim}).transpose(0, 1).contiguous();
  };
  return {.values = by_head(groups.values).to(x.scalar_type()),
          .codes = by_head(groups.codes),
          .scale = groups.scale,
          .group_min = groups.group_min,
          .levels = quantizer.levels()};
}

}  // namespace qs
