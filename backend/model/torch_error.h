#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <string>
#include <utility>

#include "backend/types/error.h"

namespace qs {

/// Translates LibTorch's exception: OutOfMemory when an allocation failed, otherwise Internal. `what` says what was
/// being done.
[[noreturn]] void throw_torch_error(const c10::Error& error, const std::string& what);

/// Runs `work` and lets only Error, Cancelled and what is no LibTorch matter out.
template <typename Work>
auto translate_torch_errors(const std::string& what, Work&& work) -> decltype(work()) {
  try {
    return std::forward<Work>(work)();
  } catch (const c10::Error& error) {
    throw_torch_error(error, what);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::OutOfMemory,
                what + ": there is not enough memory. Close other models or use a smaller context.");
  }
}

}  // namespace qs
