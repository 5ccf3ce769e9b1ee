#include "backend/model/new_folder.h"

#include <unistd.h>

#include <string>
#include <system_error>

#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

bool is_taken(const fs::path& path) {
  std::error_code problem;
  if (!fs::exists(fs::symlink_status(path, problem))) return false;
  return !fs::is_directory(path, problem) || !fs::is_empty(path, problem);
}

fs::path beside(const fs::path& target, const char* ending) {
  return target.parent_path() / ("." + target.filename().string() + "." + std::to_string(::getpid()) + ending);
}

[[noreturn]] void throw_io(const fs::path& path, const std::string& what, const std::error_code& problem) {
  throw Error(ErrorCode::Io, "'" + path.string() + "' " + what + ": " + problem.message() + ".");
}

}  // namespace

void NewFolder::check(const fs::path& target, bool replace) {
  if (replace || !is_taken(target)) return;
  throw Error(ErrorCode::InvalidArgument, "'" + target.string() +
                                              "' is there already. Choose another folder, or have it replaced "
                                              "(--force).");
}

NewFolder::NewFolder(fs::path target, bool replace) : target_(fs::absolute(target)) {
  if (target_.filename().empty()) target_ = target_.parent_path();
  check(target_, replace);
  const fs::path temporary = beside(target_, ".part");
  std::error_code problem;
  fs::remove_all(temporary, problem);  // of a killed run that had the same process id
  if (!fs::create_directory(temporary, problem)) throw_io(target_, "cannot be made", problem);
  temporary_ = temporary;
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void NewFolder::commit() {
  std::error_code problem;
  const fs::path old = beside(target_, ".old");
  const bool replaces = is_taken(target_);
  if (replaces) {
    fs::rename(target_, old, problem);
    if (problem) throw_io(target_, "cannot be replaced", problem);
  }
  fs::rename(temporary_, target_, problem);
  if (problem) {
    std::error_code ignored;
    if (replaces) fs::rename(old, target_, ignored);
    throw_io(target_, "cannot be put into place", problem);
  }
  temporary_.clear();
  if (replaces) fs::remove_all(old, problem);
}

}  // namespace qs
