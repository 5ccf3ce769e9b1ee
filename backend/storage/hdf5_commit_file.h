#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "backend/storage/hdf5_handle.h"

namespace qs::hdf5 {

/// An HDF5 file whose state on disk changes only at commit(), so that a reader, or whoever opens it after the process
/// was killed, always finds the last committed state.
///
/// HDF5 alone does not promise that: between two flushes it may write a part of its metadata. Here all writing goes
/// through a file driver of our own. Bytes behind the committed end of the file go to disk at once, for nothing refers
/// to them yet; bytes inside it are held back in memory by page. commit() writes the held pages first to a journal
/// beside the file
/// ("<file>.journal": magic, page count, page numbers, pages, checksum), then into the file, then removes the journal.
/// recover() finishes what a kill interrupted: a whole journal is applied, a partial one is dropped. The format is the
/// oldest that holds the data (superblock 0), which keeps no "open for writing" mark: stock readers open it.
class CommitFile {
 public:
  /// Makes a new file at `path`, whose journal will be beside `final_path` (where the file is going to be renamed to).
  static std::unique_ptr<CommitFile> create(const std::filesystem::path& path, const std::filesystem::path& final_path);
  static std::unique_ptr<CommitFile> open(const std::filesystem::path& path);
  ~CommitFile();  ///< closes; what was not committed is lost

  hid_t id() const { return file_; }
  /// @throws Error Io (disk full: what was needed). The file keeps its last committed state.
  void commit();

  struct State;

 private:
  CommitFile(std::shared_ptr<State> state, hid_t file);
  std::shared_ptr<State> state_;
  File file_;
};

/// Finishes or drops the commit that a kill interrupted. Does nothing when there is no journal.
/// @throws Error Io when the file cannot be repaired because it is read-only
void recover(const std::filesystem::path& path);

/// Writes a file beside `path` on the HDF5 thread and renames it when whole, so that `path` is the old file or the new
/// one. @param fill  receives the open file. @throws Error Io, and whatever `fill` throws; then nothing is left behind
void write_whole_file(const std::filesystem::path& path, const std::function<void(hid_t)>& fill);

}  // namespace qs::hdf5
