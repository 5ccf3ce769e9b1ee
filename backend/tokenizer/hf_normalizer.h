#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace qs {

/// One step of a tokenizer.json's `normalizer`.
class HfNormalizer {
 public:
  virtual ~HfNormalizer() = default;
  virtual std::string apply(std::string text) const = 0;  ///< text: valid UTF-8
};

/// Knows Sequence, Prepend, Replace, Strip, the four normalization forms, Lowercase, StripAccents, ByteLevel, Nmt and
/// Precompiled. A further component is one more class and one line in the table of names.
/// @return null when `json` is null
/// @throws Error Unsupported naming the component, BadFormat
std::shared_ptr<const HfNormalizer> make_hf_normalizer(const nlohmann::json& json, const std::string& where);

}  // namespace qs
