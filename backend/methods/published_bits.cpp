#include "backend/methods/published_bits.h"

#include "backend/methods/kivi.h"
#include "backend/methods/kvquant.h"
#include "backend/methods/qaq.h"
#include "backend/methods/skvq.h"

namespace qs {

double published_bits(const KvMethod& method, KvRole role, const CacheShape& shape, std::int64_t tokens,
                      double code_bits) {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (const auto* const skvq = dynamic_cast<const Skvq*>(&method)) return skvq->nominal_bits(role, channels);
  if (const auto* const kivi = dynamic_cast<const Kivi*>(&method)) return kivi->element_bits(role);
  if (const auto* const qaq = dynamic_cast<const Qaq*>(&method)) {
    return qaq->nominal_bits(code_bits, qaq->settings().level == QaqLevel::Head ? shape.head_dim : channels);
  }
  if (const auto* const kvquant = dynamic_cast<const Kvquant*>(&method)) {
    const KvquantSettings& settings = kvquant->settings();
    return kvquant_published_bits(role, settings.bits, settings.outliers, static_cast<double>(channels),
                                  static_cast<double>(tokens));
  }
  return method.effective_bits(shape, tokens);
}

}  // namespace qs
