#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qs {

/// The `model` part of a tokenizer.json: byte-pair encoding with ranked merges.
class BpeModel {
 public:
  /// @param where  file, for messages
  /// @throws Error BadFormat (missing or contradictory parts), Unsupported (another model type or option, by name)
  BpeModel(const nlohmann::json& model, const std::string& where);

  /// Appends the ids of one word.
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const;
  std::optional<std::int32_t> id_of(const std::string& token) const;
  const std::unordered_map<std::string, std::int32_t>& vocabulary() const { return vocabulary_; }
  std::int64_t unk_id() const { return unk_id_; }
  bool byte_fallback() const { return byte_fallback_; }

 private:
  struct Target {
    std::int32_t rank, id;
  };
  void read_merges(const nlohmann::json& merges, const std::string& where);
  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  std::unordered_map<std::string, std::int32_t> vocabulary_;
  std::unordered_map<std::uint64_t, Target> merges_;
  std::vector<std::int32_t> byte_ids_;  ///< 256 ids of "<0x00>".., empty when the vocabulary lacks one
  std::int64_t unk_id_ = -1;
  bool byte_fallback_ = false, fuse_unk_ = false, ignore_merges_ = false;
};

/// The byte that a token such as "<0x0A>" stands for.
std::optional<unsigned char> byte_token_value(std::string_view token);

}  // namespace qs
