#include "backend/methods/setup_spellings.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <vector>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::string_view kSkvqOptions =
    "g<int>, w<int>, reorder, rod, smooth, pre_rope, fp8, fp8e5m2, clip[<number>|search], sink<int>, KIVI, rtn, rptq, "
    "smoothquant, h2o<number>, random<number>";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::optional<double> number(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> number_after(const std::string& word, std::string_view prefix) {
  return word.starts_with(prefix) ? number(std::string_view(word).substr(prefix.size())) : std::nullopt;
}

std::optional<int> count_after(const std::string& word, std::string_view prefix) {
  const std::optional<double> value = number_after(word, prefix);
  if (!value || *value != static_cast<double>(static_cast<int>(*value)) || *value < 0) return std::nullopt;
  return static_cast<int>(*value);
}

struct SkvqString {
  double k_bits = 2, v_bits = 2;
  int group = 128, window = 128;
  std::vector<std::string> words;  ///< options without a value of their own, and those this version lacks
  bool has(std::string_view word) const { return std::find(words.begin(), words.end(), word) != words.end(); }
};

[[noreturn]] void refuse(std::string_view text, const std::string& why) {
  throw Error(ErrorCode::InvalidArgument, "KV setup '" + std::string(text) + "': " + why);
}

bool is_width(const std::optional<double>& bits) {
  return bits && (*bits == 1.5 || *bits == 2 || *bits == 3 || *bits == 4 || *bits == 8 || *bits == 16);
}

bool looks_like_skvq(const std::string& text) {
  const std::vector<std::string> parts = split(text, '-');
  return parts.size() >= 2 && number_after(parts[0], "k") && parts[1].starts_with("v");
}

SkvqString read_skvq(std::string_view text) {
  const std::vector<std::string> parts = split(lower(text), '-');
  SkvqString result;
  const std::optional<double> k_bits = number_after(parts[0], "k"), v_bits = number_after(parts[1], "v");
  if (!is_width(k_bits) || !is_width(v_bits)) refuse(text, "the widths must be 1.5, 2, 3, 4, 8 or 16.");
  result.k_bits = *k_bits;
  result.v_bits = *v_bits;
  static const std::vector<std::string> kFlags = {"reorder", "reoder", "rod",  "smooth", "pre_rope", "fp8",
                                                  "fp8e5m2", "clip",   "kivi", "rtn",    "rptq",     "smoothquant"};
  for (std::size_t i = 2; i < parts.size(); ++i) {
    const std::string& word = parts[i];
    if (const std::optional<int> group = count_after(word, "g")) {
      result.group = *group;
    } else if (const std::optional<int> window = count_after(word, "w")) {
      result.window = *window;
    } else if (std::find(kFlags.begin(), kFlags.end(), word) != kFlags.end()) {
      result.words.push_back(word);
    } else if (number_after(word, "clip") || word == "clipsearch" || count_after(word, "sink") ||
               number_after(word, "h2o") || number_after(word, "random")) {
      result.words.push_back(word);
    } else {
      refuse(text, "'" + word + "' is no option; known are " + std::string(kSkvqOptions) + ".");
    }
  }
  return result;
}

std::string kivi_from_skvq(std::string_view text) {
  const SkvqString skvq = read_skvq(text);
  if (!skvq.has("kivi")) {
    refuse(text, "SKVQ is not in this version; of its strings those with KIVI are read, such as k2-v2-w128-g128-KIVI.");
  }
  for (const char* clash : {"reorder", "reoder", "rod", "smooth", "pre_rope"}) {
    if (skvq.has(clash)) refuse(text, std::string("KIVI cannot be combined with ") + clash + ".");
  }
  for (const std::string& word : skvq.words) {
    if (word != "kivi") refuse(text, "'" + word + "' together with KIVI is not in this version; leave it out.");
  }
  if (skvq.group == 0 || skvq.window % skvq.group != 0) {
    refuse(text, "with KIVI the window must be a multiple of the group, found w" + std::to_string(skvq.window) +
                     " and g" + std::to_string(skvq.group) + ".");
  }
  for (const double bits : {skvq.k_bits, skvq.v_bits}) {
    if (bits == 1.5 || bits == 16) refuse(text, "KIVI has codes of 2, 3, 4 or 8 bits.");
  }
  return "kivi:k_bits=" + std::to_string(static_cast<int>(skvq.k_bits)) +
         ",v_bits=" + std::to_string(static_cast<int>(skvq.v_bits)) + ",group_size=" + std::to_string(skvq.group) +
         ",residual_length=" + std::to_string(skvq.window);
}

std::string with_both_widths(std::string_view text) {
  std::string result;
  for (const std::string& item : split(text.substr(text.find(':') + 1), ',')) {
    const bool both = item.starts_with("bits=");
    const std::string value = both ? item.substr(5) : std::string();
    result += (result.empty() ? "kivi:" : ",") + (both ? "k_bits=" + value + ",v_bits=" + value : item);
  }
  return result;
}

}  // namespace

std::string canonical_kv_setup(std::string_view text) {
  if (looks_like_skvq(lower(text))) return kivi_from_skvq(text);
  const std::size_t colon = std::min(text.find(':'), text.size());
  const std::string_view id = text.substr(0, colon);
  const std::string_view rest = colon < text.size() ? text.substr(colon + 1) : std::string_view();
  if (text.find('+') != std::string_view::npos) {
    refuse(text, "token selection after '+' is not in this version; leave it out.");
  }
  if (id == "kivi" && !rest.empty()) return with_both_widths(text);
  for (const auto& [spelling, scheme] :
       {std::pair{"rtn-token-asym", "token_asym"}, std::pair{"rtn-channel-asym", "channel_asym"},
        std::pair{"rtn-token-sym", "token_sym"}}) {
    if (id == spelling) return std::string("rtn:scheme=") + scheme + (rest.empty() ? "" : ",") + std::string(rest);
  }
  return std::string(text);
}

}  // namespace qs
