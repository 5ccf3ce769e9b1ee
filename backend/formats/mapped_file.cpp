#include "backend/formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "backend/types/error.h"

namespace qs {

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const std::string shown = "'" + path.string() + "'";
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int reason = errno;
    if (reason == ENOENT || reason == ENOTDIR)
      throw Error(ErrorCode::NotFound, shown + " does not exist. Check the path, or complete the download.");
    throw Error(ErrorCode::Io, shown + " cannot be opened for reading: " + std::strerror(reason) + ".");
  }
  struct stat status = {};
  const bool known = ::fstat(fd, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(fd);
    throw Error(ErrorCode::InvalidArgument, shown + " is not a regular file.");
  }
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->size_ = static_cast<std::size_t>(status.st_size);
  if (file->size_ > 0) {
    void* data = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      const int reason = errno;
      ::close(fd);
      throw Error(ErrorCode::Io, shown + " (" + std::to_string(file->size_) +
                                     " bytes) cannot be mapped into memory: " + std::strerror(reason) + ".");
    }
    file->data_ = static_cast<const std::byte*>(data);
  }
  ::close(fd);
  return file;
}

std::shared_ptr<const MappedFile> MappedFile::in_memory(std::vector<std::byte> bytes,
                                                        const std::filesystem::path& name) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = name;
  file->held_ = std::move(bytes);
  file->data_ = file->held_.data();
  file->size_ = file->held_.size();
  return file;
}

MappedFile::~MappedFile() {
  if (size_ > 0 && held_.empty()) ::munmap(const_cast<std::byte*>(data_), size_);
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace qs
