#pragma once

#include "backend/methods/decoquant.h"

namespace qs {

/// Packed DecoQuant cache: segments with codes of the large factor and a small factor of their own, then the newest
/// tokens in full precision.
std::unique_ptr<KvCache> make_decoquant_cache(const Decoquant& method, const CacheShape& shape);

}  // namespace qs
