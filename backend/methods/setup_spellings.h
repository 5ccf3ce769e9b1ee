#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// Other spellings of KV setups as `method:key=value,...` (KV specification, section 11); everything else is returned
/// as it is:
/// - `rtn-token-asym:...`, `rtn-channel-asym:...`, `rtn-token-sym:...` name the scheme of rtn
/// - `kivi:bits=2` and `skvq:bits=2` set both widths; `skvq:clip=search` and `skvq:fp8` are clip_rule and store
/// - `kvquant:nuq=3` (nf, int) sets datatype and bits, `qnorm` stands for q_norm=on, `cap=auto` for cap_per_side=-1
/// - `qaq:bits=1..4` bounds the widths that attention chooses, `qaq:bits=2` fixes one; `deco` is decoquant
/// - `scope:slide` names the strategy
/// - all of them behind plus signs and in the ranges of a per-layer line alike
/// - `k2-v2-w128-g128-reorder-pre_rope-clip-sink5-fp8`: SKVQ's strings (skvq_string.h)
/// @param warnings  receives a sentence for each spelling that is accepted but wrong; may be null
/// @throws Error InvalidArgument for an SKVQ string with an unknown or clashing option
std::string canonical_kv_setup(std::string_view text, std::vector<std::string>* warnings = nullptr);

}  // namespace qs
