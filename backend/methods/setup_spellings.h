#pragma once

#include <string>
#include <string_view>

namespace qs {

/// Other spellings of KV setups as `method:key=value,...` (KV specification, section 11); everything else is returned
/// as it is:
/// - `rtn-token-asym:...`, `rtn-channel-asym:...`, `rtn-token-sym:...` name the scheme of rtn
/// - `kivi:bits=2` sets both widths
/// - `k2-v2-w128-g128-KIVI`: SKVQ's strings; of them only those with KIVI are methods of this version
/// @throws Error InvalidArgument for an SKVQ string with an unknown or clashing option, or one whose method is not here
std::string canonical_kv_setup(std::string_view text);

}  // namespace qs
