#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qs {

using ParamValue = std::variant<bool, int, double, std::string>;
using ParamSet = std::map<std::string, ParamValue>;

struct IntRange {
  int min, max;
};
struct RealRange {
  double min, max;
};
struct Choices {
  std::vector<std::string> values;
};

/// One parameter as a method declares it. Forms, CLI flags, table columns and help pages are generated from it.
struct ParamSpec {
  std::string key;      ///< "group_size": stable, appears in setups and files
  std::string label;    ///< "Group size": shown
  std::string help;     ///< one line, says what larger and smaller do
  ParamValue fallback;  ///< the default; its alternative is the parameter's type
  std::variant<std::monostate, IntRange, RealRange, Choices> domain = {};
  std::string unit = {};
  bool advanced = false;
  std::vector<std::string> aliases = {};  ///< other spellings that setups may use, such as "g"
};

struct ParamIssue {
  std::string key, message;
};

/// Every reason why `params` does not fit `specs`: unknown keys, wrong types, values out of range. Empty when it fits.
std::vector<ParamIssue> check(const std::vector<ParamSpec>& specs, const ParamSet& params);

/// `params` with the fallback of every parameter that is missing.
ParamSet with_fallbacks(const std::vector<ParamSpec>& specs, ParamSet params);

/// Reads `text` as a value of the spec's type ("true"/"false"/"1"/"0"/"on"/"off" for bool). Empty when it is none.
std::optional<ParamValue> parse_value(const ParamSpec& spec, std::string_view text);

/// The shortest text that parse_value reads back as the same value.
std::string format_value(const ParamValue& value);

/// "2 to 8", "minmax, mse", or an empty text: what a person may enter.
std::string describe_domain(const ParamSpec& spec);

}  // namespace qs
