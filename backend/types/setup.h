#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/types/method_info.h"

namespace qs {

/// Layers first to last of a model, or all that no other range names.
struct LayerRange {
  std::int64_t first = 0, last = -1;  ///< last < 0: the rest
  bool is_rest() const { return last < 0; }
  bool holds(std::int64_t layer) const { return layer >= first && layer <= last; }
  std::string text() const;  ///< "3", "0-3" or "*"
  bool operator==(const LayerRange&) const = default;
};

/// A method with all of its parameters. Written as one line: `kivi:k_bits=2,v_bits=2,group_size=32`. Methods that work
/// on the result of another follow it after a plus sign: `kivi:bits=2+scope:strategy=slide`, `smoothquant+gptq:bits=4`.
///
/// A KV setup may differ from layer to layer: `layers:0-3=kivi:k_bits=4,v_bits=4;4,6=kivi;*=none`. Ranges are separated
/// by semicolons, each is one layer, `first-last`, or `*` for the layers that no other range names, followed by `=` and
/// a setup line or `none` (16-bit floats). Several ranges with one setup may share it, separated by commas. Every layer
/// of the model must be covered, none twice. The canonical line has one range an entry, ascending, the rest last.
struct Setup {
  std::string method;              ///< MethodInfo::id
  ParamSet params;                 ///< complete and checked: every declared key is there
  std::vector<Setup> then = {};    ///< the methods behind plus signs, in order; they have no `then` of their own
  std::vector<Setup> layers = {};  ///< of method "layers" only: a setup for each range, "none" where nothing is done
  LayerRange range = {};           ///< of an entry of `layers`
  bool operator==(const Setup&) const = default;
};

/// The setup of one layer: the entry of a per-layer setup, else `setup` itself.
/// @throws Error InvalidArgument when no range covers the layer
const Setup& setup_of_layer(const Setup& setup, std::int64_t layer);

/// @throws Error InvalidArgument naming a layer that a per-layer setup leaves out, or a range beyond the model's layers
void check_covers(const Setup& setup, std::int64_t layers);

/// Reads a setup line. `none` and an empty text give no setup.
/// @param methods  the methods that may be named (see all_methods() in backend/method_registry.h)
/// @throws Error InvalidArgument naming the unknown method, key or value, and what is valid, or the method that may not
///         follow the one before it
std::optional<Setup> parse_setup(std::string_view text, const std::vector<MethodInfo>& methods);

/// `id:key=value,...` with the parameters that differ from the defaults, in declared order; `id` alone when none does.
/// Parsing the result gives the same setup.
std::string format_setup(const Setup& setup, const std::vector<MethodInfo>& methods);

}  // namespace qs
