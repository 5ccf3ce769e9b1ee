#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/job.h"
#include "backend/types/weight_run.h"

namespace qs {

class Variant;

enum class ExportFormat {
  Auto,               ///< the first of Gptq, CompressedTensors and Dense that holds the variant exactly
  Gptq,               ///< zero points stored less one, as most readers expect; "gptq_v2" where a zero point is 0
  GptqV2,             ///< zero points as they are
  CompressedTensors,  ///< pack-quantized W4A16 or W8A16, int-quantized W8A8
  Dense               ///< dequantized weights
};
/// "auto", "gptq", "gptq_v2", "compressed-tensors", "dense". @throws Error InvalidArgument
ExportFormat parse_export_format(const std::string& id);
const char* export_format_id(ExportFormat format);

/// What a method learned from, for the report.
struct ExportCalibration {
  std::string text, sha256;
  std::int64_t tokens = 0, windows = 0, seqlen = 0;
  std::uint64_t seed = 0;
};

struct ExportRequest {
  std::filesystem::path folder;  ///< to be made
  ExportFormat format = ExportFormat::Auto;
  /// Type of what is no codes: "float32", "float16", "bfloat16", or "auto": as the model has it, and float32 for norms
  /// and biases that smoothing changed and that type does not hold.
  std::string dtype = "auto";
  bool replace = false;                          ///< an existing folder is replaced when the new one is whole
  std::vector<LayerProgress> linears = {};       ///< for the report
  std::optional<ExportCalibration> calibration;  ///< for the report
  std::string program;                           ///< "quantoscope 0.1.0"
};

struct ExportResult {
  ExportFormat format = ExportFormat::Dense;
  std::int64_t bytes = 0;          ///< of model.safetensors
  std::int64_t coded_linears = 0;  ///< stored tensors that hold codes
  std::vector<std::string> notes;  ///< what the reader of the folder should know
};

/// What export_checkpoint finds out last, for before the work. @throws Error InvalidArgument when the folder is there
void check_export_folder(const std::filesystem::path& folder, bool replace);

/// Writes the variant's weights as a Hugging Face folder: model.safetensors, config.json with quantization_config, the
/// tokenizer and generation_config.json of the model, and quantization_report.json. A model of another file format gets
/// the names and the configuration of its family. Tensors are written one by one. The folder appears when it is whole;
/// after an error or a cancel nothing is left. For every format but Dense the variant must be built with
/// WeightExecution::Packed.
/// @throws Error InvalidArgument when the folder exists, Unsupported when the format cannot hold the variant, saying
///         which linear, why, and which format can; Io, also before anything is written when the disk has no room
ExportResult export_checkpoint(const Variant& variant, const ExportRequest& request, const JobContext& job);

}  // namespace qs
