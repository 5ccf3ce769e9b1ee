#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/formats/mapped_file.h"
#include "backend/formats/tensor_table.h"

namespace qs {

/// Types of metadata values, numbered as in the file.
enum class GgufType : std::uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64 };

/// A metadata value where it lies in the file.
struct GgufValue {
  GgufType type = GgufType::U8;     ///< of the value, or of the elements when `is_array`
  bool is_array = false;            ///< arrays of arrays are refused while reading
  std::uint64_t count = 1;          ///< elements
  std::span<const std::byte> data;  ///< the elements; a text is its length (u64) and its bytes
  std::uint64_t offset = 0;         ///< of `data` in the file
};

/// A GGUF file, version 2 or 3: metadata and tensors, mapped. Nothing is believed before it was checked against the
/// size of the file: counts, lengths, types, alignment, extents, ranges (inside the data, without overlap).
///
/// The lookups below return nothing when the key is absent and throw Error BadFormat, naming key and byte, when its
/// value has another kind. Numbers convert between widths; text views stay valid while the GgufFile (or a copy) lives.
class GgufFile {
 public:
  /// @throws Error NotFound, BadFormat (file; key or tensor; byte), Unsupported (version, byte order, tensor type), Io
  static GgufFile read(const std::filesystem::path& path);
  static GgufFile read(std::shared_ptr<const MappedFile> file);

  const std::string& path() const { return tensors_.path; }
  std::uint32_t version() const { return version_; }
  /// Shapes as everywhere else in the program, outermost extent first (the file has them reversed).
  const TensorTable& tensors() const { return tensors_; }
  const std::map<std::string_view, GgufValue>& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const;  ///< null when it is not there

  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> real(std::string_view key) const;  ///< also of an integer
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;  ///< also of booleans, as 0 and 1
  std::optional<std::vector<double>> reals(std::string_view key) const;           ///< also of integers

 private:
  friend class GgufParser;
  std::uint32_t version_ = 0;
  std::map<std::string_view, GgufValue> metadata_;
  TensorTable tensors_;
};

/// Whether the file begins as a GGUF file does. False for what cannot be read.
bool is_gguf(const std::filesystem::path& path);

}  // namespace qs
