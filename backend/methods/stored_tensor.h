#pragma once

#include <ATen/core/Tensor.h>

#include "backend/formats/tensor_table.h"

namespace qs {

/// A copy of a stored tensor; 8-bit floats come as bytes. @throws Error BadFormat when its bytes do not fit its shape
at::Tensor tensor_of(const StoredTensor& stored);

/// `tensor`, which must be contiguous and outlive the result, as a tensor to be written.
/// @throws Error Unsupported for an element type that files do not have
StoredTensor stored_view(const std::string& name, const at::Tensor& tensor);

}  // namespace qs
