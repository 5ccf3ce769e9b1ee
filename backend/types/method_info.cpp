#include "backend/types/method_info.h"

namespace qs {

const char* family_id(MethodFamily family) {
  switch (family) {
    case MethodFamily::Kv:
      return "kv";
    case MethodFamily::Weight:
      return "weight";
    case MethodFamily::WeightActivation:
      return "weight_activation";
  }
  return "";
}

}  // namespace qs
