#pragma once

#include <string>

#include "backend/types/eval_result.h"

namespace qs {

/// 16 hexadecimal digits of the SHA-256 of every field of the protocol: equal fingerprints mean comparable numbers.
std::string fingerprint(const Protocol& protocol);

}  // namespace qs
