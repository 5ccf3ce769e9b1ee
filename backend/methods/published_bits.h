#pragma once

#include "backend/method.h"

namespace qs {

/// Bits of a quantized element as the method's paper counts them, the window left out (KV specification 5.9, 6.9 and
/// 8.9; of the others their formula). What is really stored is CacheStats::effective_bits.
/// @param code_bits  mean width of a code, which only mixed widths leave open
double published_bits(const KvMethod& method, KvRole role, const CacheShape& shape, std::int64_t tokens,
                      double code_bits);

}  // namespace qs
