#include "backend/types/setup.h"

#include <algorithm>
#include <charconv>

#include "backend/types/error.h"

namespace qs {
namespace {

const MethodInfo& find_method(std::string_view id, const std::vector<MethodInfo>& methods) {
  const auto found = std::find_if(methods.begin(), methods.end(), [id](const MethodInfo& m) { return m.id == id; });
  if (found != methods.end()) return *found;
  std::string known;
  for (const MethodInfo& method : methods) known += (known.empty() ? "" : ", ") + method.id;
  throw Error(ErrorCode::InvalidArgument, "There is no method '" + std::string(id) + "' here; known are: " + known +
                                              ", and 'none' for full precision.");
}

const ParamSpec& find_param(std::string_view key, const MethodInfo& method) {
  for (const ParamSpec& spec : method.params) {
    if (spec.key == key || std::find(spec.aliases.begin(), spec.aliases.end(), key) != spec.aliases.end()) return spec;
  }
  std::string known;
  for (const ParamSpec& spec : method.params) known += (known.empty() ? "" : ", ") + spec.key;
  throw Error(ErrorCode::InvalidArgument,
              "Method '" + method.id + "' has no parameter '" + std::string(key) + "'; known are: " + known + ".");
}

Setup parse_one(std::string_view text, const std::vector<MethodInfo>& methods) {
  const std::size_t colon = text.find(':');
  const MethodInfo& method = find_method(text.substr(0, colon), methods);
  Setup setup{.method = method.id, .params = {}};
  std::string_view rest = colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    const std::size_t equals = item.find('=');
    const ParamSpec& spec = find_param(item.substr(0, equals), method);
    // A flag may be named without a value: `rtn:sym`.
    const std::string_view value_text =
        equals == std::string_view::npos && std::holds_alternative<bool>(spec.fallback)
            ? std::string_view("true")
            : item.substr(std::min(item.size(), equals == std::string_view::npos ? item.size() : equals + 1));
    const std::optional<ParamValue> value = parse_value(spec, value_text);
    if (!value) {
      throw Error(ErrorCode::InvalidArgument, "'" + spec.key + "' of method '" + method.id + "' must be " +
                                                  describe_domain(spec) + ", found '" + std::string(value_text) + "'.");
    }
    if (!setup.params.emplace(spec.key, *value).second) {
      throw Error(ErrorCode::InvalidArgument, "'" + spec.key + "' is given twice in '" + std::string(text) + "'.");
    }
  }
  if (const std::vector<ParamIssue> issues = check(method.params, setup.params); !issues.empty()) {
    throw Error(ErrorCode::InvalidArgument, "Method '" + method.id + "': " + issues.front().message);
  }
  setup.params = with_fallbacks(method.params, std::move(setup.params));
  return setup;
}

void check_may_follow(const Setup& setup, const Setup& before, const std::vector<MethodInfo>& methods) {
  const std::vector<std::string>& allowed = find_method(setup.method, methods).may_follow;
  const bool fits = std::any_of(allowed.begin(), allowed.end(),
                                [&](const std::string& id) { return id == "*" || id == before.method; });
  if (fits) return;
  std::string known;
  for (const MethodInfo& method : methods) {
    for (const std::string& id : method.may_follow) {
      if (id == "*" || id == before.method) known += (known.empty() ? "" : ", ") + method.id;
    }
  }
  throw Error(ErrorCode::InvalidArgument, "'" + setup.method + "' cannot follow '" + before.method +
                                              "' after a plus sign; " +
                                              (known.empty() ? "nothing can." : "these can: " + known + "."));
}

constexpr std::string_view kLayers = "layers:";

[[noreturn]] void refuse_layers(const std::string& why) {
  throw Error(ErrorCode::InvalidArgument, "Per-layer setup: " + why);
}

std::int64_t layer_number(std::string_view text, std::string_view range) {
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || number < 0)
    refuse_layers("'" + std::string(range) + "' is no range of layers; write 3, 0-3, or * for the rest.");
  return number;
}

LayerRange read_range(std::string_view text) {
  if (text == "*") return {};
  const std::size_t dash = text.find('-');
  LayerRange range;
  range.first = layer_number(text.substr(0, dash), text);
  range.last = dash == std::string_view::npos ? range.first : layer_number(text.substr(dash + 1), text);
  if (range.last < range.first)
    refuse_layers("the range " + std::string(text) + " ends before it begins; write the smaller layer first.");
  return range;
}

void check_ranges(const std::vector<Setup>& layers) {
  for (std::size_t i = 1; i < layers.size(); ++i) {
    const LayerRange &before = layers[i - 1].range, &range = layers[i].range;
    if (range.is_rest() ? before.is_rest() : range.first <= before.last)
      refuse_layers("the ranges " + before.text() + " and " + range.text() + " name the same layers.");
  }
}

Setup parse_layers(std::string_view text, const std::vector<MethodInfo>& methods) {
  Setup setup{.method = "layers", .params = {}};
  text.remove_prefix(kLayers.size());
  while (!text.empty()) {
    const std::string_view entry = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const std::size_t equals = entry.find('=');
    if (equals == std::string_view::npos)
      refuse_layers("'" + std::string(entry) + "' must be a range of layers, '=' and a setup, such as 0-3=kivi.");
    std::string_view ranges = entry.substr(0, equals);
    const std::string_view line = entry.substr(equals + 1);
    if (line.starts_with(kLayers)) refuse_layers("a range cannot hold another per-layer setup.");
    Setup of_range;
    try {
      of_range = parse_setup(line, methods).value_or(Setup{.method = "none", .params = {}});
    } catch (const Error& error) {
      throw Error(error.code(), "Layers " + std::string(ranges) + ": " + error.what());
    }
    while (!ranges.empty()) {
      const std::string_view range = ranges.substr(0, ranges.find(','));
      ranges.remove_prefix(std::min(ranges.size(), range.size() + 1));
      of_range.range = read_range(range);
      setup.layers.push_back(of_range);
    }
  }
  if (setup.layers.empty()) refuse_layers("no range is given; write layers:0-3=kivi;*=none, for example.");
  std::stable_sort(setup.layers.begin(), setup.layers.end(), [](const Setup& a, const Setup& b) {
    return a.range.is_rest() != b.range.is_rest() ? b.range.is_rest() : a.range.first < b.range.first;
  });
  check_ranges(setup.layers);
  return setup;
}

std::string format_one(const Setup& setup, const std::vector<MethodInfo>& methods) {
  if (setup.method == "none") return setup.method;
  const MethodInfo& method = find_method(setup.method, methods);
  std::string text;
  for (const ParamSpec& spec : method.params) {
    const auto value = setup.params.find(spec.key);
    if (value == setup.params.end() || value->second == spec.fallback) continue;
    text += (text.empty() ? ":" : ",") + spec.key + "=" + format_value(value->second);
  }
  return setup.method + text;
}

}  // namespace

std::string LayerRange::text() const {
  if (is_rest()) return "*";
  return std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
}

const Setup& setup_of_layer(const Setup& setup, std::int64_t layer) {
  if (setup.layers.empty()) return setup;
  for (const Setup& entry : setup.layers)
    if (entry.range.is_rest() || entry.range.holds(layer)) return entry;
  refuse_layers("layer " + std::to_string(layer) + " has no setup; add a range for it, or '*' for the rest.");
}

void check_covers(const Setup& setup, std::int64_t layers) {
  if (setup.layers.empty()) return;
  for (const Setup& entry : setup.layers) {
    if (entry.range.last >= layers)
      refuse_layers("the range " + entry.range.text() + " goes beyond the model, whose layers are 0 to " +
                    std::to_string(layers - 1) + ".");
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) setup_of_layer(setup, layer);
}

std::optional<Setup> parse_setup(std::string_view text, const std::vector<MethodInfo>& methods) {
  if (text.empty() || text == "none") return std::nullopt;
  if (text.starts_with(kLayers)) return parse_layers(text, methods);
  std::size_t plus = text.find('+');
  Setup setup = parse_one(text.substr(0, plus), methods);
  while (plus != std::string_view::npos) {
    text = text.substr(plus + 1);
    plus = text.find('+');
    Setup next = parse_one(text.substr(0, plus), methods);
    check_may_follow(next, setup.then.empty() ? setup : setup.then.back(), methods);
    setup.then.push_back(std::move(next));
  }
  return setup;
}

std::string format_setup(const Setup& setup, const std::vector<MethodInfo>& methods) {
  if (!setup.layers.empty()) {
    std::string text;
    for (const Setup& entry : setup.layers)
      text += (text.empty() ? std::string(kLayers) : ";") + entry.range.text() + "=" + format_setup(entry, methods);
    return text;
  }
  std::string text = format_one(setup, methods);
  for (const Setup& next : setup.then) text += "+" + format_one(next, methods);
  return text;
}

}  // namespace qs
