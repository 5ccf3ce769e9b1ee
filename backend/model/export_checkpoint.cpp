#include "backend/model/export_checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/formats/json_file.h"
#include "backend/formats/safe_write.h"
#include "backend/formats/safetensors_writer.h"
#include "backend/method_registry.h"
#include "backend/methods/packed_linear.h"
#include "backend/model/config_writer.h"
#include "backend/model/model_source.h"
#include "backend/model/new_folder.h"
#include "backend/model/stored_linear.h"
#include "backend/model/stored_parts.h"
#include "backend/model/torch_error.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Values of a floating-point tensor that are converted at once.
constexpr std::int64_t kChunkValues = std::int64_t{1} << 22;
/// Left free on the disk.
constexpr std::int64_t kSpareBytes = std::int64_t{1} << 20;

struct Refusal {
  std::string linear, reason;
};

/// How codes are to be stored: GPTQ or one of the two layouts of compressed-tensors.
CodeLayout layout_for(ExportFormat format, const std::vector<Stored>& all) {
  if (format != ExportFormat::CompressedTensors) return CodeLayout::Gptq;
  for (const Stored& stored : all)
    if (stored.in_block() && packed(stored.pieces.front()) &&
        packed(stored.pieces.front())->linear_codes(false).inputs == CodedInputs::Int8Absmax)
      return CodeLayout::IntQuantized;
  return CodeLayout::PackQuantized;
}

/// The first linear that the layout cannot hold.
std::optional<Refusal> refusal(CodeLayout layout, const std::vector<Stored>& all, const DecoderWeights& weights) {
  if (weights.attention.bits < 16)
    return Refusal{"attention", "its products are quantized, which no checkpoint layout describes"};
  bool any = false;
  for (const Stored& stored : all) {
    if (!stored.in_block()) continue;
    const auto coded = [](const Piece& piece) { return packed(piece) != nullptr; };
    const bool every = std::all_of(stored.pieces.begin(), stored.pieces.end(), coded);
    if (!every) {
      for (const Piece& piece : stored.pieces) {
        if (coded(piece)) return Refusal{stored.name, "only some of its fused parts are quantized"};
        if (!piece.linear->floating_point() || dynamic_cast<const QuantizedInputLinear*>(piece.linear))
          return Refusal{stored.name, "it holds more than uniform codes with one scale a group"};
      }
      continue;
    }
    any = true;
    if (layout != CodeLayout::Gptq && stored.transposed())
      return Refusal{stored.name, "it belongs to a Conv1D module, and compressed-tensors quantizes Linear modules"};
    if (std::string reason = joining_refusal(stored); !reason.empty()) return Refusal{stored.name, reason};
    const LinearCodes codes = joined_codes(stored, false);
    if (std::string reason = layout_refusal(layout, codes); !reason.empty()) return Refusal{stored.name, reason};
    if (layout == CodeLayout::Gptq && !at::isfinite(codes.scale.to(at::kHalf)).all().item<bool>())
      return Refusal{stored.name, "its scales do not fit float16"};
  }
  if (!any) return Refusal{"the model", "none of its linears computes from codes"};
  return std::nullopt;
}

/// A format that can hold the variant, for messages.
std::string format_that_can(const std::vector<Stored>& all, const DecoderWeights& weights) {
  std::string can;
  for (const ExportFormat format : {ExportFormat::Gptq, ExportFormat::CompressedTensors})
    if (!refusal(layout_for(format, all), all, weights)) can += std::string("'") + export_format_id(format) + "' or ";
  return can + "'dense'";
}

/// Decides on a format that was left open. @throws Error Unsupported when the wanted one cannot hold the variant
ExportFormat choose_format(ExportFormat wanted, const std::vector<Stored>& all, const DecoderWeights& weights,
                           std::vector<std::string>& notes) {
  if (wanted == ExportFormat::Dense) return wanted;
  if (wanted == ExportFormat::Auto) {
    std::optional<Refusal> why;
    for (const ExportFormat format : {ExportFormat::Gptq, ExportFormat::CompressedTensors}) {
      why = refusal(layout_for(format, all), all, weights);
      if (!why) return format;
    }
    notes.push_back("No layout of codes holds '" + why->linear + "' (" + why->reason +
                    "), so dequantized weights were written.");
    return ExportFormat::Dense;
  }
  if (const auto why = refusal(layout_for(wanted, all), all, weights)) {
    throw Error(ErrorCode::Unsupported, std::string("The format '") + export_format_id(wanted) + "' cannot hold '" +
                                            why->linear + "': " + why->reason + ". Choose " +
                                            format_that_can(all, weights) + ".");
  }
  return wanted;
}

at::ScalarType torch_type(StoredType type) {
  return type == StoredType::F16 ? at::kHalf : type == StoredType::BF16 ? at::kBFloat16 : at::kFloat;
}

StoredType type_named(const std::string& dtype) {
  if (dtype == "float32") return StoredType::F32;
  if (dtype == "float16") return StoredType::F16;
  if (dtype == "bfloat16") return StoredType::BF16;
  throw Error(ErrorCode::InvalidArgument,
              "The stored type must be auto, float32, float16 or bfloat16; it is '" + dtype + "'.");
}

/// In which type a tensor without codes is written when none was asked for.
StoredType own_type(const Stored& stored, const std::string& model_dtype, std::set<std::string>& rounded) {
  const StoredType main =
      model_dtype == "float32" || model_dtype == "bfloat16" ? type_named(model_dtype) : StoredType::F16;
  if (!stored.linear()) {
    for (const Piece& piece : stored.pieces) {
      const at::Tensor wide = piece.values.to(at::kFloat);
      if (!at::equal(wide.to(torch_type(main)).to(at::kFloat), wide)) return StoredType::F32;
    }
    return main;
  }
  const auto* const first = dynamic_cast<const StoredLinear*>(stored.pieces.front().linear);
  for (const Piece& piece : stored.pieces) {
    const auto* const as_stored = dynamic_cast<const StoredLinear*>(piece.linear);
    if (!as_stored || as_stored->stored().type() != first->stored().type()) return main;
  }
  const StoredType type = first->stored().type();
  if (type == StoredType::F32 || type == StoredType::F16 || type == StoredType::BF16) return type;
  if (is_block_type(type)) rounded.insert(stored_type_name(type));
  return StoredType::F16;
}

at::Tensor as_stored_type(const at::Tensor& values, StoredType type, const std::string& name) {
  const at::Tensor converted = values.to(torch_type(type)).contiguous();
  if (type == StoredType::F16 && !at::isfinite(converted).all().item<bool>())
    throw Error(ErrorCode::Unsupported,
                "Tensor '" + name + "' has values that do not fit float16. Ask for float32 or bfloat16.");
  return converted;
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.nbytes())};
}

/// Writes floating-point values, a large weight some rows at a time.
void write_values(const Stored& stored, SafetensorsWriter& file, const JobContext& job) {
  const Piece& first = stored.pieces.front();
  const bool whole = stored.pieces.size() == 1 && !rows_of_piece(first, stored.shape[0]).defined();
  if (whole && stored.linear() && !stored.transposed() && first.linear->floating_point()) {
    const std::int64_t rows = stored.shape[0], step = std::max<std::int64_t>(1, kChunkValues / stored.shape[1]);
    for (std::int64_t row = 0; row < rows; row += step) {
      job.checkpoint(row, rows, "Writing '" + stored.name + "'");
      const at::Tensor ids = at::arange(row, std::min(row + step, rows), at::kLong);
      file.write(bytes_of(as_stored_type(first.linear->rows(ids).to(at::kFloat), stored.type, stored.name)));
    }
    return;
  }
  at::Tensor all = at::empty(stored.shape, at::kFloat);
  for (const Piece& piece : stored.pieces) {
    job.checkpoint(0, 1, "Writing '" + stored.name + "'");
    const at::Tensor values = piece.linear ? piece.linear->weight() : piece.values.to(at::kFloat);
    const at::Tensor rows = rows_of_piece(piece, values.size(0));
    if (rows.defined()) {
      all.index_copy_(0, rows, values);
    } else {
      all.copy_(values);
    }
  }
  if (stored.transposed()) all = all.t();
  file.write(bytes_of(as_stored_type(all, stored.type, stored.name)));
}

/// One tensor of the file.
struct Output {
  const Stored* stored = nullptr;
  const char* part = nullptr;  ///< null: values
  SafetensorsWriter::Entry entry;
};

/// Tensors in an order that keeps each at a multiple of its element size.
std::vector<Output> outputs_of(const std::vector<Stored>& all) {
  std::vector<Output> outputs;
  for (const Stored& stored : all) {
    if (!stored.format) {
      outputs.push_back({&stored, nullptr, {stored.name, stored.type, stored.stored_shape()}});
      continue;
    }
    for (const CodedPart& part : coded_parts(*stored.format, stored.shape[0], stored.shape[1]))
      outputs.push_back({&stored, part.name, {stem_of(stored.name) + "." + part.name, part.type, part.shape}});
  }
  std::stable_sort(outputs.begin(), outputs.end(), [](const Output& a, const Output& b) {
    return stored_type_bytes(a.entry.type) > stored_type_bytes(b.entry.type);
  });
  return outputs;
}

std::int64_t write_tensors(const fs::path& path, const std::vector<Stored>& all, const JobContext& job) {
  const std::vector<Output> outputs = outputs_of(all);
  std::vector<SafetensorsWriter::Entry> entries;
  std::int64_t total = 0, done = 0;
  for (const Output& output : outputs) {
    entries.push_back(output.entry);
    total += output.entry.bytes();
  }
  std::error_code unknown;
  const fs::space_info space = fs::space(path.parent_path(), unknown);
  if (!unknown && space.available != static_cast<std::uintmax_t>(-1) &&
      static_cast<std::int64_t>(space.available) < total + kSpareBytes) {
    throw Error(ErrorCode::Io, "The checkpoint takes " + std::to_string(total >> 20) + " MiB, and the disk of '" +
                                   path.parent_path().parent_path().string() + "' has " +
                                   std::to_string(space.available >> 20) + " MiB left.");
  }
  SafetensorsWriter file(path, entries, {{"format", "pt"}});
  for (const Output& output : outputs) {
    const std::int64_t bytes = output.entry.bytes();
    const double from = static_cast<double>(done) / static_cast<double>(total);
    const JobContext part = job.part(from, from + static_cast<double>(bytes) / static_cast<double>(total));
    part.checkpoint(0, 1, "Writing '" + output.entry.name + "'");
    if (!output.part) {
      write_values(*output.stored, file, part);
    } else {
      const CodeFormat& format = *output.stored->format;
      const bool needs_codes = output.part == std::string(codes_name(format.layout));
      file.write(bytes_of(encode_part(format, output.part, joined_codes(*output.stored, needs_codes))));
    }
    done += bytes;
  }
  file.commit();
  return total;
}

/// What lies beside the weights of a Hugging Face model and belongs to the new one too.
void copy_companions(const fs::path& from, const fs::path& to) {
  static constexpr std::array kNames = {"tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "generation_config.json",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        "LICENSE.md",
                                        "NOTICE",
                                        "NOTICE.txt",
                                        "USE_POLICY.md",
                                        "ATTRIBUTION-CC-BY.md"};
  for (const char* name : kNames) {
    std::error_code problem;
    if (!fs::is_regular_file(from / name, problem)) continue;
    fs::copy_file(from / name, to / name, problem);
    if (problem) {
      throw Error(ErrorCode::Io, "'" + (from / name).string() + "' cannot be copied to '" + to.string() +
                                     "': " + problem.message() + ".");
    }
  }
}

/// Tokenizers of other formats are copied where transformers reads them too.
void copy_tokenizer_beside(const fs::path& model, const fs::path& to, std::vector<std::string>& notes) {
  const fs::path file = model.parent_path() / "tokenizer.model";
  std::error_code problem;
  if (model.extension() == ".bin" && fs::is_regular_file(file, problem)) {
    fs::copy_file(file, to / "tokenizer.model", problem);
    if (!problem) return;
  }
  notes.emplace_back(
      "The tokenizer of this file format is not converted: put the model's tokenizer.json or tokenizer.model into the "
      "folder.");
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json report_of(const Variant& variant, const ExportRequest& request, const ExportResult& result) {
  Json report = {{"format", "quantoscope-quantization-report-1"},
                 {"program", request.program},
                 {"model", variant.model().info().name},
                 {"model_fingerprint", variant.model().info().fingerprint},
                 {"setup", variant.weight_setup() ? format_setup(*variant.weight_setup(), weight_method_infos())
                                                  : variant.label().weights},
                 {"checkpoint_format", export_format_id(result.format)},
                 {"effective_bits", number(variant.weight_bits())},
                 {"bytes", result.bytes},
                 {"bytes_before", variant.model().info().bytes},
                 {"calibration", nullptr},
                 {"notes", result.notes},
                 {"linears", Json::array()}};
  if (request.calibration) {
    report["calibration"] = {{"text", request.calibration->text},     {"sha256", request.calibration->sha256},
                             {"tokens", request.calibration->tokens}, {"windows", request.calibration->windows},
                             {"seqlen", request.calibration->seqlen}, {"seed", request.calibration->seed}};
  }
  std::map<std::string, const LayerProgress*> losses;
  for (const LayerProgress& progress : request.linears) losses[progress.linear] = &progress;
  DecoderWeights weights = variant.weights();
  for (const LinearSlot& slot : linear_slots(weights)) {
    const LinearOp& linear = **slot.op;
    const double size = static_cast<double>(linear.out_features()) * static_cast<double>(linear.in_features());
    Json entry = {
        {"linear", slot.name},
        {"shape", {linear.out_features(), linear.in_features()}},
        {"effective_bits", linear.packed() ? number(8.0 * static_cast<double>(linear.bytes()) / size) : Json()}};
    if (const auto found = losses.find(slot.name); found != losses.end()) {
      const LayerProgress& progress = *found->second;
      entry["loss"] = number(progress.loss);
      entry["rtn_loss"] = number(progress.rtn_loss);
      entry["damping"] = number(progress.damping);
      entry["tokens"] = progress.tokens;
      entry["notes"] = progress.notes;
    }
    report["linears"].push_back(std::move(entry));
  }
  return report;
}

/// config.json of the source, or one of its own for another file format.
Json base_config(const Model& model, bool folder) {
  if (!folder) return hugging_face_config(model.spec(), model.info());
  Json config = Json::parse(parse_json_file(fs::path(model.info().path) / "config.json").dump());
  config.erase("quantization_config");
  return config;
}

WeightNames names_for(const Model& model, bool folder) {
  if (folder) {
    const WeightNames names = open_model(model.info().path).names;
    if (!names.ignored_beginnings.empty())
      throw Error(ErrorCode::Unsupported, "'" + model.info().path +
                                              "' holds more than the decoder that is computed here, so a checkpoint "
                                              "made of the decoder alone would not be whole.");
    return names;
  }
  for (const Family& family : families())
    if (family.architecture == model.spec().architecture) return family.names(model.spec());
  throw Error(ErrorCode::Internal, "No family has the architecture " + model.spec().architecture + ".");
}

/// Decides how every tensor is stored.
void plan(std::vector<Stored>& all, const Variant& variant, const ExportRequest& request, ExportResult& result) {
  result.format = choose_format(request.format, all, variant.weights(), result.notes);
  const bool gptq = result.format == ExportFormat::Gptq || result.format == ExportFormat::GptqV2;
  const CodeLayout layout = layout_for(result.format, all);
  std::int64_t rounded_scales = 0;
  bool zero_at_zero = false, conv1d = false;
  std::set<std::string> rounded_blocks;
  for (Stored& stored : all) {
    stored.type = request.dtype == "auto" ? own_type(stored, variant.model().info().dtype, rounded_blocks)
                                          : type_named(request.dtype);
    if (result.format == ExportFormat::Dense || !stored.in_block() || !packed(stored.pieces.front())) continue;
    const LinearCodes codes = joined_codes(stored, false);
    stored.format = code_format(layout, codes, true);
    ++result.coded_linears;
    if (!gptq) continue;
    conv1d = conv1d || stored.transposed();
    zero_at_zero = zero_at_zero || codes.zero_point.eq(0).any().item<bool>();
    const at::Tensor wide = codes.scale.to(at::kFloat);
    rounded_scales += wide.ne(wide.to(at::kHalf).to(at::kFloat)).sum().item<std::int64_t>();
  }
  if (result.format == ExportFormat::Gptq && zero_at_zero) {
    result.format = ExportFormat::GptqV2;
    result.notes.emplace_back(
        "A group has the zero point 0, which the format 'gptq' cannot store (it keeps zero points less one), so the "
        "checkpoint_format is 'gptq_v2'.");
  }
  for (Stored& stored : all)
    if (stored.format) stored.format->zero_minus_one = result.format != ExportFormat::GptqV2;
  if (rounded_scales > 0)
    result.notes.push_back(std::to_string(rounded_scales) +
                           " scales were rounded to float16, which GPTQ keeps them in.");
  if (conv1d)
    result.notes.emplace_back(
        "The transposed Conv1D weights are stored as codes of [out_features, in_features], as readers of GPTQ expect.");
  for (const std::string& type : rounded_blocks)
    result.notes.push_back("Tensors stored as " + type +
                           " were written as float16; ask for float32 to keep them exact.");
  if (result.format != ExportFormat::Dense) return;
  const auto quantizes_inputs = [](const Piece& piece) {
    if (!piece.linear) return false;
    if (const PackedLinear* const linear = packed(piece))
      return linear->linear_codes(false).inputs != CodedInputs::AsTheyAre;
    return dynamic_cast<const QuantizedInputLinear*>(piece.linear) != nullptr;
  };
  bool inputs = variant.weights().attention.bits < 16;
  for (const Stored& stored : all)
    inputs = inputs || std::any_of(stored.pieces.begin(), stored.pieces.end(), quantizes_inputs);
  if (inputs)
    result.notes.emplace_back(
        "This setup quantizes activations while it runs; dense weights say nothing of that, so readers compute with "
        "full-precision activations.");
}

void write_config(const fs::path& folder, Json config, const std::vector<Stored>& all, const ExportRequest& request) {
  std::vector<CodedLinear> coded;
  std::vector<std::string> uncoded, uncoded_in_blocks;
  for (const Stored& stored : all) {
    if (!stored.linear()) continue;
    const Piece& piece = stored.pieces.front();
    if (stored.format) {
      const LinearCodes codes = packed(piece)->linear_codes(false);
      coded.push_back(
          {stem_of(stored.name), *stored.format, codes.group_size, codes.inputs == CodedInputs::Int8Absmax});
    } else if (&stored != &all.front()) {  // the embedding comes first and is no linear module
      uncoded.push_back(stem_of(stored.name));
      if (piece.layer >= 0) uncoded_in_blocks.push_back(stem_of(stored.name));
    }
  }
  if (!coded.empty())
    config["quantization_config"] = quantization_config(coded, uncoded, uncoded_in_blocks, request.program);
  if (request.dtype != "auto") config[config.contains("dtype") ? "dtype" : "torch_dtype"] = request.dtype;
  write_file_safely(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace

ExportFormat parse_export_format(const std::string& id) {
  for (const ExportFormat format : {ExportFormat::Auto, ExportFormat::Gptq, ExportFormat::GptqV2,
                                    ExportFormat::CompressedTensors, ExportFormat::Dense})
    if (id == export_format_id(format)) return format;
  throw Error(ErrorCode::InvalidArgument, "There is no checkpoint format '" + id +
                                              "'; known are auto, gptq, gptq_v2, compressed-tensors and dense.");
}

const char* export_format_id(ExportFormat format) {
  switch (format) {
    case ExportFormat::Auto:
      return "auto";
    case ExportFormat::Gptq:
      return "gptq";
    case ExportFormat::GptqV2:
      return "gptq_v2";
    case ExportFormat::CompressedTensors:
      return "compressed-tensors";
    case ExportFormat::Dense:
      break;
  }
  return "dense";
}

void check_export_folder(const fs::path& folder, bool replace) { NewFolder::check(folder, replace); }

ExportResult export_checkpoint(const Variant& variant, const ExportRequest& request, const JobContext& job) {
  return translate_torch_errors("Exporting '" + request.folder.string() + "'", [&] {
    const Model& model = variant.model();
    std::error_code ignored;
    const bool folder = fs::is_directory(model.info().path, ignored);
    const Json config = base_config(model, folder);
    const WeightNames names = names_for(model, folder);
    std::vector<Stored> all = stored_parts(model.spec(), names, variant.weights());
    ExportResult result;
    plan(all, variant, request, result);

    NewFolder target(request.folder, request.replace);
    result.bytes = write_tensors(target.path() / "model.safetensors", all, job);
    write_config(target.path(), config, all, request);
    if (folder) {
      copy_companions(model.info().path, target.path());
    } else {
      copy_tokenizer_beside(model.info().path, target.path(), result.notes);
    }
    write_file_safely(target.path() / "quantization_report.json", report_of(variant, request, result).dump(2) + "\n");
    job.checkpoint(1, 1, "Writing the checkpoint");
    target.commit();
    return result;
  });
}

}  // namespace qs
