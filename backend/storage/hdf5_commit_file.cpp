#include "backend/storage/hdf5_commit_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include "backend/storage/hdf5_thread.h"
#include "backend/types/error.h"

namespace qs::hdf5 {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::array<char, 8> kMagic = {'Q', 'S', 'J', 'R', 'N', 'L', '0', '1'};
using Page = std::array<char, kPage>;

bool write_all(int fd, const void* data, std::uint64_t size, std::uint64_t offset) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = ::pwrite(fd, bytes, size, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes += done;
    offset += static_cast<std::uint64_t>(done);
    size -= static_cast<std::uint64_t>(done);
  }
  return true;
}

/// Bytes behind the end of the file read as zeros.
bool read_all(int fd, void* data, std::uint64_t size, std::uint64_t offset) {
  char* bytes = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t done = ::pread(fd, bytes, size, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    if (done == 0) {
      std::memset(bytes, 0, size);
      return true;
    }
    bytes += done;
    offset += static_cast<std::uint64_t>(done);
    size -= static_cast<std::uint64_t>(done);
  }
  return true;
}

std::uint64_t checksum(const char* data, std::size_t size, std::uint64_t hash = 14695981039346656037ull) {  // FNV-1a
  for (std::size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<unsigned char>(data[i])) * 1099511628211ull;
  return hash;
}

std::filesystem::path journal_of(const std::filesystem::path& path) { return path.string() + ".journal"; }

/// A lock that our own processes see and HDF5's flock() does not. False when somebody else writes the file.
bool lock_for_writing(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

std::string reason(int error) {
  return error == ENOSPC || error == EFBIG || error == EDQUOT ? "the disk is full or a size limit was reached"
                                                              : std::strerror(error);
}

}  // namespace

struct CommitFile::State {
  int fd = -1;
  std::string name;
  std::filesystem::path journal;
  std::uint64_t committed_end = 0;  ///< nothing below this changes on disk outside commit()
  std::map<std::uint64_t, Page> held;
  int failure = 0;  ///< errno of the first write that failed; from then on nothing reaches the disk

  ~State() {
    if (fd >= 0) ::close(fd);
  }

  bool write(std::uint64_t offset, const char* data, std::uint64_t size) {
    if (failure) return false;
    while (size > 0) {
      if (offset >= committed_end) {
        if (write_all(fd, data, size, offset)) return true;
        failure = errno ? errno : ENOSPC;
        return false;
      }
      const std::uint64_t number = offset / kPage, inside = offset % kPage;
      const std::uint64_t part = std::min({size, kPage - inside, committed_end - offset});
      auto it = held.find(number);
      if (it == held.end()) {
        Page page;
        if (!read_all(fd, page.data(), kPage, number * kPage)) return false;
        it = held.emplace(number, page).first;
      }
      std::memcpy(it->second.data() + inside, data, part);
      data += part;
      offset += part;
      size -= part;
    }
    return true;
  }

  bool read(std::uint64_t offset, char* data, std::uint64_t size) const {
    if (!read_all(fd, data, size, offset)) return false;
    for (auto it = held.lower_bound(offset / kPage); it != held.end() && it->first * kPage < offset + size; ++it) {
      // A held page is the truth below the committed end only; behind it the disk is.
      const std::uint64_t begin = std::max(offset, it->first * kPage);
      const std::uint64_t end = std::min({offset + size, (it->first + 1) * kPage, committed_end});
      if (begin < end)
        std::memcpy(data + (begin - offset), it->second.data() + (begin - it->first * kPage), end - begin);
    }
    return true;
  }

  /// Bytes of a held page that belong below the committed end.
  std::uint64_t held_bytes(std::uint64_t number) const { return std::min(kPage, committed_end - number * kPage); }

  bool commit(std::uint64_t end) {
    if (failure) return false;
    struct stat status {};
    if (::fstat(fd, &status) != 0 ||
        (static_cast<std::uint64_t>(status.st_size) < end && ::ftruncate(fd, static_cast<off_t>(end)) != 0)) {
      failure = errno;
      return false;
    }
    // One page is written in one step that a kill cannot cut; more go through the journal.
    if (held.size() > 1 && !write_journal()) return false;
    for (const auto& [number, page] : held) {
      if (!write_all(fd, page.data(), held_bytes(number), number * kPage)) {
        failure = errno ? errno : ENOSPC;
        return false;
      }
    }
    if (held.size() > 1) ::unlink(journal.c_str());
    held.clear();
    committed_end = end;
    return true;
  }

  bool write_journal() {
    std::vector<char> bytes(kMagic.begin(), kMagic.end());
    const auto put = [&](std::uint64_t value) {
      const char* raw = reinterpret_cast<const char*>(&value);
      bytes.insert(bytes.end(), raw, raw + sizeof value);
    };
    put(held.size());
    for (const auto& [number, page] : held) {
      put(number * kPage);
      put(held_bytes(number));
      bytes.insert(bytes.end(), page.begin(), page.end());
    }
    put(checksum(bytes.data(), bytes.size()));
    const int out = ::open(journal.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    const bool whole = out >= 0 && write_all(out, bytes.data(), bytes.size(), 0);
    if (!whole) failure = errno ? errno : ENOSPC;
    if (out >= 0) ::close(out);
    if (!whole) ::unlink(journal.c_str());
    return whole;
  }
};

namespace {

/// What HDF5 sees of an open file. `base` is first: HDF5 casts.
struct Driver {
  H5FD_t base;
  haddr_t allocated_end;
  CommitFile::State* state;
};

/// Handed to the driver's open callback, which runs inside H5Fcreate or H5Fopen on the HDF5 thread.
thread_local CommitFile::State* opening = nullptr;

Driver* driver(H5FD_t* file) { return reinterpret_cast<Driver*>(file); }
const Driver* driver(const H5FD_t* file) { return reinterpret_cast<const Driver*>(file); }

H5FD_t* driver_open(const char*, unsigned, hid_t, haddr_t) {
  if (!opening) return nullptr;
  auto* file = new Driver{};
  file->state = opening;
  return &file->base;
}

herr_t driver_close(H5FD_t* file) {
  delete driver(file);
  return 0;
}

int driver_compare(const H5FD_t* a, const H5FD_t* b) {
  const auto *x = driver(a)->state, *y = driver(b)->state;
  return x < y ? -1 : x > y ? 1 : 0;
}

herr_t driver_query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t driver_get_eoa(const H5FD_t* file, H5FD_mem_t) { return driver(file)->allocated_end; }

herr_t driver_set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  driver(file)->allocated_end = end;
  return 0;
}

haddr_t driver_get_eof(const H5FD_t* file, H5FD_mem_t) {
  struct stat status {};
  ::fstat(driver(file)->state->fd, &status);
  return static_cast<haddr_t>(status.st_size);
}

herr_t driver_read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, size_t size, void* data) {
  return driver(file)->state->read(offset, static_cast<char*>(data), size) ? 0 : -1;
}

// After a failure HDF5 still has to close its objects; it is told that all went well, and nothing is written.
herr_t driver_write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, size_t size, const void* data) {
  CommitFile::State& state = *driver(file)->state;
  if (!state.failure) state.write(offset, static_cast<const char*>(data), size);
  return 0;
}

herr_t driver_truncate(H5FD_t*, hid_t, hbool_t) { return 0; }

H5FD_class_t driver_class() {
  H5FD_class_t c{};
#if H5_VERSION_GE(1, 13, 2)
  c.version = H5FD_CLASS_VERSION;
  c.value = static_cast<H5FD_class_value_t>(600);
#endif
  c.name = "quantoscope_commit";
  c.maxaddr = (static_cast<haddr_t>(1) << 62) - 1;
  c.fc_degree = H5F_CLOSE_STRONG;
  c.open = driver_open;
  c.close = driver_close;
  c.cmp = driver_compare;
  c.query = driver_query;
  c.get_eoa = driver_get_eoa;
  c.set_eoa = driver_set_eoa;
  c.get_eof = driver_get_eof;
  c.read = driver_read;
  c.write = driver_write;
  c.truncate = driver_truncate;
  const H5FD_mem_t map[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(map), std::end(map), std::begin(c.fl_map));
  return c;
}

Properties access_properties() {
  static const H5FD_class_t kClass = driver_class();
  static const hid_t kDriver = H5FDregister(&kClass);
  check(kDriver, "register the HDF5 file driver");
  Properties access(H5Pcreate(H5P_FILE_ACCESS));
  check(H5Pset_driver(access, kDriver, nullptr), "choose the HDF5 file driver");
  return access;
}

template <typename Open>
hid_t open_with(CommitFile::State& state, const Open& open) {
  opening = &state;
  const hid_t file = open();
  opening = nullptr;
  return file;
}

}  // namespace

CommitFile::CommitFile(std::shared_ptr<State> state, hid_t file) : state_(std::move(state)), file_(file) {}

std::unique_ptr<CommitFile> CommitFile::create(const std::filesystem::path& path,
                                               const std::filesystem::path& final_path) {
  auto state = std::make_shared<State>();
  state->name = final_path.string();
  state->journal = journal_of(final_path);
  state->fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (state->fd < 0)
    throw Error(ErrorCode::Io,
                "Could not create '" + path.string() + "': " + std::strerror(errno) + ". Choose another folder.");
  lock_for_writing(state->fd);
  const Properties access = access_properties();
  const hid_t file = open_with(*state, [&] { return H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access); });
  check(file, "create '" + path.string() + "'");
  return std::unique_ptr<CommitFile>(new CommitFile(std::move(state), file));
}

std::unique_ptr<CommitFile> CommitFile::open(const std::filesystem::path& path) {
  recover(path);
  auto state = std::make_shared<State>();
  state->name = path.string();
  state->journal = journal_of(path);
  state->fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (state->fd < 0)
    throw Error(ErrorCode::Io, "Could not open '" + path.string() + "' for writing: " + std::strerror(errno) + ".");
  if (!lock_for_writing(state->fd)) {
    throw Error(ErrorCode::Io,
                "'" + path.string() + "' is being written by another capture. Wait for it or choose another file.");
  }
  struct stat status {};
  ::fstat(state->fd, &status);
  state->committed_end = static_cast<std::uint64_t>(status.st_size);
  const Properties access = access_properties();
  const hid_t file = open_with(*state, [&] { return H5Fopen(path.c_str(), H5F_ACC_RDWR, access); });
  check(file, "open '" + path.string() + "' for writing");
  return std::unique_ptr<CommitFile>(new CommitFile(std::move(state), file));
}

CommitFile::~CommitFile() {
  if (!state_->failure) state_->failure = ECANCELED;  // closing must not write what was not committed
  file_.reset();
}

void CommitFile::commit() {
  const herr_t flushed = H5Fflush(file_, H5F_SCOPE_GLOBAL);
  if (!state_->failure) check(flushed, "write '" + state_->name + "'");
  haddr_t end = 0;
  if (!state_->failure) {
    hsize_t size = 0;
    check(H5Fget_filesize(file_, &size), "write '" + state_->name + "'");
    end = size;
  }
  if (!state_->commit(end)) {
    throw Error(ErrorCode::Io,
                "Could not write '" + state_->name + "': " + reason(state_->failure) +
                    ". What was written before is kept; free some space or choose another folder.",
                std::strerror(state_->failure));
  }
}

void recover(const std::filesystem::path& path) {
  const auto journal = journal_of(path);
  const int in = ::open(journal.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) return;
  const int out = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const int open_error = errno;
  if (out >= 0 && !lock_for_writing(out)) {  // its writer is alive and will finish by itself
    ::close(in);
    ::close(out);
    return;
  }
  struct stat status {};
  ::fstat(in, &status);
  std::vector<char> bytes(static_cast<std::size_t>(std::min<off_t>(status.st_size, off_t{1} << 32)));
  const bool read = read_all(in, bytes.data(), bytes.size(), 0);
  ::close(in);
  constexpr std::size_t kEntry = 16 + kPage;
  std::uint64_t count = 0, stored = 0;
  bool whole = read && bytes.size() >= 24 && std::equal(kMagic.begin(), kMagic.end(), bytes.begin()) &&
               (bytes.size() - 24) % kEntry == 0;
  if (whole) {
    std::memcpy(&count, bytes.data() + 8, sizeof count);
    std::memcpy(&stored, bytes.data() + bytes.size() - 8, sizeof stored);
    whole = count == (bytes.size() - 24) / kEntry && stored == checksum(bytes.data(), bytes.size() - 8);
  }
  if (whole) {
    const auto fail = [&](int error) {
      if (out >= 0) ::close(out);
      throw Error(ErrorCode::Io, "'" + path.string() +
                                     "' was cut off while it was written and has to be repaired from '" +
                                     journal.string() + "', but it cannot be written: " + std::strerror(error) +
                                     ". Copy both to a folder where you may write.");
    };
    if (out < 0) fail(open_error);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t offset = 0, size = 0;
      const char* entry = bytes.data() + 16 + i * kEntry;
      std::memcpy(&offset, entry, sizeof offset);
      std::memcpy(&size, entry + 8, sizeof size);
      if (size > kPage || !write_all(out, entry + 16, size, offset)) fail(errno);
    }
  }
  ::unlink(journal.c_str());
  if (out >= 0) ::close(out);
}

void write_whole_file(const std::filesystem::path& path, const std::function<void(hid_t)>& fill) {
  const std::filesystem::path part = path.string() + ".part" + std::to_string(::getpid());
  try {
    Hdf5Thread::instance().run([&] {
      const auto file = CommitFile::create(part, part);
      fill(file->id());
      file->commit();
    });
    std::filesystem::rename(part, path);
  } catch (const std::filesystem::filesystem_error& e) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw Error(ErrorCode::Io,
                "Could not write '" + path.string() + "': " + e.code().message() + ". Choose another file.", e.what());
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
}

}  // namespace qs::hdf5
