#pragma once

#include <memory>

namespace at {
class Tensor;
}

namespace qs {

class LinearOp;
struct LinearCodes;

/// The linear layer that computes from a checkpoint's codes. @param bias  may be undefined
std::shared_ptr<const LinearOp> packed_from_codes(const LinearCodes& codes, const at::Tensor& bias);

/// Lets this program load quantized checkpoints: to be called once, before the first model is loaded.
void load_codes_as_packed_linears();

}  // namespace qs
