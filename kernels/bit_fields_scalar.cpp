#include "kernels/bit_fields.h"

namespace qs::kernels {
namespace {

/// Reads fields in order.
class FieldReader {
 public:
  FieldReader(const std::uint8_t* packed, int bits) noexcept : next_(packed), bits_(bits) {}
  std::uint32_t next() noexcept {
    while (held_ < bits_) {
      word_ |= static_cast<std::uint32_t>(*next_++) << held_;
      held_ += 8;
    }
    const std::uint32_t code = word_ & ((1U << bits_) - 1U);
    word_ >>= bits_;
    held_ -= bits_;
    return code;
  }

 private:
  const std::uint8_t* next_;
  int bits_, held_ = 0;
  std::uint32_t word_ = 0;
};

}  // namespace

std::int64_t field_bytes(std::int64_t count, int bits) noexcept { return (count * bits + 7) / 8; }

void pack_fields(const std::uint16_t* codes, std::int64_t count, int bits, std::uint8_t* packed) noexcept {
  std::uint32_t word = 0;
  int held = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    word |= (static_cast<std::uint32_t>(codes[i]) & ((1U << bits) - 1U)) << held;
    held += bits;
    for (; held >= 8; held -= 8, word >>= 8) *packed++ = static_cast<std::uint8_t>(word);
  }
  if (held > 0) *packed = static_cast<std::uint8_t>(word);
}

void unpack_fields(const std::uint8_t* packed, std::int64_t count, int bits, std::uint16_t* codes) noexcept {
  FieldReader fields(packed, bits);
  for (std::int64_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint16_t>(fields.next());
}

void decode_fields_scalar(const FieldRun& run, float* x) noexcept {
  FieldReader fields(run.packed, run.bits);
  const int half = 1 << (run.bits - 1);
  for (std::int64_t i = 0; i < run.count; ++i) {
    const float steps = static_cast<float>(static_cast<int>(fields.next()) - half) * run.scale;
    x[i] = steps + run.mean;
  }
}

}  // namespace qs::kernels
