#pragma once

#include "backend/methods/kvquant.h"

namespace qs {

/// Packed KVQuant cache: the first tokens in f16, then coded tokens. A new token is coded before attention sees it.
/// Keys are held before rotation and rotated in registers while they meet the query.
std::unique_ptr<KvCache> make_kvquant_cache(const Kvquant& method, const CacheShape& shape);

}  // namespace qs
