#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// A Unicode regular expression (PCRE2, UTF and UCP on). Safe to use from several threads.
class Regex {
 public:
  /// @param where  file, for messages
  /// @throws Error BadFormat when the pattern does not compile
  Regex(const std::string& pattern, const std::string& where);

  /// Calls `found(begin, end)` for each match in order, empty matches left out.
  /// @param text  valid UTF-8
  /// @throws Error BadFormat when matching needs more steps than are allowed
  void for_each(std::string_view text, const std::function<void(std::size_t begin, std::size_t end)>& found) const;

  /// The same with what the groups of each match hold; groups[0] is the whole match. A group that took no part is
  /// empty.
  void for_each_groups(std::string_view text,
                       const std::function<void(const std::vector<std::string_view>& groups)>& found) const;

  std::string replace_all(std::string_view text, std::string_view by) const;  ///< `by` is taken literally
  static std::string escape(std::string_view literal);

 private:
  void search(std::string_view text, const std::function<void(const std::size_t* ends, int groups)>& found) const;

  std::shared_ptr<const void> code_;
  std::string pattern_, where_;
};

}  // namespace qs
