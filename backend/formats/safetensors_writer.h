#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "backend/formats/safe_write.h"
#include "backend/formats/tensor_table.h"

namespace qs {

/// Writes a safetensors file whose tensors do not have to be in memory together: what they are is said first, their
/// bytes follow in pieces of any size. Destroyed without commit(), it leaves nothing.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    StoredType type = StoredType::F32;  ///< an element type
    std::vector<std::int64_t> shape;
    std::int64_t bytes() const;
  };

  /// @throws Error InvalidArgument for a name that comes twice; Io
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<Entry>& entries,
                    const std::map<std::string, std::string>& metadata = {});
  /// The next bytes of the entries, in their order. @throws Error InvalidArgument beyond the last; Io
  void write(std::span<const std::byte> bytes);
  /// Flushes and renames. @throws Error InvalidArgument when bytes are missing; Io
  void commit();

 private:
  std::string path_;
  SafeFile file_;
  std::int64_t expected_ = 0, written_ = 0;
};

}  // namespace qs
