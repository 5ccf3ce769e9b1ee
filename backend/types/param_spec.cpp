#include "backend/types/param_spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace qs {
namespace {

const char* type_name(const ParamValue& value) {
  static constexpr const char* kNames[] = {"true or false", "a whole number", "a number", "a word"};
  return kNames[value.index()];
}

std::string number_text(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end);
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string misfit(const ParamSpec& spec, const ParamValue& value) {
  if (value.index() != spec.fallback.index()) {
    return "'" + spec.key + "' must be " + type_name(spec.fallback) + ", found '" + format_value(value) + "'.";
  }
  bool fits = true;
  if (const auto* range = std::get_if<IntRange>(&spec.domain)) {
    const int number = std::get<int>(value);
    fits = number >= range->min && number <= range->max;
  } else if (const auto* range = std::get_if<RealRange>(&spec.domain)) {
    const double number = std::get<double>(value);
    fits = number >= range->min && number <= range->max;  // false for NaN
  } else if (const auto* choices = std::get_if<Choices>(&spec.domain)) {
    fits = std::find(choices->values.begin(), choices->values.end(), std::get<std::string>(value)) !=
           choices->values.end();
  }
  if (fits) return {};
  return "'" + spec.key + "' must be " + describe_domain(spec) + ", found '" + format_value(value) + "'.";
}

}  // namespace

std::vector<ParamIssue> check(const std::vector<ParamSpec>& specs, const ParamSet& params) {
  std::vector<ParamIssue> issues;
  for (const auto& [key, value] : params) {
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&name = key](const ParamSpec& s) { return s.key == name; });
    if (spec == specs.end()) {
      std::vector<std::string> known;
      for (const ParamSpec& s : specs) known.push_back(s.key);
      issues.push_back({key, "There is no parameter '" + key + "'; known are: " + join(known) + "."});
    } else if (std::string problem = misfit(*spec, value); !problem.empty()) {
      issues.push_back({key, std::move(problem)});
    }
  }
  return issues;
}

ParamSet with_fallbacks(const std::vector<ParamSpec>& specs, ParamSet params) {
  for (const ParamSpec& spec : specs) params.try_emplace(spec.key, spec.fallback);
  return params;
}

std::optional<ParamValue> parse_value(const ParamSpec& spec, std::string_view text) {
  const char* const end = text.data() + text.size();
  if (std::holds_alternative<bool>(spec.fallback)) {
    if (text == "true" || text == "1" || text == "on") return true;
    if (text == "false" || text == "0" || text == "off") return false;
    return std::nullopt;
  }
  if (std::holds_alternative<int>(spec.fallback)) {
    int number = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return number;
  }
  if (std::holds_alternative<double>(spec.fallback)) {
    double number = 0.0;
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end || !std::isfinite(number)) return std::nullopt;
    return number;
  }
  return std::string(text);
}

std::string format_value(const ParamValue& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const int* number = std::get_if<int>(&value)) return std::to_string(*number);
  if (const double* number = std::get_if<double>(&value)) return number_text(*number);
  return std::get<std::string>(value);
}

std::string describe_domain(const ParamSpec& spec) {
  if (const auto* range = std::get_if<IntRange>(&spec.domain)) {
    return std::to_string(range->min) + " to " + std::to_string(range->max);
  }
  if (const auto* range = std::get_if<RealRange>(&spec.domain)) {
    return number_text(range->min) + " to " + number_text(range->max);
  }
  if (const auto* choices = std::get_if<Choices>(&spec.domain)) return "one of " + join(choices->values);
  if (std::holds_alternative<bool>(spec.fallback)) return "true or false";
  return {};
}

}  // namespace qs
