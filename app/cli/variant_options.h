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
  std::function<void(const LayerProgress&)> on_linear =
      {};  ///< called for each linear of a layer-by-layer setup; may be empty
};
void add_variant_options(CLI::App& verb, VariantOptions& options);

/// One line a linear on standard error, so that the result on standard output stays alone.
/// @param losses  false: its notes only
void print_progress(const LayerProgress& progress, bool losses);

/// Loads the model, calibrates on --calibration and --kv-calibration what needs it, and builds the variant.
/// @throws UsageError when a calibration is needed and none is named
std::shared_ptr<const Variant> build(const VariantOptions& options, const std::optional<Setup>& weights,
                                     const std::optional<Setup>& kv, const JobContext& job);

/// What a weight setup learned from, and the context that points to it.
struct WeightInputs {
  std::optional<Calibration> calibration;
  std::optional<CalibrationWindows> windows;
  WeightContext context;
};
struct BuiltVariant {
  std::shared_ptr<const Variant> variant;
  std::unique_ptr<WeightInputs> inputs;
};
/// The same for work that needs the inputs again.
BuiltVariant build_with_inputs(const VariantOptions& options, const std::optional<Setup>& weights,
                               const std::optional<Setup>& kv, const JobContext& job);

/// The calibration that `setup` needs on `model`: from a file (.h5), or made on a text with the defaults of
/// `calibrate`; nothing when it needs none. @throws UsageError when it needs one and `path` is empty
std::optional<KvArtifact> kv_calibration_from(const Model& model, const std::optional<Setup>& setup,
                                              const std::string& path, const JobContext& job);

/// Channel maxima from a capture (.h5) or from running the first tokens of a text.
/// @param input_rows  a sample of the inputs too; of a capture, its tokens are run for that
Calibration calibration_from(const Model& model, const std::string& path, std::int64_t tokens, bool input_rows,
                             const JobContext& job);

}  // namespace qs::cli
