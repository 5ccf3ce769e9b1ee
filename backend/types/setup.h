#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/types/method_info.h"

namespace qs {

/// A method with all of its parameters. Written as one line: `kivi:k_bits=2,v_bits=2,group_size=32`. Methods that work
/// on the result of another follow it after a plus sign: `kivi:bits=2+scope:strategy=slide`, `smoothquant+gptq:bits=4`.
struct Setup {
  std::string method;            ///< MethodInfo::id
  ParamSet params;               ///< complete and checked: every declared key is there
  std::vector<Setup> then = {};  ///< the methods behind plus signs, in order; they have no `then` of their own
  bool operator==(const Setup&) const = default;
};

/// Reads a setup line. `none` and an empty text give no setup.
/// @param methods  the methods that may be named (see all_methods() in backend/method_registry.h)
/// @throws Error InvalidArgument naming the unknown method, key or value, and what is valid, or the method that may not
///         follow the one before it
std::optional<Setup> parse_setup(std::string_view text, const std::vector<MethodInfo>& methods);

/// `id:key=value,...` with the parameters that differ from the defaults, in declared order; `id` alone when none does.
/// Parsing the result gives the same setup.
std::string format_setup(const Setup& setup, const std::vector<MethodInfo>& methods);

}  // namespace qs
