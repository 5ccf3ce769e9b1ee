#include "app/cli/variant_options.h"

#include <algorithm>
#include <cstdio>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/calibration_windows.h"
#include "backend/evaluation/evaluate.h"
#include "backend/evaluation/kv_calibration.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/kv_artifact.h"

namespace qs::cli {
namespace {

constexpr std::size_t kFewTokens = 512;

bool is_capture(const std::filesystem::path& file) { return file.extension() == ".h5" || file.extension() == ".hdf5"; }

/// Windows of a text, or of the tokens of a capture.
CalibrationWindows windows_from(const Model& model, const std::string& path, const Setup& setup) {
  const std::filesystem::path file = resolve_path(path);
  if (!is_capture(file)) return calibration_windows(model, read_text(file), setup);
  const auto capture = CaptureReader::open(file);
  return calibration_windows(model, capture->token_ids(), capture->info().text_source, capture->info().text_sha256,
                             setup);
}

[[noreturn]] void no_kv_calibration(const Setup& setup) {
  throw UsageError{"The KV setup '" + format_setup(setup, kv_method_infos()) +
                   "' needs a calibration: name a text or a file of quantoscope-cli calibrate with --kv-calibration."};
}

}  // namespace

void print_progress(const LayerProgress& progress, bool losses) {
  if (losses) {
    std::fprintf(stderr, "\r%s: loss %.6g, RTN %.6g, damping %g, %lld tokens, %.3f bits, %.2f s%s\n",
                 progress.linear.c_str(), progress.loss, progress.rtn_loss, progress.damping,
                 static_cast<long long>(progress.tokens), progress.effective_bits, progress.seconds,
                 progress.resumed ? ", from the checkpoint" : "");
  }
  for (const std::string& note : progress.notes) {
    if (losses || !progress.resumed) std::fprintf(stderr, "\r%s: %s\n", progress.linear.c_str(), note.c_str());
  }
}

void add_variant_options(CLI::App& verb, VariantOptions& options) {
  add_model_options(verb, options.model);
  verb.add_option("--kv", options.kv, "KV-cache setup, such as kivi:bits=2");
  verb.add_option("--weights", options.weights, "weight setup, such as smoothquant:alpha=0.5");
  verb.add_option("--calibration", options.calibration,
                  "text file or capture that a calibrated weight setup learns from");
  verb.add_option("--calibration-tokens", options.calibration_tokens, "tokens of the text to calibrate on")
      ->check(CLI::PositiveNumber);
  verb.add_option("--kv-calibration", options.kv_calibration,
                  "calibration (.h5, made by calibrate) or text file that a calibrated KV setup learns from");
  verb.add_option("--checkpoint", options.checkpoint,
                  "folder for finished blocks of a layer-by-layer setup; a later run goes on from there");
  verb.add_flag("--layer-losses", options.layer_losses, "print loss, tokens and notes of each linear while it runs");
  verb.add_option("--execution", options.execution, "simulated (dequantized weights) or packed (products from codes)")
      ->check(CLI::IsMember({"simulated", "packed"}));
}

Calibration calibration_from(const Model& model, const std::string& path, std::int64_t tokens, bool input_rows,
                             const JobContext& job) {
  const std::filesystem::path file = resolve_path(path);
  const InputSample sample = input_rows ? kUsualInputSample : InputSample{};
  if (is_capture(file)) {
    const auto capture = CaptureReader::open(file);
    Calibration calibration = calibration_from_capture(*capture);
    if (input_rows) {
      calibration.input_rows = calibrate(model, capture->token_ids(), 0, calibration.source, job, sample).input_rows;
    }
    return calibration;
  }
  const EvalText text = read_text(file);
  std::vector<std::int64_t> ids = encode_with_bos(model.tokenizer(), text.text);
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(tokens)));
  if (ids.size() < kFewTokens) {
    std::fprintf(stderr, "calibration: '%s' has only %zu tokens; maxima of rare outliers may be missing.\n",
                 text.name.c_str(), ids.size());
  }
  return calibrate(model, ids, 0, text.name, job, sample);
}

std::optional<KvArtifact> kv_calibration_from(const Model& model, const std::optional<Setup>& setup,
                                              const std::string& path, const JobContext& job) {
  if (!setup || !needs_kv_calibration(*setup)) return std::nullopt;
  if (path.empty()) no_kv_calibration(*setup);
  const std::filesystem::path file = resolve_path(path);
  if (is_capture(file)) return read_kv_artifact(file);
  return calibrate_kv(model, *setup, {.text = read_text(file)}, job);
}

BuiltVariant build_with_inputs(const VariantOptions& options, const std::optional<Setup>& weights,
                               const std::optional<Setup>& kv, const JobContext& job) {
  const CalibrationNeeds needs = weights ? weight_calibration_needs(*weights) : CalibrationNeeds{};
  if (needs.any() && options.calibration.empty()) {
    throw UsageError{"The weight setup '" + format_setup(*weights, weight_method_infos()) +
                     "' needs a calibration: name a text or a capture with --calibration."};
  }
  if (kv && needs_kv_calibration(*kv) && options.kv_calibration.empty()) no_kv_calibration(*kv);
  const auto model = load(options.model, job.part(0.0, 0.2));
  BuiltVariant built;
  built.inputs = std::make_unique<WeightInputs>();
  WeightInputs& inputs = *built.inputs;
  WeightContext& context = inputs.context;
  context.execution = options.execution == "packed" ? WeightExecution::Packed : WeightExecution::Simulated;
  context.checkpoint = options.checkpoint;
  context.on_linear = [losses = options.layer_losses, also = options.on_linear](const LayerProgress& progress) {
    print_progress(progress, losses);
    if (also) also(progress);
  };
  if (needs.activation_maxima || needs.input_rows) {
    inputs.calibration =
        calibration_from(*model, options.calibration, options.calibration_tokens, needs.input_rows, job.part(0.2, 0.6));
    context.calibration = &*inputs.calibration;
  }
  if (needs.token_windows) {
    inputs.windows = windows_from(*model, options.calibration, *weights);
    for (const std::string& note : inputs.windows->notes) std::fprintf(stderr, "calibration: %s\n", note.c_str());
    context.windows = &*inputs.windows;
  }
  const std::optional<KvArtifact> artifact =
      kv_calibration_from(*model, kv, options.kv_calibration, job.part(0.6, 0.7));
  built.variant = make_variant(model, weights, kv, context, job.part(needs.any() ? 0.7 : 0.2, 1.0),
                               artifact ? &*artifact : nullptr);
  return built;
}

std::shared_ptr<const Variant> build(const VariantOptions& options, const std::optional<Setup>& weights,
                                     const std::optional<Setup>& kv, const JobContext& job) {
  return build_with_inputs(options, weights, kv, job).variant;
}

}  // namespace qs::cli
