#include "backend/evaluation/windows.h"

#include <algorithm>

#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"

namespace qs {

EvalWindows cut_windows(const Model& model, const EvalRequest& request) {
  const std::int64_t context = model.info().max_context;
  EvalWindows result;
  result.window = request.window > 0 ? request.window : std::min<std::int64_t>(2048, context);
  if (result.window < 2 || result.window > context) {
    throw Error(ErrorCode::InvalidArgument, "A window of " + std::to_string(result.window) +
                                                " tokens does not fit: it must be 2 to " + std::to_string(context) +
                                                ", the context of '" + model.info().name + "'.");
  }
  const Tokenizer& tokenizer = model.tokenizer();
  if (request.bos_each_window && tokenizer.bos_id() < 0) {
    throw Error(ErrorCode::InvalidArgument,
                "The tokenizer of '" + model.info().name + "' has no BOS token; evaluate without BOS in each window.");
  }
  const std::vector<std::int64_t> ids =
      request.bos_each_window ? tokenizer.encode(request.text.text) : encode_with_bos(tokenizer, request.text.text);
  result.stride = request.bos_each_window ? result.window - 1 : result.window;
  const auto tokens = static_cast<std::int64_t>(ids.size());
  std::int64_t count = tokens / result.stride;
  if (count == 0) {
    throw Error(ErrorCode::InvalidArgument, "'" + request.text.name + "' is too short: it has " +
                                                std::to_string(tokens) + " tokens, one window needs " +
                                                std::to_string(result.stride) +
                                                ". Use a longer text or a smaller window.");
  }
  if (request.windows > 0) count = std::min(count, request.windows);
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<std::int64_t> window;
    if (request.bos_each_window) window.push_back(tokenizer.bos_id());
    window.insert(window.end(), ids.begin() + i * result.stride, ids.begin() + (i + 1) * result.stride);
    result.windows.push_back(std::move(window));
  }
  return result;
}

Protocol protocol_of(const Model& model, const EvalRequest& request, const EvalWindows& windows) {
  Protocol protocol;
  protocol.text_name = request.text.name;
  protocol.text_sha256 = request.text.sha256;
  protocol.tokenizer = model.tokenizer().kind() + ", " + std::to_string(model.tokenizer().vocab_size()) + " tokens";
  protocol.window = windows.window;
  protocol.stride = windows.stride;
  protocol.windows = static_cast<std::int64_t>(windows.windows.size());
  protocol.bos = request.bos_each_window;
  protocol.kv_mode = request.kv_mode;
  protocol.dtype = model.options().dtype;
  protocol.device = model.options().device;
  return protocol;
}

}  // namespace qs
