#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace qs {

/// Writes a file beside its target and renames it when whole, so that the target is the old file or the new one, never
/// a part. Destroyed without commit(), it leaves nothing.
class SafeFile {
 public:
  /// @throws Error Io when the folder cannot be written
  explicit SafeFile(const std::filesystem::path& target);
  SafeFile(const SafeFile&) = delete;
  SafeFile& operator=(const SafeFile&) = delete;
  ~SafeFile();

  /// @throws Error Io (disk full: says how much was written)
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Flushes to the disk and renames. @throws Error Io
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  int fd_ = -1;
  std::size_t written_ = 0;
};

/// @throws Error Io
void write_file_safely(const std::filesystem::path& target, std::string_view text);

}  // namespace qs
