#include "backend/methods/setup_spellings.h"

#include <algorithm>
#include <vector>

#include "backend/methods/skvq_string.h"
#include "backend/types/error.h"

namespace qs {
namespace {

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

/// Short forms inside a setup line: `bits` for both widths, and for skvq `clip=search` and `fp8`.
std::string with_short_forms(const std::string& id, std::string_view parameters) {
  std::string result = id;
  for (const std::string& item : split(parameters, ',')) {
    std::string meant = item;
    if (item.starts_with("bits=")) {
      meant = "k_bits=" + item.substr(5) + ",v_bits=" + item.substr(5);
    } else if (id == "skvq" && (item == "clip=search" || item == "clip=search_groups")) {
      meant = "clip_rule=" + item.substr(5);
    } else if (id == "skvq" && (item == "fp8" || item == "fp8e5m2")) {
      meant = item == "fp8" ? "store=e4m3" : "store=e5m2";
    }
    result += (result == id ? ":" : ",") + meant;
  }
  return result;
}

/// `nuq=3`, `nf=3` and `int=3` name levels and width at once; `qnorm` alone is on; `cap=auto` is -1.
std::string with_kvquant_keys(std::string_view text) {
  std::string result;
  for (const std::string& item : split(text.substr(text.find(':') + 1), ',')) {
    std::string spelled = item;
    for (const std::string datatype : {"nuq", "nf", "int"}) {
      if (item.starts_with(datatype + "="))
        spelled = "datatype=" + datatype + ",bits=" + item.substr(datatype.size() + 1);
    }
    if (item == "qnorm" || item == "qnorm=true" || item == "qnorm=1") spelled = "q_norm=on";
    if (item == "qnorm=false" || item == "qnorm=0") spelled = "q_norm=off";
    if (item == "cap=auto" || item == "cap_per_side=auto") spelled = "cap_per_side=-1";
    if (item == "cap=off" || item == "cap_per_side=off") spelled = "cap_per_side=0";
    result += (result.empty() ? "kvquant:" : ",") + spelled;
  }
  return result;
}

/// `bits=1..4` bounds the widths that attention chooses, `bits=2` fixes one.
std::string with_width_range(std::string_view parameters) {
  std::string result;
  for (const std::string& item : split(parameters, ',')) {
    std::string meant = item;
    if (const std::size_t dots = item.find(".."); item.starts_with("bits=") && dots != std::string::npos) {
      meant = "n_bits_min=" + item.substr(5, dots - 5) + ",n_bits_max=" + item.substr(dots + 2);
    } else if (item.starts_with("bits=")) {
      meant = "n_bits_uniform=" + item.substr(5) + ",use_attentions=false";
    }
    result += (result.empty() ? "qaq:" : ",") + meant;
  }
  return result;
}

/// `scope:slide` names the strategy without its key.
std::string with_strategy_key(std::string_view text) {
  const std::vector<std::string> items = split(text.substr(text.find(':') + 1), ',');
  std::string result;
  for (const std::string& item : items) {
    const bool bare = !item.empty() && item.find('=') == std::string::npos && item != "p_eff";
    result += (result.empty() ? "scope:" : ",") + (bare ? "strategy=" + item : item);
  }
  return result;
}

std::string canonical_one(std::string_view text, std::vector<std::string>* warnings) {
  if (is_skvq_string(text)) return setup_of_skvq_string(text, warnings);
  const std::size_t colon = std::min(text.find(':'), text.size());
  const std::string_view id = text.substr(0, colon);
  const std::string_view rest = colon < text.size() ? text.substr(colon + 1) : std::string_view();
  if ((id == "kivi" || id == "skvq") && !rest.empty()) return with_short_forms(std::string(id), rest);
  if (id == "kvquant" && !rest.empty()) return with_kvquant_keys(text);
  if (id == "qaq" && !rest.empty()) return with_width_range(rest);
  if (id == "deco") return "decoquant" + std::string(text.substr(colon));
  if (id == "scope" && !rest.empty()) return with_strategy_key(text);
  for (const auto& [spelling, scheme] :
       {std::pair{"rtn-token-asym", "token_asym"}, std::pair{"rtn-channel-asym", "channel_asym"},
        std::pair{"rtn-token-sym", "token_sym"}}) {
    if (id == spelling) return std::string("rtn:scheme=") + scheme + (rest.empty() ? "" : ",") + std::string(rest);
  }
  return std::string(text);
}

std::string canonical_chain(std::string_view text, std::vector<std::string>* warnings) {
  std::string result;
  for (const std::string& part : split(text, '+'))
    result += (result.empty() ? "" : "+") + canonical_one(part, warnings);
  return result;
}

}  // namespace

std::string canonical_kv_setup(std::string_view text, std::vector<std::string>* warnings) {
  constexpr std::string_view kLayers = "layers:";
  if (!text.starts_with(kLayers)) return canonical_chain(text, warnings);
  std::string result;
  for (const std::string& entry : split(text.substr(kLayers.size()), ';')) {
    const std::size_t equals = std::min(entry.find('='), entry.size());
    result += (result.empty() ? std::string(kLayers) : ";") + entry.substr(0, equals);
    if (equals < entry.size()) result += "=" + canonical_chain(entry.substr(equals + 1), warnings);
  }
  return result;
}

}  // namespace qs
