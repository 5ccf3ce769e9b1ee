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

/// Element types of stored tensors, named as safetensors does, the block types of GGUF, named as llama.cpp does, and
/// what else decode_to_f32 knows.
enum class StoredType {
  F64,
  F32,
  F16,
  BF16,
  I64,
  I32,
  I16,
  I8,
  U8,
  Bool,
  F8E4M3,
  F8E5M2,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  Q8Groups,  ///< llama2.c: int8 codes, f32 scales apart from them
};

const char* stored_type_id(StoredType type);         ///< "F16", "F8_E4M3", "Q4_K": the spelling in files
const char* stored_type_name(StoredType type);       ///< "float16", "Q4_K": the spelling on screen
std::int64_t stored_type_bytes(StoredType type);     ///< of one element, or of one block
std::int64_t stored_type_elements(StoredType type);  ///< of one block; 1 for element types
bool is_block_type(StoredType type);
/// Whether the values are real numbers that decode_to_f32 gives: floats and block types.
bool is_float(StoredType type);
/// An element type by its safetensors spelling; nothing for block types.
std::optional<StoredType> parse_stored_type(std::string_view id);

/// A tensor as it lies in a file: row-major, little-endian, perhaps unaligned. The bytes belong to the TensorTable.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  /// Of Q8Groups: f32, one for each `group_size` elements in storage order.
  std::span<const std::byte> scales = {};
  std::int64_t group_size = 0;

  std::int64_t size() const;     ///< elements
  std::int64_t columns() const;  ///< innermost extent, 1 for a scalar
  std::int64_t rows() const;     ///< size() / columns(), 0 for an empty tensor
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

/// Decodes rows [first_row, first_row + rows) of any float or block type to f32, exactly but for float64, which is
/// rounded. @param out  [rows, columns]
/// @throws Error Unsupported naming the tensor and its integer type; InvalidArgument for rows that it does not have
void decode_to_f32(const StoredTensor& tensor, std::int64_t first_row, std::int64_t rows, float* out);

/// All values as f32. @throws Error as decode_to_f32
std::vector<float> to_f32(const StoredTensor& tensor);

}  // namespace qs
