#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/calibration_windows.h"
#include "backend/formats/sha256.h"
#include "backend/method_registry.h"
#include "backend/methods/redo_layer.h"
#include "backend/model/export_checkpoint.h"

namespace qs::cli {
namespace {

struct QuantizeOptions {
  VariantOptions variant;
  std::string folder, format = "auto", store_dtype = "auto";
  std::int64_t redo_layer = -1;
  bool force = false;
};

std::vector<std::string> format_ids() {
  std::vector<std::string> ids;
  for (const ExportFormat format : {ExportFormat::Auto, ExportFormat::Gptq, ExportFormat::GptqV2,
                                    ExportFormat::CompressedTensors, ExportFormat::Dense})
    ids.emplace_back(export_format_id(format));
  return ids;
}

/// Replaces one block of the checkpoint. @return its linears
std::vector<LayerProgress> redo(const QuantizeOptions& options, const Setup& setup, const JobContext& job) {
  const VariantOptions& variant = options.variant;
  if (variant.checkpoint.empty()) throw UsageError{"--redo-layer needs the folder of the run: --checkpoint."};
  if (variant.calibration.empty())
    throw UsageError{"--redo-layer needs the calibration text of the run: --calibration."};
  const auto model = load(variant.model, job.part(0.0, 0.2));
  const CalibrationWindows windows = calibration_windows(*model, read_text(resolve_path(variant.calibration)), setup);
  std::vector<LayerProgress> linears;
  WeightContext context;
  context.checkpoint = variant.checkpoint;
  context.windows = &windows;
  context.on_linear = [&](const LayerProgress& progress) {
    linears.push_back(progress);
    print_progress(progress, true);
  };
  redo_layer(*model, setup, options.redo_layer, context, job.part(0.2, 1.0));
  return linears;
}

std::optional<ExportCalibration> calibration_of(const VariantOptions& options, const Variant& variant,
                                                const std::optional<Setup>& setup) {
  if (options.calibration.empty() || !setup) return std::nullopt;
  const std::filesystem::path file = resolve_path(options.calibration);
  ExportCalibration calibration{.text = file.filename().string(), .sha256 = sha256_file(file)};
  const auto whole = [&](const char* key) {
    std::vector<Setup> stages = {*setup};
    stages.insert(stages.end(), setup->then.begin(), setup->then.end());
    stages.insert(stages.end(), setup->layers.begin(), setup->layers.end());
    for (const Setup& stage : stages)
      if (const auto found = stage.params.find(key); found != stage.params.end()) return std::get<int>(found->second);
    return 0;
  };
  calibration.windows = whole("nsamples");
  calibration.seqlen = std::min<std::int64_t>(whole("seqlen"), variant.model().info().max_context);
  calibration.seed = static_cast<std::uint64_t>(whole("seed"));
  calibration.tokens = calibration.windows > 0 ? calibration.windows * calibration.seqlen : options.calibration_tokens;
  return calibration;
}

Json linears_json(const std::vector<LayerProgress>& linears) {
  Json json = Json::array();
  for (const LayerProgress& linear : linears) {
    json.push_back({{"linear", linear.linear},
                    {"loss", number(linear.loss)},
                    {"rtn_loss", number(linear.rtn_loss)},
                    {"tokens", linear.tokens},
                    {"effective_bits", number(linear.effective_bits)},
                    {"resumed", linear.resumed}});
  }
  return json;
}

Output exported(const Variant& variant, const QuantizeOptions& options, const ExportResult& result,
                const std::vector<LayerProgress>& linears) {
  const std::int64_t before = variant.model().info().bytes;
  Output output;
  output.json = {{"folder", options.folder},
                 {"variant", variant.label().text()},
                 {"format", export_format_id(result.format)},
                 {"coded_tensors", result.coded_linears},
                 {"bytes", result.bytes},
                 {"bytes_before", before},
                 {"effective_bits", number(variant.weight_bits())},
                 {"notes", result.notes},
                 {"linears", linears_json(linears)}};
  output.text = "'" + options.folder + "': " + variant.label().text() + " as " + export_format_id(result.format) +
                ", " + bytes_text(result.bytes) + " (" + bytes_text(before) + " before), " +
                fixed(variant.weight_bits(), 3) + " bits a weight of the blocks\n";
  for (const std::string& note : result.notes) output.text += note + "\n";
  return output;
}

}  // namespace

void add_quantize(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* verb = app.add_subcommand("quantize", "quantize the weights and export a checkpoint");
  add_variant_options(*verb, options->variant);
  for (const char* unused : {"--kv", "--kv-calibration", "--execution", "--layer-losses"})
    verb->remove_option(verb->get_option(unused));
  verb->get_option("--weights")->required();
  verb->add_option("-o,--output", options->folder, "folder to make");
  verb->add_option("--format", options->format,
                   "auto: the first that holds the setup exactly; gptq and gptq_v2: 2, 3, 4 and 8 bits; "
                   "compressed-tensors: W4A16, W8A16, W8A8; dense: dequantized weights")
      ->check(CLI::IsMember(format_ids()));
  verb->add_option("--store-dtype", options->store_dtype, "type of what is no codes; auto: as the model has it")
      ->check(CLI::IsMember({"auto", "float32", "float16", "bfloat16"}));
  verb->add_flag("--force", options->force, "replace the folder when it is there");
  verb->add_option("--redo-layer", options->redo_layer,
                   "quantize this layer of --checkpoint again with these settings; with -o the result is exported")
      ->check(CLI::NonNegativeNumber);
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      std::optional<Setup> setup = weight_setup(options->variant.weights);
      const bool redoes = options->redo_layer >= 0;
      if (options->folder.empty() && !redoes) throw UsageError{"Name the folder to make with -o."};
      if (!options->folder.empty()) check_export_folder(options->folder, options->force);
      std::vector<LayerProgress> linears;
      if (redoes) {
        if (!setup) throw UsageError{"--redo-layer needs a weight setup."};
        linears = redo(*options, *setup, options->folder.empty() ? job : job.part(0.0, 0.4));
        if (options->folder.empty())
          return Output{{{"redone", options->redo_layer}, {"linears", linears_json(linears)}},
                        "Layer " + std::to_string(options->redo_layer) + " of '" + options->variant.checkpoint +
                            "' was quantized again; export it with the setup of the run.\n"};
        setup = checkpoint_setup(options->variant.checkpoint);
        linears.clear();
      }
      options->variant.execution = "packed";
      options->variant.layer_losses = true;
      options->variant.on_linear = [&](const LayerProgress& progress) { linears.push_back(progress); };
      const auto variant = build(options->variant, setup, std::nullopt, job.part(redoes ? 0.4 : 0.0, 0.9));
      const ExportResult result = export_checkpoint(*variant,
                                                    {.folder = options->folder,
                                                     .format = parse_export_format(options->format),
                                                     .dtype = options->store_dtype,
                                                     .replace = options->force,
                                                     .linears = linears,
                                                     .calibration = calibration_of(options->variant, *variant, setup),
                                                     .program = "quantoscope " QUANTOSCOPE_VERSION},
                                                    job.part(0.9, 1.0));
      return exported(*variant, *options, result, linears);
    };
  });
}

}  // namespace qs::cli
