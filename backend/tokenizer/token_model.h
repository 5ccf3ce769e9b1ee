#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qs {

/// The `model` part of a tokenizer.json: cuts one word into tokens of a vocabulary.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual std::string name() const = 0;  ///< "BPE", "unigram"
  /// Appends the ids of one word. @param word  valid UTF-8
  virtual void encode(std::string_view word, std::vector<std::int64_t>& ids) const = 0;

  std::optional<std::int32_t> id_of(const std::string& token) const;
  const std::unordered_map<std::string, std::int32_t>& vocabulary() const { return vocabulary_; }
  std::int64_t unk_id() const { return unk_id_; }
  /// Whether "<0x0A>" stands for a byte.
  bool byte_fallback() const { return byte_fallback_; }

 protected:
  /// Looks the 256 byte tokens up. @throws Error BadFormat when one is missing
  void find_byte_tokens(const std::string& where);
  std::unordered_map<std::string, std::int32_t> vocabulary_;
  std::vector<std::int32_t> byte_ids_;  ///< 256 ids of "<0x00>".., empty without byte fallback
  std::int64_t unk_id_ = -1;
  bool byte_fallback_ = false;
};

/// Byte-pair encoding or Unigram.
/// @param where  file, for messages
/// @throws Error BadFormat (missing or contradictory parts), Unsupported (another model type or option, by name)
std::unique_ptr<const TokenModel> make_token_model(const nlohmann::json& model, const std::string& where);

/// The byte that a token such as "<0x0A>" stands for.
std::optional<unsigned char> byte_token_value(std::string_view token);

}  // namespace qs
