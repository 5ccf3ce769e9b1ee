#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qs {

/// One step of a tokenizer.json's `decoder`: rewrites the list of token texts whose concatenation is the text.
class HfDecoder {
 public:
  virtual ~HfDecoder() = default;
  virtual std::vector<std::string> apply(std::vector<std::string> tokens) const = 0;
  /// What the step makes of one token in the middle of a text: nothing is stripped, bytes stay bytes.
  virtual std::string inside(std::string token) const { return token; }
};

/// Knows Sequence, Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace, BPEDecoder. A further component is one
/// more class and one line in the table. @return null when `json` is null
/// @throws Error Unsupported naming the component, BadFormat
std::shared_ptr<const HfDecoder> make_hf_decoder(const nlohmann::json& json, const std::string& where);

}  // namespace qs
