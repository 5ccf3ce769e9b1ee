#include "backend/formats/safe_write.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::size_t kMaxWriteBytes = std::size_t{1} << 30;

std::filesystem::path folder_of(const std::filesystem::path& target) {
  return target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
}

}  // namespace

SafeFile::SafeFile(const std::filesystem::path& target) : target_(target) {
  static std::atomic<unsigned> counter = 0;
  do {
    temporary_ = folder_of(target) / ("." + target.filename().string() + "." + std::to_string(::getpid()) + "-" +
                                      std::to_string(counter++) + ".part");
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) {
    const int reason = errno;
    temporary_.clear();
    throw Error(ErrorCode::Io, "'" + target.string() + "' cannot be written: " + std::strerror(reason) +
                                   ". Choose a folder that exists and that you may write to.");
  }
  struct stat existing = {};
  if (::stat(target.c_str(), &existing) == 0) (void)::fchmod(fd_, existing.st_mode & 07777);
}

SafeFile::~SafeFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void SafeFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxWriteBytes));
    if (count < 0) {
      if (errno == EINTR) continue;
      throw Error(ErrorCode::Io, "'" + target_.string() + "' could not be written after " + std::to_string(written_) +
                                     " bytes: " + std::strerror(errno) + ". Nothing was left behind.");
    }
    written_ += static_cast<std::size_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void SafeFile::commit() {
  const bool flushed = ::fsync(fd_) == 0;
  const int reason = errno;
  const bool closed = ::close(fd_) == 0;
  fd_ = -1;
  if (!flushed || !closed)
    throw Error(ErrorCode::Io, "'" + target_.string() + "' could not be written to the disk: " +
                                   std::strerror(flushed ? errno : reason) + ". Nothing was left behind.");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw Error(ErrorCode::Io, "'" + target_.string() + "' could not be replaced: " + std::strerror(errno) + ".");
  temporary_.clear();
  const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    (void)::fsync(folder);
    ::close(folder);
  }
}

void write_file_safely(const std::filesystem::path& target, std::string_view text) {
  SafeFile file(target);
  file.write(text);
  file.commit();
}

}  // namespace qs
