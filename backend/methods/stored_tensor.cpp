#include "backend/methods/stored_tensor.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/types/error.h"

namespace qs {
namespace {

at::ScalarType scalar_type(const StoredTensor& tensor) {
  switch (tensor.type) {
    case StoredType::F64:
      return at::kDouble;
    case StoredType::F32:
      return at::kFloat;
    case StoredType::F16:
      return at::kHalf;
    case StoredType::BF16:
      return at::kBFloat16;
    case StoredType::I64:
      return at::kLong;
    case StoredType::I32:
      return at::kInt;
    case StoredType::I16:
      return at::kShort;
    case StoredType::I8:
      return at::kChar;
    case StoredType::U8:
      return at::kByte;
    case StoredType::Bool:
      return at::kBool;
    case StoredType::F8E4M3:
    case StoredType::F8E5M2:
      return at::kByte;
    default:
      break;
  }
  throw Error(ErrorCode::Unsupported, "Tensor '" + tensor.name + "' has an element type that is not known here.");
}

StoredType stored_type(const std::string& name, at::ScalarType type) {
  for (const StoredType stored : {StoredType::F64, StoredType::F32, StoredType::F16, StoredType::BF16, StoredType::I64,
                                  StoredType::I32, StoredType::I16, StoredType::I8, StoredType::U8, StoredType::Bool}) {
    StoredTensor probe;
    probe.type = stored;
    if (scalar_type(probe) == type) return stored;
  }
  throw Error(ErrorCode::Unsupported, "Tensor '" + name + "' has an element type that files do not have.");
}

}  // namespace

at::Tensor tensor_of(const StoredTensor& stored) {
  at::Tensor tensor = at::empty(stored.shape, scalar_type(stored));
  if (static_cast<std::size_t>(tensor.nbytes()) != stored.bytes.size()) {
    throw Error(ErrorCode::BadFormat, "Tensor '" + stored.name + "' has " + std::to_string(stored.bytes.size()) +
                                          " bytes, its shape needs " + std::to_string(tensor.nbytes()) + ".");
  }
  if (!stored.bytes.empty())
    std::copy(stored.bytes.begin(), stored.bytes.end(), static_cast<std::byte*>(tensor.data_ptr()));
  return tensor;
}

StoredTensor stored_view(const std::string& name, const at::Tensor& tensor) {
  StoredTensor stored;
  stored.name = name;
  stored.type = stored_type(name, tensor.scalar_type());
  stored.shape = tensor.sizes().vec();
  stored.bytes = {static_cast<const std::byte*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.nbytes())};
  return stored;
}

}  // namespace qs
