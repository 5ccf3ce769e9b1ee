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
  std::string kv, weights, calibration, kv_calibration, execution = "simulated", checkpoint;
  bool layer_losses = false;
  std::int64_t calibration_tokens = 4096;
};
void add_variant_options(CLI::App& verb, VariantOptions& options);

/// Loads the model, calibrates on --calibration and --kv-calibration what needs it, and builds the variant.
/// @throws UsageError when a calibration is needed and none is named
std::shared_ptr<const Variant> build(const VariantOptions& options, const std::optional<Setup>& weights,
                                     const std::optional<Setup>& kv, const JobContext& job);

/// The calibration that `setup` needs on `model`: from a file (.h5), or made on a text with the defaults of
/// `calibrate`; nothing when it needs none. @throws UsageError when it needs one and `path` is empty
std::optional<KvArtifact> kv_calibration_from(const Model& model, const std::optional<Setup>& setup,
                                              const std::string& path, const JobContext& job);

/// Channel maxima from a capture (.h5) or from running the first tokens of a text.
Calibration calibration_from(const Model& model, const std::string& path, std::int64_t tokens, const JobContext& job);

}  // namespace qs::cli
