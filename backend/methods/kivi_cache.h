#pragma once

#include "backend/methods/kivi.h"

namespace qs {

/// Packed KIVI cache. Keys: packed blocks of group_size tokens, then 0 to R-1 tokens in full precision. Values: packed
/// tokens, then the newest R in a ring. R is the residual length.
std::unique_ptr<KvCache> make_kivi_cache(const Kivi& method, const CacheShape& shape);

}  // namespace qs
