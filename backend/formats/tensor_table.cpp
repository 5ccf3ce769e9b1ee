#include "backend/formats/tensor_table.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/formats/half.h"
#include "backend/types/error.h"

namespace qs {
namespace {

struct TypeRow {
  StoredType type;
  const char* id;
  const char* name;
  std::int64_t bytes;
  bool is_float;
};

constexpr std::array kTypes = {
    TypeRow{StoredType::F64, "F64", "float64", 8, true},
    TypeRow{StoredType::F32, "F32", "float32", 4, true},
    TypeRow{StoredType::F16, "F16", "float16", 2, true},
    TypeRow{StoredType::BF16, "BF16", "bfloat16", 2, true},
    TypeRow{StoredType::I64, "I64", "int64", 8, false},
    TypeRow{StoredType::I32, "I32", "int32", 4, false},
    TypeRow{StoredType::I16, "I16", "int16", 2, false},
    TypeRow{StoredType::I8, "I8", "int8", 1, false},
    TypeRow{StoredType::U8, "U8", "uint8", 1, false},
    TypeRow{StoredType::Bool, "BOOL", "bool", 1, false},
    TypeRow{StoredType::F8E4M3, "F8_E4M3", "float8_e4m3", 1, true},
    TypeRow{StoredType::F8E5M2, "F8_E5M2", "float8_e5m2", 1, true},
};

const TypeRow& row_of(StoredType type) { return kTypes[static_cast<std::size_t>(type)]; }

}  // namespace

const char* stored_type_id(StoredType type) { return row_of(type).id; }
const char* stored_type_name(StoredType type) { return row_of(type).name; }
std::int64_t stored_type_bytes(StoredType type) { return row_of(type).bytes; }
bool is_float(StoredType type) { return row_of(type).is_float; }

std::optional<StoredType> parse_stored_type(std::string_view id) {
  for (const TypeRow& row : kTypes)
    if (id == row.id) return row.type;
  return std::nullopt;
}

std::int64_t StoredTensor::size() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

const StoredTensor* TensorTable::find(std::string_view name) const {
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](const StoredTensor& tensor, std::string_view key) { return tensor.name < key; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

const StoredTensor& TensorTable::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  std::string there;
  for (std::size_t i = 0; i < std::min<std::size_t>(tensors.size(), 5); ++i)
    there += (i ? ", '" : "'") + tensors[i].name + "'";
  if (tensors.size() > 5) there += " and " + std::to_string(tensors.size() - 5) + " more";
  throw Error(ErrorCode::NotFound, "'" + path + "' has no tensor '" + std::string(name) + "'; it has " +
                                       (there.empty() ? "none" : there) + ".");
}

std::int64_t TensorTable::bytes() const {
  std::int64_t total = 0;
  for (const StoredTensor& tensor : tensors) total += static_cast<std::int64_t>(tensor.bytes.size());
  return total;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::vector<float> to_f32(const StoredTensor& tensor) {
  const auto count = static_cast<std::size_t>(tensor.size());
  std::vector<float> values(count);
  const std::byte* source = tensor.bytes.data();
  const auto load = [source](auto sample, std::size_t i) {
    std::memcpy(&sample, source + i * sizeof sample, sizeof sample);
    return sample;
  };
  switch (tensor.type) {
    case StoredType::F64:
      for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(load(double{}, i));
      break;
    case StoredType::F32:
      if (count > 0) std::memcpy(values.data(), source, count * sizeof(float));
      break;
    case StoredType::F16:
      for (std::size_t i = 0; i < count; ++i) values[i] = f16_to_f32(load(std::uint16_t{}, i));
      break;
    case StoredType::BF16:
      for (std::size_t i = 0; i < count; ++i) values[i] = bf16_to_f32(load(std::uint16_t{}, i));
      break;
    default:
      throw Error(ErrorCode::Unsupported, "Tensor '" + tensor.name + "' is stored as " + stored_type_name(tensor.type) +
                                              "; expected float64, float32, float16 or bfloat16.");
  }
  return values;
}

}  // namespace qs
