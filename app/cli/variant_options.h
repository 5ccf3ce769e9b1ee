#pragma once

#include <memory>
#include <optional>
#include <string>

#include "app/cli/cli.h"
#include "backend/method.h"
#include "backend/model/variant.h"

namespace qs::cli {

/// Options of every verb that runs a variant.
struct VariantOptions {
  ModelOptions model;
  std::string kv, weights, calibration, execution = "simulated";
  std::int64_t calibration_tokens = 4096;
};
void add_variant_options(CLI::App& verb, VariantOptions& options);

/// Loads the model, calibrates on --calibration when the weight setup needs it, and builds the variant.
/// @throws UsageError when a calibration is needed and none is named
std::shared_ptr<const Variant> build(const VariantOptions& options, const std::optional<Setup>& weights,
                                     const std::optional<Setup>& kv, const JobContext& job);

/// Channel maxima from a capture (.h5) or from running the first tokens of a text.
Calibration calibration_from(const Model& model, const std::string& path, std::int64_t tokens, const JobContext& job);

}  // namespace qs::cli
