#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace qs {

/// A file mapped read-only; the mapping lives as long as the object.
class MappedFile {
 public:
  /// @throws Error NotFound (no such file), InvalidArgument (not a regular file), Io
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  /// Bytes that are at hand, under a name for messages; for readers of what is not a file.
  static std::shared_ptr<const MappedFile> in_memory(std::vector<std::byte> bytes, const std::filesystem::path& name);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }  ///< empty for an empty file
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::vector<std::byte> held_;  ///< of in_memory()
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Tells the operating system that these bytes of a mapping are not needed for now; they are read again when touched.
void release_pages(std::span<const std::byte> bytes);

/// The whole file as text. @throws Error as MappedFile::open
std::string read_text_file(const std::filesystem::path& path);

}  // namespace qs
