#include "backend/evaluation/protocol.h"

#include "backend/formats/sha256.h"

namespace qs {

std::string fingerprint(const Protocol& protocol) {
  std::string text;
  const auto field = [&text](const std::string& name, const std::string& value) {
    text += name + '=' + std::to_string(value.size()) + ':' + value + '\n';
  };
  field("text_sha256", protocol.text_sha256);
  field("text_name", protocol.text_name);
  field("tokenizer", protocol.tokenizer);
  field("window", std::to_string(protocol.window));
  field("stride", std::to_string(protocol.stride));
  field("windows", std::to_string(protocol.windows));
  field("bos", protocol.bos ? "each" : "first");
  field("kv_mode", kv_mode_id(protocol.kv_mode));
  field("dtype", protocol.dtype);
  field("device", protocol.device);
  field("joining_rule", protocol.joining_rule);
  field("prompt_template", protocol.prompt_template);
  field("shots", std::to_string(protocol.shots));
  return sha256_hex(text).substr(0, 16);
}

}  // namespace qs
