#include "backend/types/generation.h"

namespace qs {

CacheStats& CacheStats::operator+=(const CacheStats& other) {
  bytes_codes += other.bytes_codes;
  bytes_scales += other.bytes_scales;
  bytes_zeros += other.bytes_zeros;
  bytes_outliers += other.bytes_outliers;
  bytes_indices += other.bytes_indices;
  bytes_widths += other.bytes_widths;
  bytes_small_factor += other.bytes_small_factor;
  bytes_full_precision += other.bytes_full_precision;
  bytes_constants += other.bytes_constants;
  bytes_if_f16 += other.bytes_if_f16;
  bytes_dead += other.bytes_dead;
  bytes_if_f16_evicted += other.bytes_if_f16_evicted;
  requantized_tokens += other.requantized_tokens;
  tokens_evicted = other.tokens_evicted;
  tokens_dead = other.tokens_dead;
  tokens = other.tokens;
  tokens_full_precision = other.tokens_full_precision;
  return *this;
}

}  // namespace qs
