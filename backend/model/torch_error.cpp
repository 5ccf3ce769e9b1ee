#include "backend/model/torch_error.h"

namespace qs {

void throw_torch_error(const c10::Error& error, const std::string& what) {
  const std::string text = error.what_without_backtrace();
  if (text.find("not enough memory") != std::string::npos || text.find("out of memory") != std::string::npos)
    throw Error(ErrorCode::OutOfMemory,
                what + ": there is not enough memory. Close other models or use a smaller context.", text);
  throw Error(ErrorCode::Internal, what + " failed inside LibTorch. This is a fault of the program; please report it.",
              text);
}

}  // namespace qs
