#pragma once

#include "backend/methods/qaq.h"

namespace qs {

/// Packed QAQ cache: records of mixed width, then the newest tokens in full precision.
std::unique_ptr<KvCache> make_qaq_cache(const Qaq& method, const CacheShape& shape);

}  // namespace qs
