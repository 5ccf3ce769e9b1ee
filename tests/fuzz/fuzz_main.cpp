#include <cstdint>

#include "tests/fuzz/readers.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  qs::fuzz::QS_FUZZ_READER({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
