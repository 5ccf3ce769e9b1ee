#pragma once

#include <stdexcept>
#include <string>

namespace qs {

enum class ErrorCode { InvalidArgument, NotFound, BadFormat, Io, OutOfMemory, Unsupported, Internal };

/// The one error that crosses the program's borders; thrown by value, caught by const reference.
///
/// `what()` is a sentence for a person: which file or setting, what was expected, what was found, what to do.
/// `detail()` is for the log and the "Details" fold: an HDF5 stack, LibTorch's text, offsets.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::string detail = {})
      : std::runtime_error(message), code_(code), detail_(std::move(detail)) {}
  ErrorCode code() const noexcept { return code_; }
  const std::string& detail() const noexcept { return detail_; }

 private:
  ErrorCode code_;
  std::string detail_;
};

}  // namespace qs
