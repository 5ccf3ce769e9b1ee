#include "backend/methods/skvq_string.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::string_view kOptions =
    "g<int>, w<int>, reorder, rod, smooth, pre_rope, fp8, fp8e5m2, clip[<number>|search], sink<int>, KIVI, rtn, rptq, "
    "smoothquant, h2o<number>, random<number>";
constexpr double kDefaultClip = 0.92;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : lower(text)) {
    if (c == '-') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::optional<double> number_after(const std::string& word, std::string_view prefix) {
  if (!word.starts_with(prefix) || word.size() == prefix.size()) return std::nullopt;
  double value = 0.0;
  const char* const end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data() + prefix.size(), end, value);
  if (error != std::errc{} || stop != end || value < 0.0) return std::nullopt;
  return value;
}

std::optional<int> count_after(const std::string& word, std::string_view prefix) {
  const std::optional<double> value = number_after(word, prefix);
  if (!value || *value > 1e9 || *value != static_cast<double>(static_cast<int>(*value))) return std::nullopt;
  return static_cast<int>(*value);
}

std::string shortest(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

/// A string taken apart; what is absent has no value.
class Reader {
 public:
  Reader(std::string_view text, std::vector<std::string>* warnings) : text_(text), warnings_(warnings) {
    const std::vector<std::string> words = words_of(text);
    k_bits_ = width_of(words[0], "k");
    v_bits_ = width_of(words[1], "v");
    for (std::size_t i = 2; i < words.size(); ++i) read(words[i]);
    combine();
  }

  std::string setup() const { return has("kivi") ? kivi() : skvq(); }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorCode::InvalidArgument, "KV setup '" + text_ + "': " + why);
  }

  std::string width_of(const std::string& word, std::string_view letter) const {
    const std::optional<double> bits = number_after(word, letter);
    for (const double known : {1.5, 2.0, 3.0, 4.0, 8.0, 16.0}) {
      if (bits == known) return shortest(known);
    }
    refuse("the widths must be 1.5, 2, 3, 4, 8 or 16, found '" + word + "'.");
  }

  bool has(const std::string& word) const { return flags_.count(word) > 0; }

  template <typename T>
  void once(std::optional<T>& place, T value, const char* name) const {
    if (place) refuse(std::string("'") + name + "' is given twice.");
    place = value;
  }

  void read(const std::string& word) {
    static const std::set<std::string> kFlags = {"reorder", "rod",  "smooth", "pre_rope", "fp8",
                                                 "fp8e5m2", "kivi", "rtn",    "rptq",     "smoothquant"};
    if (word == "reoder") {
      if (warnings_ != nullptr) warnings_->push_back("'reoder' in '" + text_ + "' is read as 'reorder'.");
      flags_.insert("reorder");
    } else if (kFlags.count(word) > 0) {
      if (!flags_.insert(word).second) refuse("'" + word + "' is given twice.");
    } else if (const std::optional<int> group = count_after(word, "g")) {
      once(group_, *group, "g");
    } else if (const std::optional<int> window = count_after(word, "w")) {
      once(window_, *window, "w");
    } else if (const std::optional<int> sink = count_after(word, "sink")) {
      once(sink_, *sink, "sink");
    } else if (word == "sink") {
      refuse("'sink' needs a number, such as sink5.");
    } else if (word == "clip" || word == "clipsearch" || number_after(word, "clip")) {
      once(clip_, word == "clip" ? kDefaultClip : number_after(word, "clip").value_or(0.0), "clip");
      searches_ = word == "clipsearch";
      if (!searches_ && (*clip_ <= 0.5 || *clip_ > 1.0))
        refuse("the clip ratio must be more than 0.5 and at most 1, found '" + word + "'.");
    } else if (number_after(word, "h2o") || number_after(word, "random")) {
      const bool attention = word.starts_with("h2o");
      once(share_, *number_after(word, attention ? "h2o" : "random"), "h2o or random");
      keep_ = attention ? "h2o" : "random";
      if (*share_ > 1.0) refuse("the share after " + keep_ + " must be 0 to 1, found '" + word + "'.");
    } else {
      refuse("'" + word + "' is no option; known are " + std::string(kOptions) + ".");
    }
  }

  void exclude(const char* word, std::initializer_list<const char*> others) const {
    if (!has(word)) return;
    for (const char* other : others) {
      if (has(other))
        refuse(std::string(word == std::string("kivi") ? "KIVI" : word) + " cannot be combined with " + other + ".");
    }
  }

  /// rtn, rptq and smoothquant stand for other options; rod is another name of reorder.
  void combine() {
    exclude("kivi", {"reorder", "rod", "smooth", "pre_rope", "rtn", "rptq", "smoothquant"});
    exclude("rtn", {"reorder", "rod", "smooth", "pre_rope", "rptq", "smoothquant"});
    exclude("rptq", {"smooth", "smoothquant"});
    exclude("smoothquant", {"reorder", "rod"});
    exclude("fp8", {"fp8e5m2"});
    if (has("rod")) flags_.insert("reorder");
    if (has("rtn") || has("rptq") || has("smoothquant")) {
      if (window_.value_or(0) != 0) refuse("rtn, rptq and smoothquant have no window; leave out w or say w0.");
      window_ = 0;
    }
    if (has("rptq")) flags_.insert("reorder");
    if (has("smoothquant")) flags_.insert("smooth");
    if (has("rptq") || has("smoothquant")) flags_.insert("pre_rope");
    if (share_ && has("pre_rope")) refuse(keep_ + " needs keys after rotation; leave out pre_rope.");
    if (share_ && has("kivi")) refuse("KIVI cannot be combined with " + keep_ + ".");
  }

  std::string kivi() const {
    const int group = group_.value_or(128), window = window_.value_or(128);
    if (group == 0 || window % group != 0) {
      refuse("with KIVI the window must be a multiple of the group, found w" + std::to_string(window) + " and g" +
             std::to_string(group) + ".");
    }
    if (sink_.value_or(0) > 0) refuse("KIVI has no sinks; leave out sink.");
    if (clip_ && (searches_ || *clip_ != 1.0)) refuse("KIVI does not clip here; leave out clip.");
    if (has("fp8") || has("fp8e5m2")) refuse("KIVI keeps its scales in 16 bits; leave out fp8.");
    for (const std::string& bits : {k_bits_, v_bits_}) {
      if (bits == "1.5" || bits == "16") refuse("KIVI has codes of 2, 3, 4 or 8 bits, found " + bits + ".");
    }
    return "kivi:k_bits=" + k_bits_ + ",v_bits=" + v_bits_ + ",group_size=" + std::to_string(group) +
           ",residual_length=" + std::to_string(window);
  }

  std::string skvq() const {
    const auto flag = [&](const char* word) { return std::string(has(word) ? "true" : "false"); };
    std::string line =
        "skvq:k_bits=" + k_bits_ + ",v_bits=" + v_bits_ + ",group_size=" + std::to_string(group_.value_or(128)) +
        ",window=" + std::to_string(window_.value_or(128)) + ",sink_tokens=" + std::to_string(sink_.value_or(0)) +
        ",reorder=" + flag("reorder") + ",pre_rope=" + flag("pre_rope") + ",smooth=" + flag("smooth");
    if (searches_) {
      line += ",clip_rule=search";
    } else {
      line += ",clip=" + shortest(clip_.value_or(1.0));
    }
    if (has("fp8")) line += ",store=e4m3";
    if (has("fp8e5m2")) line += ",store=e5m2";
    if (share_) line += ",keep=" + keep_ + ",quantized_share=" + shortest(*share_);
    return line;
  }

  std::string text_, k_bits_, v_bits_, keep_;
  std::vector<std::string>* warnings_;
  std::set<std::string> flags_;
  std::optional<int> group_, window_, sink_;
  std::optional<double> clip_, share_;
  bool searches_ = false;
};

template <typename T>
T get(const Setup& setup, const char* key) {
  return std::get<T>(setup.params.at(key));
}

std::string kivi_string(const Setup& setup) {
  if (get<std::string>(setup, "compute") != "f32" || get<std::string>(setup, "store") != "f16") return {};
  return "k" + std::to_string(get<int>(setup, "k_bits")) + "-v" + std::to_string(get<int>(setup, "v_bits")) + "-g" +
         std::to_string(get<int>(setup, "group_size")) + "-w" + std::to_string(get<int>(setup, "residual_length")) +
         "-KIVI";
}

}  // namespace

bool is_skvq_string(std::string_view text) {
  const std::vector<std::string> words = words_of(text);
  return words.size() >= 2 && number_after(words[0], "k").has_value() && words[1].starts_with("v");
}

std::string setup_of_skvq_string(std::string_view text, std::vector<std::string>* warnings) {
  return Reader(text, warnings).setup();
}

std::string skvq_string(const Setup& setup) {
  if (setup.method == "kivi" && setup.then.empty()) return kivi_string(setup);
  if (setup.method != "skvq" || !setup.then.empty()) return {};
  const std::string store = get<std::string>(setup, "store"), rule = get<std::string>(setup, "clip_rule");
  if (get<std::string>(setup, "clip_mode") != "zero" || get<std::string>(setup, "statistic") != "minmax" ||
      get<bool>(setup, "rounded_parameters") || get<std::string>(setup, "container") != "trit5" ||
      get<std::string>(setup, "compute") != "f32" || store == "f32" || rule == "search_groups")
    return {};
  std::string text = "k" + get<std::string>(setup, "k_bits") + "-v" + get<std::string>(setup, "v_bits") + "-g" +
                     std::to_string(get<int>(setup, "group_size")) + "-w" + std::to_string(get<int>(setup, "window"));
  if (get<bool>(setup, "reorder")) text += "-reorder";
  if (get<bool>(setup, "smooth")) text += "-smooth";
  const double clip = get<double>(setup, "clip");
  if (rule == "search") {
    text += "-clipsearch";
  } else if (clip != 1.0) {
    text += "-clip" + shortest(clip);
  }
  if (get<bool>(setup, "pre_rope")) text += "-pre_rope";
  if (const int sink = get<int>(setup, "sink_tokens"); sink > 0) text += "-sink" + std::to_string(sink);
  if (store == "e4m3") text += "-fp8";
  if (store == "e5m2") text += "-fp8e5m2";
  if (const std::string keep = get<std::string>(setup, "keep"); keep != "none")
    text += "-" + keep + shortest(get<double>(setup, "quantized_share"));
  return text;
}

}  // namespace qs
