#include "backend/types/eval_result.h"

namespace qs {

const char* kv_mode_id(KvMode mode) { return mode == KvMode::Streaming ? "streaming" : "prefill_quantized"; }

std::vector<std::string> Protocol::differences(const Protocol& other) const {
  std::vector<std::string> found;
  const auto compare = [&found](const char* field, const std::string& mine, const std::string& theirs) {
    if (mine != theirs) found.push_back(std::string(field) + ": " + mine + " against " + theirs);
  };
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  compare("text", text_name, other.text_name);
  compare("text SHA-256", text_sha256.substr(0, 12), other.text_sha256.substr(0, 12));
  compare("tokenizer", tokenizer, other.tokenizer);
  compare("window", number(window), number(other.window));
  compare("stride", number(stride), number(other.stride));
  compare("windows", number(windows), number(other.windows));
  compare("BOS", bos ? "each window" : "first window", other.bos ? "each window" : "first window");
  compare("KV mode", kv_mode_id(kv_mode), kv_mode_id(other.kv_mode));
  compare("dtype", dtype, other.dtype);
  compare("device", device, other.device);
  compare("joining rule", joining_rule, other.joining_rule);
  compare("prompt template", prompt_template, other.prompt_template);
  compare("shots", number(shots), number(other.shots));
  return found;
}

std::string VariantLabel::text() const {
  std::string label = model;
  if (weights.empty() && kv.empty()) return label + " · full precision";
  if (!weights.empty()) label += " · " + weights;
  if (!kv.empty()) label += " · " + kv;
  return label;
}

}  // namespace qs
