#pragma once

#include <vector>

#include "backend/model/variant.h"
#include "backend/types/generation.h"
#include "backend/types/job.h"

namespace qs {

/// Allocated bytes of the variant's caches after one prompt of `ids`, summed over layers; the full-precision cache of a
/// variant without a KV setup is kept in f16. A setup that cannot decode (KvMethod::cannot_stream) has no cache: its
/// bytes are those of its formula, all counted as codes.
CacheStats measure_cache(const Variant& variant, const std::vector<std::int64_t>& ids, const JobContext& job);

std::int64_t peak_resident_bytes();  ///< of this process so far; 0 when the system does not say

}  // namespace qs
