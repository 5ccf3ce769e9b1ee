#pragma once

#include <cstdint>
#include <vector>

namespace at {
class Tensor;
}

namespace qs {

/// Codes of `bits` bits one after another, least significant bit first: code j begins at bit j * bits of the bytes.
std::vector<std::uint8_t> pack_run(const std::uint8_t* codes, std::int64_t count, int bits);
/// Codes [first, first + count) of a run.
void unpack_run(const std::vector<std::uint8_t>& packed, std::int64_t first, std::int64_t count, int bits,
                std::uint8_t* codes);

/// The same for a whole tensor of codes: uint8 of any shape to uint8 [bytes] and back.
at::Tensor pack_codes(const at::Tensor& codes, int bits);
/// @throws Error BadFormat when `packed` has another length than these codes take
at::Tensor unpack_codes(const at::Tensor& packed, const std::vector<std::int64_t>& shape, int bits);

}  // namespace qs
