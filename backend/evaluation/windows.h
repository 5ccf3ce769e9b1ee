#pragma once

#include <cstdint>
#include <vector>

#include "backend/evaluation/evaluate.h"

namespace qs {

/// A text cut into windows that are scored independently (weights specification 12.1).
struct EvalWindows {
  std::vector<std::vector<std::int64_t>> windows;  ///< ids, each of `window` tokens
  std::int64_t window = 0;                         ///< tokens of a window, its BOS included
  std::int64_t stride = 0;                         ///< text tokens from one window to the next
};

/// BOS stands before the first window only (when the model's tokenizer adds one), or before each with bos_each_window.
/// The rest of the text that fills no window is dropped.
/// @throws Error InvalidArgument when the window does not fit the context, the text is shorter than one window (tokens
///         there, tokens needed), or BOS is asked for and the tokenizer has none
EvalWindows cut_windows(const Model& model, const EvalRequest& request);

/// Everything of the request that changes a number.
Protocol protocol_of(const Model& model, const EvalRequest& request, const EvalWindows& windows);

}  // namespace qs
