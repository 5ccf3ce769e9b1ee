#include "backend/model/model_source.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "backend/formats/gguf.h"
#include "backend/formats/json_file.h"
#include "backend/formats/llama2c.h"
#include "backend/formats/pickle.h"
#include "backend/formats/safetensors.h"
#include "backend/formats/sha256.h"
#include "backend/model/gguf_model.h"
#include "backend/model/hub_cache.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kWholeTensorBytes = 64 * 1024;
constexpr std::size_t kSampleBytes = 4096;

Json read_json(const fs::path& path) {
  Json json = parse_json_file(path);
  if (!json.is_object()) throw Error(ErrorCode::BadFormat, "'" + path.string() + "' is not a JSON object.");
  return json;
}

/// A token id, or the ids of a list.
std::vector<std::int64_t> token_ids(const Json& config, const char* key) {
  std::vector<std::int64_t> ids;
  const auto at = config.find(key);
  if (at == config.end()) return ids;
  for (const Json& value : at->is_array() ? *at : Json::array({*at}))
    if (value.is_number_integer()) ids.push_back(value.get<std::int64_t>());
  return ids;
}

bool is_folder_model(const fs::path& path) { return fs::is_directory(path) || path.filename() == "config.json"; }

void open_folder(const fs::path& path, ModelSource& source) {
  const fs::path folder = resolve_hub_entry(fs::is_directory(path) ? path : path.parent_path());
  const fs::path config_path = folder / "config.json";
  if (!fs::exists(config_path))
    throw Error(ErrorCode::NotFound,
                "'" + folder.string() +
                    "' has no config.json. Open a Hugging Face model folder, a .gguf file, or a llama2.c .bin file.");
  const Json config = read_json(config_path);
  source.quantization = read_quantization(config, config_path.string());
  Json unquantized = config;
  unquantized.erase("quantization_config");
  const Family& family = family_of(unquantized, config_path.string());
  source.spec = family.read_config(unquantized, config_path.string());
  source.tensors = read_safetensors_folder(folder);
  source.names =
      names_in(family, source.spec, [&](const std::string& name) { return source.tensors.find(name) != nullptr; });
  if (source.quantization) source.info.format += " (" + source.quantization->text() + ")";
  const auto bos = token_ids(config, "bos_token_id");
  const auto eos = token_ids(config, "eos_token_id");
  if (!bos.empty()) source.info.bos_id = bos.front();
  if (!eos.empty()) source.info.eos_id = eos.front();
  source.info.eos_ids = eos;
  if (fs::exists(folder / "generation_config.json"))
    for (const std::int64_t id : token_ids(read_json(folder / "generation_config.json"), "eos_token_id"))
      if (std::find(eos.begin(), eos.end(), id) == eos.end()) source.info.eos_ids.push_back(id);
  source.info.fingerprint = config.dump(-1, ' ', false, Json::error_handler_t::replace);
  source.info.path = folder.string();
}

bool is_gguf_model(const fs::path& path) { return fs::is_regular_file(path) && is_gguf(path); }

bool is_llama2c_model(const fs::path& path) { return fs::is_regular_file(path) && path.extension() == ".bin"; }

void open_llama2c(const fs::path& path, ModelSource& source) {
  Llama2cFile file = read_llama2c(path);
  const Llama2cHeader& header = file.header;
  ArchitectureSpec& spec = source.spec;
  spec.architecture = "LlamaForCausalLM";
  spec.layers = header.layers;
  spec.hidden_size = header.hidden_size;
  spec.intermediate_size = header.intermediate_size;
  spec.vocab_size = header.vocab_size;
  spec.heads = header.heads;
  spec.kv_heads = header.kv_heads;
  spec.head_dim = header.head_dim();
  spec.max_context = header.max_context;
  spec.tied_embeddings = header.shared_classifier;
  source.names = llama_family().names(spec);
  source.names.linear(LinearKind::Q).weight.paired_heads = spec.heads;
  source.names.linear(LinearKind::K).weight.paired_heads = spec.kv_heads;
  source.tensors = std::move(file.tensors);
  source.info.bos_id = 1;
  source.info.eos_id = 2;
  source.info.eos_ids = {2};
  source.info.path = path.string();
}

/// Stored type of the weights that are no codes: the one that most bytes have.
std::string main_dtype(const TensorTable& tensors) {
  std::map<StoredType, std::size_t> bytes;
  for (const StoredTensor& tensor : tensors.tensors)
    if (is_float(tensor.type)) bytes[tensor.type] += tensor.bytes.size();
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : stored_type_name(most->first);
}

/// Leading dimensions count as rows.
std::vector<std::int64_t> as_matrix(const std::vector<std::int64_t>& shape) {
  if (shape.size() <= 2) return shape;
  return {std::accumulate(shape.begin(), shape.end() - 1, std::int64_t{1}, std::multiplies<>()), shape.back()};
}

/// Tensors whose values need others beside them, which config.json does not describe: the scales of block-scaled 8-bit
/// floats, AWQ codes ... @param known  those that it does
void refuse_scaled_weights(const TensorTable& table, const std::set<std::string>& known) {
  for (const StoredTensor& tensor : table.tensors)
    for (const char* ending : {".weight_scale_inv", ".weight_scale", ".input_scale", ".qweight", ".qzeros", ".g_idx",
                               ".SCB", ".absmax", ".weight_packed"})
      if (tensor.name.ends_with(ending) && !known.contains(tensor.name))
        throw Error(ErrorCode::Unsupported, "'" + table.path + "' holds '" + tensor.name +
                                                "': its weights are already quantized, with scales beside the codes, "
                                                "which is not read. Open the model in 16 bits.");
}

std::optional<CodeFormat> coded_format(const ModelSource& source, const std::string& name,
                                       const std::vector<std::int64_t>& shape, bool transposed) {
  if (!source.quantization) return std::nullopt;
  return format_of(*source.quantization, source.tensors, name, shape[transposed ? 0 : 1]);
}

/// Checks the parts of every linear that lies as codes. @return their names
std::set<std::string> check_codes(const ModelSource& source) {
  std::set<std::string> parts;
  for (const auto& [name, shape, linear, transposed] : expected_tensors(source.spec, source.names)) {
    if (!linear || name == source.names.embedding.name) continue;
    const auto format = coded_format(source, name, shape, transposed);
    if (!format) continue;
    const std::int64_t out_features = shape[transposed ? 1 : 0], in_features = shape[transposed ? 0 : 1];
    check_parts(*format, source.tensors, stem_of(name), out_features, in_features);
    for (const CodedPart& part : coded_parts(*format, out_features, in_features))
      parts.insert(stem_of(name) + "." + part.name);
  }
  return parts;
}

/// Writers of GPTQ checkpoints give every linear a bias, of zeros where the architecture has none.
bool is_empty_bias(const StoredTensor& tensor, const std::set<std::string>& expected) {
  constexpr std::string_view kEnding = ".bias";
  if (!tensor.name.ends_with(kEnding) || !is_float(tensor.type)) return false;
  if (!expected.contains(tensor.name.substr(0, tensor.name.size() - kEnding.size()) + ".qweight")) return false;
  const std::vector<float> values = to_f32(tensor);
  return std::all_of(values.begin(), values.end(), [](float value) { return value == 0.0f; });
}

void check_tensors(const ModelSource& source) {
  const TensorTable& table = source.tensors;
  std::set<std::string> expected = check_codes(source);
  refuse_scaled_weights(table, expected);
  for (const auto& [name, shape, linear, transposed] : expected_tensors(source.spec, source.names)) {
    if (linear && coded_format(source, name, shape, transposed)) continue;
    const StoredTensor& tensor = table.at(name);
    expected.insert(name);
    if (as_matrix(tensor.shape) != shape)
      throw Error(ErrorCode::BadFormat, "'" + table.path + "': tensor '" + name + "' has shape " +
                                            shape_text(tensor.shape) + ", the model's description asks for " +
                                            shape_text(shape) + ".");
    if (!is_float(tensor.type))
      throw Error(ErrorCode::Unsupported, "'" + table.path + "': tensor '" + name + "' is stored as " +
                                              stored_type_name(tensor.type) + "; expected real numbers.");
  }
  for (const StoredTensor& tensor : table.tensors) {
    const auto any = [](const std::vector<std::string>& parts, const auto& fits) {
      return std::any_of(parts.begin(), parts.end(), fits);
    };
    const bool ignored =
        any(source.names.ignored_endings, [&](const std::string& ending) { return tensor.name.ends_with(ending); }) ||
        any(source.names.ignored_beginnings, [&](const std::string& start) { return tensor.name.starts_with(start); });
    if (ignored || expected.contains(tensor.name) || tensor.name == source.names.lm_head.weight.name) continue;
    if (is_empty_bias(tensor, expected)) continue;
    throw Error(ErrorCode::BadFormat, "'" + table.path + "' holds tensor '" + tensor.name +
                                          "', which the model's description (" + source.spec.architecture + ", " +
                                          std::to_string(source.spec.layers) +
                                          " layers) does not know. The files may belong to different models.");
  }
}

/// Two checkpoints of one layout differ in their values, so small tensors and the ends of large ones are hashed too.
std::string fingerprint(const std::string& config, const TensorTable& tensors) {
  Sha256 hash;
  hash.update(config);
  for (const StoredTensor& tensor : tensors.tensors) {
    hash.update(tensor.name + " " + stored_type_id(tensor.type) + " " + shape_text(tensor.shape) + "\n");
    if (tensor.bytes.size() <= kWholeTensorBytes) {
      hash.update(tensor.bytes);
    } else {
      hash.update(tensor.bytes.first(kSampleBytes));
      hash.update(tensor.bytes.last(kSampleBytes));
    }
  }
  return hash.hex();
}

std::shared_ptr<const Tokenizer> tokenizer_beside(const fs::path& path, std::int64_t vocab_size) {
  std::shared_ptr<const Tokenizer> tokenizer;
  try {
    tokenizer = load_tokenizer(path);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::NotFound) throw;
    return nullptr;
  }
  if (tokenizer->vocab_size() > vocab_size)
    throw Error(ErrorCode::BadFormat, "The tokenizer of '" + path.string() + "' has " +
                                          std::to_string(tokenizer->vocab_size()) + " tokens, the model only " +
                                          std::to_string(vocab_size) + ". They belong to different models.");
  return tokenizer;
}

void describe(ModelSource& source) {
  ModelInfo& info = source.info;
  const ArchitectureSpec& spec = source.spec;
  info.architecture = spec.architecture;
  info.layers = spec.layers;
  info.heads = spec.heads;
  info.kv_heads = spec.kv_heads;
  info.head_dim = spec.head_dim;
  info.hidden_size = spec.hidden_size;
  info.intermediate_size = spec.intermediate_size;
  info.vocab_size = spec.vocab_size;
  info.max_context = spec.max_context;
  info.tied_embeddings = spec.tied_embeddings;
  for (const ExpectedTensor& tensor : expected_tensors(spec, source.names))
    info.parameters += std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
  info.dtype = main_dtype(source.tensors);
  info.bytes = source.tensors.bytes();
  info.fingerprint = fingerprint(info.fingerprint, source.tensors);
  info.tokenizer = source.tokenizer ? source.tokenizer->kind() : "none";
  if (source.tokenizer && info.bos_id < 0) info.bos_id = source.tokenizer->bos_id();
  if (source.tokenizer && info.eos_id < 0) info.eos_id = source.tokenizer->eos_id();
  if (info.eos_ids.empty() && info.eos_id >= 0) info.eos_ids = {info.eos_id};
}

std::string name_of(const fs::path& path) {
  const fs::path clean = path.filename().empty() ? path.parent_path() : path;
  if (clean.filename() == "config.json") return clean.parent_path().filename().string();
  return fs::is_regular_file(clean) ? clean.stem().string() : clean.filename().string();
}

}  // namespace

const std::vector<ModelFormat>& model_formats() {
  static const std::vector<ModelFormat> all = {
      {"Hugging Face folder", &is_folder_model, &open_folder},
      {"GGUF", &is_gguf_model, &open_gguf},
      {"llama2.c", &is_llama2c_model, &open_llama2c},
  };
  return all;
}

ModelSource open_model(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw Error(ErrorCode::NotFound,
                "'" + path.string() +
                    "' does not exist. Open a Hugging Face model folder, a .gguf file, or a llama2.c .bin file.");
  if (fs::is_regular_file(path, ignored) && is_pickle(path))
    throw Error(ErrorCode::Unsupported, "'" + path.string() + "' holds pickled weights. " + pickle_advice(path));
  for (const ModelFormat& format : model_formats()) {
    if (!format.recognizes(path)) continue;
    ModelSource source;
    source.info.format = format.name;
    source.info.name = name_of(path);
    format.open(path, source);
    check_tensors(source);
    source.tokenizer = tokenizer_beside(source.info.path, source.spec.vocab_size);
    describe(source);
    return source;
  }
  const std::string advice =
      path.extension() == ".safetensors" ? " Open the folder that holds it and its config.json." : "";
  throw Error(ErrorCode::Unsupported,
              "'" + path.string() +
                  "' is not a model that is read here: expected a Hugging Face folder, its config.json, a "
                  ".gguf file, or a llama2.c .bin file." +
                  advice);
}

}  // namespace qs
