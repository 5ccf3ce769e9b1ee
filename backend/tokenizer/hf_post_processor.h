#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace qs {

/// What a tokenizer.json's `post_processor` puts around a single text.
struct HfAffixes {
  std::vector<std::int64_t> prefix, suffix;
};

/// Knows Sequence, TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel (which changes offsets only).
/// @param id_of  id of a token by name
/// @throws Error Unsupported naming the component, BadFormat (a token that is not in the vocabulary)
HfAffixes read_hf_post_processor(const nlohmann::json& json,
                                 const std::function<std::optional<std::int64_t>(const std::string&)>& id_of,
                                 const std::string& where);

}  // namespace qs
