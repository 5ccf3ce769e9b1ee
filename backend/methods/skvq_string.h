#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/types/setup.h"

namespace qs {

/// Configuration strings of the SKVQ family (KV specification, section 11): k2-v1.5-g64-w128-reorder-pre_rope-clip0.96.
/// What a string leaves out is off: no reordering, no clipping, no sinks, keys after rotation, f16 scales; g128, w128.

/// Whether `text` begins as one: k<number>-v<number>.
bool is_skvq_string(std::string_view text);

/// The setup line that a string means: skvq:..., or kivi:... with the option KIVI.
/// @param warnings  receives a sentence for a spelling that is accepted but wrong; may be null
/// @throws Error InvalidArgument naming the option that is unknown, given twice or excludes another
std::string setup_of_skvq_string(std::string_view text, std::vector<std::string>* warnings = nullptr);

/// The string of a setup of skvq or kivi in canonical order; empty when it says something that strings cannot.
std::string skvq_string(const Setup& setup);

}  // namespace qs
