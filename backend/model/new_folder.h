#pragma once

#include <filesystem>

namespace qs {

/// A folder that is filled beside its target and renamed when whole. Destroyed without commit(), it leaves nothing.
class NewFolder {
 public:
  /// @param replace  an existing target gives way at commit(); else only an empty one may be there
  /// @throws Error InvalidArgument when the target is there, Io when the folder cannot be made
  NewFolder(std::filesystem::path target, bool replace);
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder();

  /// What the constructor checks first. @throws Error InvalidArgument
  static void check(const std::filesystem::path& target, bool replace);
  const std::filesystem::path& path() const { return temporary_; }  ///< to write into
  /// @throws Error Io; an existing target is then as it was
  void commit();

 private:
  std::filesystem::path target_, temporary_;
};

}  // namespace qs
