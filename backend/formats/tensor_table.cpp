#include "backend/formats/tensor_table.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/formats/block_types.h"
#include "backend/formats/half.h"
#include "backend/formats/printable.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/float_formats.h"

namespace qs {
namespace {

struct TypeRow {
  StoredType type;
  const char* id;
  const char* name;
  std::int64_t bytes;
  bool is_float;
  std::int64_t elements = 1;
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
    TypeRow{StoredType::Q4_0, "Q4_0", "Q4_0", 18, true, 32},
    TypeRow{StoredType::Q4_1, "Q4_1", "Q4_1", 20, true, 32},
    TypeRow{StoredType::Q5_0, "Q5_0", "Q5_0", 22, true, 32},
    TypeRow{StoredType::Q5_1, "Q5_1", "Q5_1", 24, true, 32},
    TypeRow{StoredType::Q8_0, "Q8_0", "Q8_0", 34, true, 32},
    TypeRow{StoredType::Q2_K, "Q2_K", "Q2_K", 84, true, 256},
    TypeRow{StoredType::Q3_K, "Q3_K", "Q3_K", 110, true, 256},
    TypeRow{StoredType::Q4_K, "Q4_K", "Q4_K", 144, true, 256},
    TypeRow{StoredType::Q5_K, "Q5_K", "Q5_K", 176, true, 256},
    TypeRow{StoredType::Q6_K, "Q6_K", "Q6_K", 210, true, 256},
    TypeRow{StoredType::Q8Groups, "Q8_GROUPS", "int8 groups", 1, true},
};

const TypeRow& row_of(StoredType type) { return kTypes[static_cast<std::size_t>(type)]; }

}  // namespace

const char* stored_type_id(StoredType type) { return row_of(type).id; }
const char* stored_type_name(StoredType type) { return row_of(type).name; }
std::int64_t stored_type_bytes(StoredType type) { return row_of(type).bytes; }
std::int64_t stored_type_elements(StoredType type) { return row_of(type).elements; }
bool is_block_type(StoredType type) { return row_of(type).elements > 1; }
bool is_float(StoredType type) { return row_of(type).is_float; }

std::optional<StoredType> parse_stored_type(std::string_view id) {
  for (const TypeRow& row : kTypes)
    if (id == row.id && row.elements == 1 && row.type != StoredType::Q8Groups) return row.type;
  return std::nullopt;
}

std::int64_t StoredTensor::size() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::int64_t StoredTensor::columns() const { return shape.empty() ? 1 : shape.back(); }

std::int64_t StoredTensor::rows() const { return size() == 0 ? 0 : size() / columns(); }

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
  for (const StoredTensor& tensor : tensors)
    total += static_cast<std::int64_t>(tensor.bytes.size() + tensor.scales.size());
  return total;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

namespace {

template <typename Stored, typename Convert>
void convert(const std::byte* from, std::int64_t count, float* out, Convert&& to_float) {
  for (std::int64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof value, sizeof value);
    out[i] = to_float(value);
  }
}

void decode_groups(const StoredTensor& tensor, std::int64_t first, std::int64_t count, float* out) {
  for (std::int64_t i = first; i < first + count; ++i) {
    float scale = 0.0f;
    std::memcpy(&scale, tensor.scales.data() + static_cast<std::size_t>(i / tensor.group_size) * sizeof scale,
                sizeof scale);
    *out++ = static_cast<float>(std::to_integer<std::int8_t>(tensor.bytes[static_cast<std::size_t>(i)])) * scale;
  }
}

/// Elements [first, first + count) in storage order; of block types whole blocks.
void decode_values(const StoredTensor& tensor, std::int64_t first, std::int64_t count, float* out) {
  const std::byte* from = tensor.bytes.data() + static_cast<std::size_t>(first / stored_type_elements(tensor.type) *
                                                                         stored_type_bytes(tensor.type));
  switch (tensor.type) {
    case StoredType::F64:
      return convert<double>(from, count, out, [](double value) { return static_cast<float>(value); });
    case StoredType::F32:
      std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case StoredType::F16:
      if (reinterpret_cast<std::uintptr_t>(from) % alignof(std::uint16_t) == 0)
        return kernels::kernel_set().f16_to_f32(reinterpret_cast<const std::uint16_t*>(from), out, count);
      return convert<std::uint16_t>(from, count, out, f16_to_f32);
    case StoredType::BF16:
      return convert<std::uint16_t>(from, count, out, bf16_to_f32);
    case StoredType::F8E4M3:
      return kernels::e4m3_to_f32(reinterpret_cast<const std::uint8_t*>(from), out, count);
    case StoredType::F8E5M2:
      return kernels::e5m2_to_f32(reinterpret_cast<const std::uint8_t*>(from), out, count);
    case StoredType::Q8Groups:
      return decode_groups(tensor, first, count, out);
    default:
      break;
  }
  if (is_block_type(tensor.type)) return decode_blocks(tensor.type, from, count, out);
  throw Error(ErrorCode::Unsupported, "Tensor '" + printable(tensor.name) + "' is stored as " +
                                          stored_type_name(tensor.type) + "; expected real numbers.");
}

}  // namespace

void decode_to_f32(const StoredTensor& tensor, std::int64_t first_row, std::int64_t rows, float* out) {
  const std::int64_t all = tensor.rows(), columns = tensor.columns();
  if (first_row < 0 || rows < 0 || first_row > all || rows > all - first_row)
    throw Error(ErrorCode::InvalidArgument, "Tensor '" + printable(tensor.name) + "' has " + std::to_string(all) +
                                                " rows; rows " + std::to_string(first_row) + " to " +
                                                std::to_string(first_row + rows) + " were asked for.");
  if (rows == 0) return;
  decode_values(tensor, first_row * columns, rows * columns, out);
}

std::vector<float> to_f32(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  decode_to_f32(tensor, 0, tensor.rows(), values.data());
  return values;
}

}  // namespace qs
