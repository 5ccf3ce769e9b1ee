#include "backend/types/setup.h"

#include <algorithm>

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

std::string format_one(const Setup& setup, const std::vector<MethodInfo>& methods) {
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

std::optional<Setup> parse_setup(std::string_view text, const std::vector<MethodInfo>& methods) {
  if (text.empty() || text == "none") return std::nullopt;
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
  std::string text = format_one(setup, methods);
  for (const Setup& next : setup.then) text += "+" + format_one(next, methods);
  return text;
}

}  // namespace qs
