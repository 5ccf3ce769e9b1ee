#include "backend/storage/capture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/capture_writer.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kTensorTaps = {"key", "key_pre_rope", "value", "query", "query_pre_rope"};

std::int64_t window_of(const ModelInfo& model, const CaptureRequest& request) {
  return request.window > 0 ? request.window : model.max_context;
}

hdf5::ElementType storage_type(const ModelInfo& model, const CaptureRequest& request) {
  if (request.portable_f32) return hdf5::ElementType::Float32;
  return model.dtype == "float16"    ? hdf5::ElementType::Float16
         : model.dtype == "bfloat16" ? hdf5::ElementType::BFloat16
                                     : hdf5::ElementType::Float32;
}

std::int64_t free_space(const fs::path& path) {
  std::error_code failure;
  const fs::path folder = fs::absolute(path).parent_path();
  const fs::space_info space = fs::space(folder, failure);
  return failure ? 0 : static_cast<std::int64_t>(space.available);
}

void check_request(const Model& model, const CaptureRequest& request, const fs::path& path) {
  const ModelInfo& info = model.info();
  if (request.ids.empty())
    throw Error(ErrorCode::InvalidArgument,
                "There is nothing to capture: the text gave no tokens. Choose a longer text.");
  if (window_of(info, request) > info.max_context) {
    throw Error(ErrorCode::InvalidArgument, "A window of " + std::to_string(request.window) +
                                                " tokens does not fit the context of '" + info.name + "', which has " +
                                                std::to_string(info.max_context) + ". Choose at most that.");
  }
  for (const std::string& tap : request.taps) {
    if (!kTensorTaps.count(tap) && tap != "attention" && tap != "activations") {
      throw Error(ErrorCode::InvalidArgument,
                  "There is no tap \"" + tap +
                      "\". Known are key, key_pre_rope, value, query, query_pre_rope, attention, activations.");
    }
  }
  if (request.taps.empty() && !request.weights)
    throw Error(ErrorCode::InvalidArgument, "No tap was chosen. Choose at least one, for example key and value.");
  const auto folder = fs::absolute(path).parent_path();
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::NotFound, "The folder '" + folder.string() + "' does not exist. Make it or choose another.");
  if (fs::is_directory(path))
    throw Error(ErrorCode::InvalidArgument, "'" + path.string() + "' is a folder; expected the name of a file.");
}

/// Collects a layer at a time and hands it to the writer when the next one begins.
class CaptureSink final : public TapSink {
 public:
  CaptureSink(const Model& model, const CaptureRequest& request, hdf5::ElementType type, CaptureWriter& writer,
              const JobContext& job)
      : model_(model), request_(request), type_(scalar_type(type)), writer_(writer), job_(job) {}

  void begin_window(std::int64_t first_token) { first_token_ = first_token; }

  void on_attention(const AttentionCall& call) override {
    enter(call.layer);
    for (const auto& [tap, tensor] : {std::pair{"key", call.key},
                                      {"key_pre_rope", call.key_pre_rope},
                                      {"value", call.value},
                                      {"query", call.query}}) {
      if (request_.taps.count(tap)) keep(tap, tensor);
    }
    if (request_.taps.count("query_pre_rope"))
      keep("query_pre_rope", undo_rope(call.query, call.first_position, model_.spec().rope_of(call.layer)));
    if (request_.taps.count("attention"))
      layer_.attention = attention_statistics(call.query, call.key, call.rules, job_);
  }

  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    enter(layer);
    if (!request_.taps.count("activations")) return;
    // q, k and v read one tensor, and so do gate and up: their sums are shared.
    const LinearKind before = std::exchange(last_kind_, kind);
    const bool shares = !layer_.activations.empty() && ((kind == LinearKind::K && before == LinearKind::Q) ||
                                                        (kind == LinearKind::V && before == LinearKind::K) ||
                                                        (kind == LinearKind::Up && before == LinearKind::Gate));
    layer_.activations.emplace_back(linear_name(layer, kind),
                                    shares ? layer_.activations.back().second : activation_sums(x));
  }

  void on_router_input(std::int64_t layer, const at::Tensor& x) override {
    enter(layer);
    last_kind_ = LinearKind::Down;
    if (request_.taps.count("activations")) layer_.activations.emplace_back(router_name(layer), activation_sums(x));
  }

  void on_expert_input(std::int64_t layer, std::int64_t expert, LinearKind kind, const at::Tensor& x) override {
    enter(layer);
    if (!request_.taps.count("activations")) return;
    const bool shares = std::exchange(last_kind_, kind) == LinearKind::Gate && kind == LinearKind::Up;
    layer_.activations.emplace_back(linear_name(layer, kind, expert),
                                    shares ? layer_.activations.back().second : activation_sums(x));
  }

  void finish_layer() {
    if (layer_.layer >= 0) writer_.write_layer(std::move(layer_));
    layer_ = {};
    layer_.layer = -1;
  }

 private:
  void enter(std::int64_t layer) {
    if (layer_.layer == layer) return;
    finish_layer();
    layer_.layer = layer;
    layer_.first_token = first_token_;
  }

  void keep(const char* tap, const at::Tensor& tensor) {
    layer_.taps.emplace_back(tap, at::empty(tensor.sizes(), at::TensorOptions(type_)).copy_(tensor));
  }

  const Model& model_;
  const CaptureRequest& request_;
  at::ScalarType type_;
  CaptureWriter& writer_;
  const JobContext& job_;
  std::int64_t first_token_ = 0;
  LinearKind last_kind_ = LinearKind::Down;
  CapturedLayer layer_{.layer = -1};
};

void write_weights(const DecoderWeights& weights, at::ScalarType type, CaptureWriter& writer, const JobContext& job) {
  const auto put = [&](const std::string& name, const at::Tensor& weight) {
    if (weight.defined()) writer.write_weight(name, weight.to(at::kCPU, type));
  };
  const auto put_norm = [&](const std::string& name, const NormWeights& norm) {
    put(name + ".weight", norm.weight);
    put(name + ".bias", norm.bias);
  };
  const auto put_linear = [&](const std::string& name, const std::shared_ptr<const LinearOp>& op) {
    if (!op) return;
    put(name + ".weight", op->weight());
    put(name + ".bias", op->bias());
  };
  const auto layers = static_cast<std::int64_t>(weights.blocks.size());
  put("embed_tokens.weight", weights.embedding->weight());
  put("embed_positions.weight", weights.positions);
  put_linear("project_in", weights.project_in);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    job.checkpoint(layer, layers, "Storing weights");
    DecoderBlock block = weights.blocks[static_cast<std::size_t>(layer)];
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    put_norm(prefix + "input_layernorm", block.input_norm);
    put_norm(prefix + (block.mlp_output_norm.defined() ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
             block.mlp_norm);
    put_norm(prefix + "post_attention_layernorm", block.attention_output_norm);
    put_norm(prefix + "post_feedforward_layernorm", block.mlp_output_norm);
    put_norm(prefix + "self_attn.q_norm", block.query_norm);
    put_norm(prefix + "self_attn.k_norm", block.key_norm);
    put_linear(router_name(layer), block.router);
    for (const LinearSlot& slot : linear_slots(block, layer)) put_linear(slot.name, *slot.op);
  }
  put_norm("norm", weights.final_norm);
  put_linear("project_out", weights.project_out);
  put_linear("lm_head", weights.lm_head);
}

void run_windows(const Model& model, const CaptureRequest& request, hdf5::ElementType type, CaptureWriter& writer,
                 const JobContext& job) {
  const at::NoGradGuard no_grad;
  const std::int64_t window = window_of(model.info(), request), total = static_cast<std::int64_t>(request.ids.size());
  const double layers_share = request.weights ? 0.9 : 1.0;
  CaptureSink sink(model, request, type, writer, job);
  for (std::int64_t begin = 0; begin < total; begin += window) {
    const std::int64_t end = std::min(begin + window, total);
    const std::vector<std::int64_t> ids(request.ids.begin() + begin, request.ids.begin() + end);
    std::vector<std::string> texts;
    for (const std::int64_t id : ids) {
      texts.push_back(model.has_tokenizer() && id >= 0 && id < model.tokenizer().vocab_size()
                          ? model.tokenizer().token_text(id)
                          : std::string());
    }
    const JobContext part = job.part(layers_share * static_cast<double>(begin) / static_cast<double>(total),
                                     layers_share * static_cast<double>(end) / static_cast<double>(total));
    part.checkpoint(0, 1, "Capturing");
    sink.begin_window(writer.tokens());
    writer.begin_window(ids, texts);
    FullPrecisionWindow attention(model.weights().attention);
    forward(model.spec(), model.weights(), RaggedBatch::single(ids), attention, LogitRows::None, &sink, part);
    sink.finish_layer();
  }
  if (request.weights) write_weights(model.weights(), scalar_type(type), writer, job.part(layers_share, 1.0));
}

}  // namespace

CaptureForecast forecast_capture(const ModelInfo& model, const CaptureRequest& request, const fs::path& path) {
  const auto tokens = static_cast<std::int64_t>(request.ids.size());
  const std::int64_t element = storage_type(model, request) == hdf5::ElementType::Float32 ? 4 : 2;
  const std::int64_t window = std::min(window_of(model, request), tokens);
  std::int64_t a_layer = 1 << 14;  // object headers and chunk indexes
  for (const std::string& tap : request.taps) {
    if (!kTensorTaps.count(tap)) continue;
    const std::int64_t heads = tap.rfind("query", 0) == 0 ? model.heads : model.kv_heads;
    const std::int64_t bytes = heads * tokens * model.head_dim * element;
    a_layer += bytes + (1 << 13);
    // min, max and mean at factors 2, 4, ..: three times a third of the tensor, and partial tiles
    if (request.pyramids) a_layer += bytes + 3 * heads * (tokens + model.head_dim) * element + (24 << 10);
  }
  if (request.taps.count("attention")) {
    a_layer += 3 * model.heads * tokens * 4 + model.heads * 4 * 4 * 20;
    if (window > kMapSize) a_layer += 2 * model.heads * kMapSize * kMapSize * 2;
  }
  if (request.taps.count("activations"))
    a_layer += 3 * 4 * (6 * model.hidden_size + model.intermediate_size) + 7 * 3 * 2048;
  CaptureForecast forecast;
  forecast.bytes = model.layers * a_layer + tokens * 64 + (1 << 16);
  if (request.weights)
    forecast.bytes +=
        model.parameters * element + (model.tied_embeddings ? model.vocab_size * model.hidden_size * element : 0);
  forecast.free_disk = free_space(path);
  return forecast;
}

CaptureInfo capture(const Model& model, const CaptureRequest& request, const fs::path& path, bool append,
                    const JobContext& job) {
  check_request(model, request, path);
  const ModelInfo& info = model.info();
  const CaptureForecast forecast = forecast_capture(info, request, path);
  if (forecast.bytes > forecast.free_disk) {
    throw Error(ErrorCode::Io, "The capture may need " + std::to_string(forecast.bytes >> 20) + " MiB, but only " +
                                   std::to_string(forecast.free_disk >> 20) + " MiB are free where '" + path.string() +
                                   "' will lie. Capture fewer tokens or taps, or choose another disk.");
  }
  CaptureHeader header;
  header.window = window_of(info, request);
  header.info = {.model_name = info.name,
                 .model_fingerprint = info.fingerprint,
                 .architecture = info.architecture,
                 .created_utc = utc_now(),
                 .program_version = QUANTOSCOPE_VERSION,
                 .text_source = request.text_source,
                 .text_sha256 = request.text_sha256,
                 .layers = info.layers,
                 .heads = info.heads,
                 .kv_heads = info.kv_heads,
                 .head_dim = info.head_dim,
                 .hidden_size = info.hidden_size,
                 .rope = model.spec().rope};
  for (std::int64_t layer = 0; layer < info.layers; ++layer) {
    header.info.layer_ropes.push_back(model.spec().rope_of(layer));
    header.info.layer_rules.push_back(model.spec().attention_rules(layer));
  }
  CaptureStorage storage{.type = storage_type(info, request),
                         .pyramids = request.pyramids,
                         .planned_tokens = static_cast<std::int64_t>(request.ids.size())};
  DecoderWeights weights = model.weights();
  std::int64_t routed_layers = 0;
  for (const LinearSlot& slot : linear_slots(weights)) {
    if (slot.expert >= 0 && slot.layer >= routed_layers) {
      storage.linears.push_back(router_name(slot.layer));
      routed_layers = slot.layer + 1;
    }
    storage.linears.push_back(slot.name);
  }
  const bool continues = append && fs::exists(path);
  bool worth_keeping = true;
  try {
    auto writer =
        continues ? CaptureWriter::append(path, header, storage) : CaptureWriter::create(path, header, storage);
    if (continues && writer->existing_taps() != request.taps) {
      std::string there;
      for (const auto& tap : writer->existing_taps()) there += (there.empty() ? "" : ", ") + tap;
      throw Error(ErrorCode::InvalidArgument,
                  "'" + path.string() + "' holds the taps " + there + "; an appended part must have the same.");
    }
    try {
      translate_torch_errors("Capturing '" + info.name + "'",
                             [&] { run_windows(model, request, storage.type, *writer, job); });
      writer->finish();
    } catch (const Error&) {
      worth_keeping = writer->holds_layers();
      throw;
    }
  } catch (const Error&) {
    std::error_code ignored;
    if (!worth_keeping) fs::remove(path, ignored);
    throw;
  }
  return CaptureReader::open(path)->info();
}

}  // namespace qs
