#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/formats/tensor_table.h"

namespace qs {

/// Values of the block types Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 (blocks of 32) and Q2_K, Q3_K, Q4_K, Q5_K, Q6_K (blocks of
/// 256) as f32. Codes, scales and the order of the f32 operations are those that llama.cpp defines, each operation
/// rounded for itself (no fused multiply-add), so that the values are the same on every machine.
/// @param elements  a multiple of stored_type_elements(type); `data` holds that many blocks, perhaps unaligned
/// @throws Error InvalidArgument for a type that has no blocks or a part of a block
void decode_blocks(StoredType type, const std::byte* data, std::int64_t elements, float* out);

}  // namespace qs
