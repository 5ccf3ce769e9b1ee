#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/tokenizer/token_model.h"

namespace qs {

/// Byte-pair encoding with ranked merges.
class BpeModel final : public TokenModel {
 public:
  /// @param where  file, for messages
  /// @throws Error BadFormat (missing or contradictory parts), Unsupported (dropout)
  BpeModel(const nlohmann::json& model, const std::string& where);

  std::string name() const override { return "BPE"; }
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const override;

 private:
  struct Target {
    std::int32_t rank, id;
  };
  void read_vocabulary(const nlohmann::json& vocabulary, const std::string& where);
  void read_merges(const nlohmann::json& merges, const std::string& where);
  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  std::unordered_map<std::uint64_t, Target> merges_;
  std::string subword_prefix_, word_suffix_;  ///< of symbols inside a word ("##"), of a word's last symbol ("</w>")
  bool fuse_unk_ = false, ignore_merges_ = false;
};

}  // namespace qs
