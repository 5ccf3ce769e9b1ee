#pragma once

#include "backend/methods/rtn_kv.h"

namespace qs {

/// Packed RTN cache: every token is quantized before attention sees it; keys in channel blocks wait in full precision
/// until their block is complete.
std::unique_ptr<KvCache> make_rtn_kv_cache(const RtnKv& method, const CacheShape& shape);

}  // namespace qs
