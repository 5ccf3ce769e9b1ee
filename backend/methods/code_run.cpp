#include "backend/methods/code_run.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/types/error.h"

namespace qs {

std::vector<std::uint8_t> pack_run(const std::uint8_t* codes, std::int64_t count, int bits) {
  std::vector<std::uint8_t> packed(static_cast<std::size_t>((count * bits + 7) / 8), 0);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t bit = j * bits;
    const unsigned shifted = static_cast<unsigned>(codes[j]) << (bit % 8);
    packed[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(shifted);
    if (shifted > 0xFF) packed[static_cast<std::size_t>(bit / 8 + 1)] |= static_cast<std::uint8_t>(shifted >> 8);
  }
  return packed;
}

void unpack_run(const std::vector<std::uint8_t>& packed, std::int64_t first, std::int64_t count, int bits,
                std::uint8_t* codes) {
  const unsigned mask = (1u << bits) - 1u;
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t bit = (first + j) * bits;
    const auto byte = static_cast<std::size_t>(bit / 8);
    unsigned word = packed[byte];
    if (byte + 1 < packed.size()) word |= static_cast<unsigned>(packed[byte + 1]) << 8;
    codes[j] = static_cast<std::uint8_t>((word >> (bit % 8)) & mask);
  }
}

at::Tensor pack_codes(const at::Tensor& codes, int bits) {
  const at::Tensor flat = codes.contiguous();
  const std::vector<std::uint8_t> packed = pack_run(flat.data_ptr<std::uint8_t>(), flat.numel(), bits);
  at::Tensor result = at::empty({static_cast<std::int64_t>(packed.size())}, at::kByte);
  std::copy(packed.begin(), packed.end(), result.data_ptr<std::uint8_t>());
  return result;
}

at::Tensor unpack_codes(const at::Tensor& packed, const std::vector<std::int64_t>& shape, int bits) {
  at::Tensor codes = at::empty(shape, at::kByte);
  const std::int64_t bytes = (codes.numel() * bits + 7) / 8;
  if (packed.scalar_type() != at::kByte || packed.numel() != bytes) {
    throw Error(ErrorCode::BadFormat, "Packed codes of " + std::to_string(bits) + " bits take " +
                                          std::to_string(bytes) + " bytes for this shape, found " +
                                          std::to_string(packed.numel()) + ".");
  }
  const at::Tensor flat = packed.contiguous();
  const auto* const data = flat.data_ptr<std::uint8_t>();
  unpack_run(std::vector<std::uint8_t>(data, data + flat.numel()), 0, codes.numel(), bits,
             codes.data_ptr<std::uint8_t>());
  return codes;
}

}  // namespace qs
