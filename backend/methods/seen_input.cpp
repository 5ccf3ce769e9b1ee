#include "backend/methods/seen_input.h"

#include <ATen/ATen.h>

#include "backend/methods/absmax_method.h"
#include "backend/methods/activation_quantization.h"
#include "backend/methods/zeroquant.h"
#include "backend/methods/zeroquant_linear.h"

namespace qs {

at::Tensor seen_input(const LinearOp& linear, const at::Tensor& x) {
  if (const auto* tokens = dynamic_cast<const TokenQuantizedLinear*>(&linear)) return tokens->seen_input(x);
  if (const auto* codes = dynamic_cast<const ZeroQuantLinear*>(&linear)) return codes->seen_input(x);
  if (const auto* absmax = dynamic_cast<const AbsmaxActivationLinear*>(&linear))
    return seen_input(absmax->inner(), absmax->input().apply(x));
  return fake_quantize(x, input_quantization(linear));
}

}  // namespace qs
