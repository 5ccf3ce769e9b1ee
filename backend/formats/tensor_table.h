#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// Element types of stored tensors, named as safetensors does.
enum class StoredType { F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool, F8E4M3, F8E5M2 };

const char* stored_type_id(StoredType type);      ///< "F16", "F8_E4M3": the spelling in files
const char* stored_type_name(StoredType type);    ///< "float16": the spelling on screen
std::int64_t stored_type_bytes(StoredType type);  ///< of one element
bool is_float(StoredType type);
std::optional<StoredType> parse_stored_type(std::string_view id);

/// A tensor as it lies in a file: row-major, little-endian, perhaps unaligned. The bytes belong to the TensorTable.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::int64_t size() const;  ///< elements
};

/// Named tensors of one checkpoint, whatever its format. Copies share the bytes.
struct TensorTable {
  std::string path;                   ///< of the file, or of the index of a sharded checkpoint
  std::vector<StoredTensor> tensors;  ///< ascending by name
  std::map<std::string, std::string> metadata;
  std::string header_sha256;  ///< of all that precedes the data: two checkpoints of one layout share it
  std::vector<std::shared_ptr<const void>> owners;

  const StoredTensor* find(std::string_view name) const;  ///< null when it is not there
  /// @throws Error NotFound naming the tensor and some that are there
  const StoredTensor& at(std::string_view name) const;
  std::int64_t bytes() const;  ///< of all tensors
};

/// "[4096, 256]"
std::string shape_text(const std::vector<std::int64_t>& shape);

/// Values as f32. @throws Error Unsupported for integer and 8-bit float types
std::vector<float> to_f32(const StoredTensor& tensor);

}  // namespace qs
