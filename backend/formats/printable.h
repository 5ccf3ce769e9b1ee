#pragma once

#include <string>
#include <string_view>

namespace qs {

/// A name from a file as it can be shown in a message: bytes outside of printable ASCII become \xNN, and what is longer
/// than `limit` bytes is cut with "...".
std::string printable(std::string_view name, std::size_t limit = 120);

}  // namespace qs
