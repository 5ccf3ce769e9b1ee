#pragma once

#include <cstdint>
#include <string>

#include "backend/types/error.h"

namespace qs {

/// Runs `work`, which concerns one layer; an Error that it throws gets "Layer 3: " in front.
template <typename Work>
decltype(auto) in_layer(std::int64_t layer, Work&& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(error.code(), "Layer " + std::to_string(layer) + ": " + error.what(), error.detail());
  }
}

}  // namespace qs
