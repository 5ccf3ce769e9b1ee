#include "app/cli/cli.h"
#include "backend/evaluation/apply.h"
#include "backend/formats/safetensors.h"
#include "backend/storage/kv_artifact.h"
#include "backend/storage/tensor_file.h"

namespace qs::cli {
namespace {

struct Options {
  std::string setup, in, tensor, out, kv_calibration;
};

struct Applied {
  std::vector<TensorReport> reports;
  std::vector<NamedTensor> tensors;
};

Applied apply_kv(const Setup& setup, CaptureReader& capture, const std::string& tensor, const KvArtifact* artifact,
                 const JobContext& job) {
  Applied applied;
  const std::int64_t layers = capture.info().layers;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    job.checkpoint(layer, layers, "Quantize");
    const std::string key = layer_dataset(layer, "key"), value = layer_dataset(layer, "value");
    if (!tensor.empty() && tensor != key && tensor != value) continue;
    AppliedLayer result = apply_to_capture(setup, capture, layer, job, artifact);
    for (const auto& [path, part] : {std::pair{key, &result.key}, std::pair{value, &result.value}}) {
      if (!tensor.empty() && tensor != path) continue;
      applied.reports.push_back(part->report);
      applied.tensors.push_back({path, part->reconstructed, "kv_heads,tokens,head_dim"});
    }
  }
  if (applied.reports.empty()) {
    throw Error(ErrorCode::NotFound, "'" + capture.info().path + "' has no keys or values named '" + tensor + "'.");
  }
  return applied;
}

void add_weight(Applied& applied, const Setup& setup, const TensorView& weight, const std::string& name) {
  const AppliedTensor result = apply_to_weight(setup, weight, name);
  applied.reports.push_back(result.report);
  applied.tensors.push_back({"/weights/" + name, result.reconstructed, "out_features,in_features"});
}

/// Every matrix of the file, or the one that is named.
Applied apply_weights(const Setup& setup, const std::string& in, const std::string& tensor, const JobContext& job) {
  const std::filesystem::path path = resolve_path(in);
  const TensorTable table = path.extension() == ".safetensors" ? read_safetensors(path) : read_safetensors_folder(path);
  Applied applied;
  std::int64_t done = 0;
  for (const StoredTensor& stored : table.tensors) {
    job.checkpoint(done++, static_cast<std::int64_t>(table.tensors.size()), "Quantize");
    if (tensor.empty() ? stored.shape.size() != 2 || !is_float(stored.type) : stored.name != tensor) continue;
    add_weight(applied, setup, TensorView::own(to_f32(stored), stored.shape), stored.name);
  }
  if (applied.reports.empty()) {
    throw Error(ErrorCode::NotFound,
                "'" + in + "' has no matrix" + (tensor.empty() ? std::string() : " named '" + tensor + "'") + ".");
  }
  return applied;
}

Output applied_output(const Applied& applied, const std::string& method, const std::string& setup) {
  Output output{{{"method", method}, {"setup", setup}, {"tensors", Json::array()}}, {}};
  Table table({"tensor", "relative error", "SQNR dB", "cosine", "max |error|", "bits", "packed", "changed",
               "functional error"});
  std::string warnings;
  for (const TensorReport& report : applied.reports) {
    output.json["tensors"].push_back({{"name", report.name},
                                      {"shape", report.shape},
                                      {"mse", number(report.mse)},
                                      {"relative_error", number(report.relative_error)},
                                      {"sqnr_db", number(report.sqnr_db)},
                                      {"cosine", number(report.cosine)},
                                      {"max_abs_error", number(report.max_abs_error)},
                                      {"effective_bits", report.effective_bits},
                                      {"packed_bytes", report.packed_bytes},
                                      {"changed_fraction", report.changed_fraction},
                                      {"saturated_fraction", report.saturated_fraction},
                                      {"levels_used", report.levels_used},
                                      {"levels", report.levels},
                                      {"tokens_full_precision", report.tokens_full_precision},
                                      {"functional_error", number(report.functional_error)},
                                      {"functional_metric", report.functional_metric},
                                      {"warnings", report.warnings}});
    table.row({report.name, significant(report.relative_error, 4), fixed(report.sqnr_db, 2), fixed(report.cosine, 5),
               significant(report.max_abs_error, 4), fixed(report.effective_bits, 3), bytes_text(report.packed_bytes),
               fixed(100 * report.changed_fraction, 1) + "%", significant(report.functional_error, 4)});
    for (const std::string& warning : report.warnings) warnings += report.name + ": " + warning + "\n";
  }
  output.text = setup + "\n" + table.text() + warnings;
  return output;
}

}  // namespace

void add_apply(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      app.add_subcommand("apply", "quantize the tensors of a capture or weight file, report errors and bits");
  verb->add_option("SETUP", options->setup,
                   "such as kivi:bits=2; a capture takes KV setups, weights take weight setups")
      ->required();
  verb->add_option("--in", options->in, "capture (.h5), .safetensors file or model folder")->required();
  verb->add_option("--tensor", options->tensor,
                   "one tensor: /layers/000/key, /weights/NAME of a capture, or a name of the weight file");
  verb->add_option("--kv-calibration", options->kv_calibration,
                   "calibration (.h5) of a KV setup; without it the capture itself is calibrated on");
  verb->add_option("-o,--output", options->out, "HDF5 file for the reconstruction");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      static const std::string kWeights = "/weights/";
      const std::filesystem::path path = resolve_path(options->in);
      const bool capture = path.extension() == ".h5" || path.extension() == ".hdf5";
      const bool on_weights = !capture || options->tensor.starts_with(kWeights);
      const std::optional<Setup> setup = on_weights ? weight_setup(options->setup) : kv_setup(options->setup);
      if (!setup) throw UsageError{"A setup such as kivi:bits=2 is needed; 'none' changes nothing."};
      Applied applied;
      if (!capture) {
        applied = apply_weights(*setup, options->in, options->tensor, job);
      } else if (const auto reader = CaptureReader::open(path); on_weights) {
        add_weight(applied, *setup, reader->read(options->tensor), options->tensor.substr(kWeights.size()));
      } else {
        std::optional<KvArtifact> artifact;
        if (!options->kv_calibration.empty()) artifact = read_kv_artifact(resolve_path(options->kv_calibration));
        applied = apply_kv(*setup, *reader, options->tensor, artifact ? &*artifact : nullptr, job);
      }
      if (!options->out.empty())
        write_tensors(options->out, applied.tensors,
                      {{"format", "quantoscope-tensors"}, {"setup", options->setup}, {"source", options->in}});
      return applied_output(applied, setup->method, options->setup);
    };
  });
}

}  // namespace qs::cli
