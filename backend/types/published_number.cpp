#include "backend/types/published_number.h"

#include <algorithm>
#include <limits>

#include "backend/types/error.h"
#include "backend/types/setup.h"

namespace qs {
namespace {

constexpr int kFar = std::numeric_limits<int>::max();

std::optional<Setup> read(const std::string& line, const MethodInfo& method) {
  try {
    return parse_setup(line, {method});
  } catch (const Error&) {
    return std::nullopt;
  }
}

int distance(const Setup& wanted, const std::string& line, const MethodInfo& method) {
  const std::optional<Setup> setup = read(line, method);
  if (!setup) return kFar;
  int differing = 0;
  for (const ParamSpec& spec : method.params) {
    // What papers leave at its default says less about the setting than bits and groups do.
    if (setup->params.at(spec.key) != wanted.params.at(spec.key)) differing += spec.advanced ? 1 : 4;
  }
  return differing;
}

}  // namespace

std::string value_text(const PublishedNumber& number) {
  std::string text = number.qualifier.empty() ? "" : number.qualifier + " ";
  text += format_value(number.value);
  if (number.value_to) text += " – " + format_value(*number.value_to);
  if (!number.unit.empty()) text += " " + number.unit;
  return text;
}

std::string quantity_text(const PublishedNumber& number) {
  return number.data.empty() ? number.metric : number.metric + ", " + number.data;
}

std::vector<PublishedNumber> nearest_published(const std::vector<PublishedNumber>& numbers, const MethodInfo& method,
                                               const std::string& setup_line) {
  const bool kv = method.family == MethodFamily::Kv;
  const std::optional<Setup> wanted = read(setup_line, method);
  std::vector<std::pair<int, const PublishedNumber*>> rows;
  for (const PublishedNumber& number : numbers) {
    if (number.method == method.id && number.kv == kv)
      rows.emplace_back(wanted ? distance(*wanted, number.setup, method) : 0, &number);
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<PublishedNumber> result;
  for (const auto& [far, number] : rows) result.push_back(*number);
  return result;
}

}  // namespace qs
