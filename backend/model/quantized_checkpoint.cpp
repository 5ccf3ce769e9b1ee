#include "backend/model/quantized_checkpoint.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "backend/types/error.h"

namespace qs {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr std::int64_t kLargestGroup = std::int64_t{1} << 22;
constexpr const char* kReadable =
    "Read are 'gptq' (checkpoint_format gptq or gptq_v2; 2, 3, 4 or 8 bits) and 'compressed-tensors' (pack-quantized "
    "weights of 4 or 8 bits, and int-quantized W8A8 with inputs quantized token by token).";

[[noreturn]] void not_read(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::Unsupported, "'" + path + "': quantization_config " + what + ". " + kReadable);
}

/// Fields of quantization_config, with the path of the file for messages.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  std::string text(const char* key, const std::string& fallback) const {
    const Json* const value = find(key);
    if (!value) return fallback;
    if (!value->is_string()) wrong(key, *value, "a text");
    return value->get<std::string>();
  }
  bool flag(const char* key, bool fallback) const {
    const Json* const value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) wrong(key, *value, "true or false");
    return value->get<bool>();
  }
  std::int64_t whole(const char* key, std::int64_t fallback, std::int64_t least, std::int64_t most) const {
    const Json* const value = find(key);
    if (!value) return fallback;
    const bool fits =
        value->is_number_integer() &&
        !(value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(most)) &&
        value->get<std::int64_t>() >= least && value->get<std::int64_t>() <= most;
    if (!fits)
      wrong(key, *value, ("a whole number from " + std::to_string(least) + " to " + std::to_string(most)).c_str());
    return value->get<std::int64_t>();
  }
  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void wrong(const char* key, const Json& value, const char* expected) const {
    throw Error(ErrorCode::BadFormat, "'" + path_ + "': quantization_config has " + key + " = " +
                                          value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80) +
                                          ", expected " + expected + ".");
  }

  const Json& object_;
  std::string path_;
};

void require_width(const Fields& fields, std::int64_t bits, const std::vector<std::int64_t>& known) {
  if (std::find(known.begin(), known.end(), bits) == known.end())
    not_read(fields.path(), "has codes of " + std::to_string(bits) + " bits");
}

QuantizationScheme read_gptq(const Fields& fields) {
  QuantizationScheme scheme;
  scheme.layout = CodeLayout::Gptq;
  scheme.bits = static_cast<int>(fields.whole("bits", 4, 1, 64));
  require_width(fields, scheme.bits, {2, 3, 4, 8});
  scheme.group_size = fields.whole("group_size", -1, -1, kLargestGroup);
  scheme.symmetric = fields.flag("sym", true);
  scheme.activation_order = fields.flag("desc_act", false);
  const std::string format = fields.text("checkpoint_format", "gptq");
  if (format != "gptq" && format != "gptq_v2") not_read(fields.path(), "has checkpoint_format '" + format + "'");
  if (fields.flag("is_marlin_format", false)) not_read(fields.path(), "has weights in the order of the Marlin kernel");
  if (const std::string words = fields.text("pack_dtype", "int32"); words != "int32")
    not_read(fields.path(), "has codes packed into '" + words + "'");
  scheme.zero_minus_one = format == "gptq";
  const Json* const dynamic = fields.find("dynamic");
  if (dynamic && dynamic->is_object())
    for (const auto& [pattern, settings] : dynamic->items())
      if (!pattern.starts_with("-:")) scheme.mixed = true;  // "-:" leaves linears in floating point
  return scheme;
}

/// Inputs of a config group: nothing, or 8 bits token by token.
bool quantizes_inputs(const Fields& group) {
  const Json* const inputs = group.find("input_activations");
  if (!inputs) return false;
  if (!inputs->is_object()) not_read(group.path(), "has input_activations that are no object");
  const Fields fields(*inputs, group.path());
  const bool known = fields.whole("num_bits", 8, 1, 64) == 8 && fields.text("type", "int") == "int" &&
                     fields.text("strategy", "tensor") == "token" && fields.flag("symmetric", true);
  const Json* const dynamic = fields.find("dynamic");
  if (!known || !dynamic || *dynamic != Json(true))
    not_read(group.path(),
             "quantizes inputs otherwise than by 8-bit integers, symmetric and dynamic, one scale a token");
  return true;
}

QuantizationScheme read_compressed_tensors(const Fields& fields) {
  const std::string format = fields.text("format", "");
  QuantizationScheme scheme;
  if (format == "pack-quantized") {
    scheme.layout = CodeLayout::PackQuantized;
  } else if (format == "int-quantized") {
    scheme.layout = CodeLayout::IntQuantized;
  } else {
    not_read(fields.path(), "has the format '" + format + "'");
  }
  for (const char* key : {"kv_cache_scheme", "sparsity_config", "transform_config"}) {
    const Json* const value = fields.find(key);
    if (value && !value->empty()) not_read(fields.path(), std::string("has a ") + key);
  }
  const Json* const groups = fields.find("config_groups");
  if (!groups || !groups->is_object() || groups->empty())
    throw Error(ErrorCode::BadFormat, "'" + fields.path() + "': quantization_config has no config_groups.");
  bool first = true;
  for (const Json& group : *groups) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object())
      throw Error(ErrorCode::BadFormat,
                  "'" + fields.path() + "': a config group of quantization_config has no weights.");
    const Fields of_group(group, fields.path()), weights(group["weights"], fields.path());
    if (of_group.find("output_activations")) not_read(fields.path(), "quantizes the outputs of linears");
    const bool inputs = quantizes_inputs(of_group);
    if (inputs != (scheme.layout == CodeLayout::IntQuantized))
      not_read(fields.path(), std::string("has ") + (inputs ? "quantized inputs" : "inputs as they are") +
                                  " in the format '" + format + "'");
    if (const std::string type = weights.text("type", "int"); type != "int")
      not_read(fields.path(), "has weights of type '" + type + "'");
    const std::int64_t bits = weights.whole("num_bits", 8, 1, 64);
    require_width(fields, bits, inputs ? std::vector<std::int64_t>{8} : std::vector<std::int64_t>{4, 8});
    const std::string strategy = weights.text("strategy", "tensor");
    if (strategy != "channel" && (strategy != "group" || inputs))
      not_read(fields.path(), "has weights with the strategy '" + strategy + "'");
    if (!first) {
      scheme.mixed = true;
      continue;
    }
    first = false;
    scheme.bits = static_cast<int>(bits);
    scheme.group_size = strategy == "group" ? weights.whole("group_size", 128, 1, kLargestGroup) : -1;
    scheme.symmetric = weights.flag("symmetric", true);
    const Json* const order = weights.find("actorder");
    scheme.activation_order = order && (*order == Json("group") || *order == Json(true));
  }
  return scheme;
}

/// `name` as a regular expression that fits nothing else.
std::string exactly(const std::string& name) {
  std::string pattern = "^";
  for (const char c : name) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern + "$";
}

/// Settings that linears of one checkpoint may differ in.
struct Settings {
  int bits = 4;
  std::int64_t group_size = -1;
  bool symmetric = false, ordered = false;
  auto operator<=>(const Settings&) const = default;
};

Settings settings_of(const CodedLinear& linear) {
  return {linear.format.bits, linear.format.groups == 1 ? -1 : linear.group_size, !linear.format.zero_points,
          linear.format.group_index};
}

/// The settings that most linears have.
Settings usual_settings(const std::vector<CodedLinear>& coded) {
  std::map<Settings, std::int64_t> counts;
  for (const CodedLinear& linear : coded) ++counts[settings_of(linear)];
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

OrderedJson gptq_config(const std::vector<CodedLinear>& coded, const std::vector<std::string>& uncoded_in_blocks,
                        const std::string& program) {
  const Settings usual = usual_settings(coded);
  bool symmetric = true, ordered = false;
  OrderedJson dynamic = OrderedJson::object();
  for (const CodedLinear& linear : coded) {
    const Settings settings = settings_of(linear);
    symmetric = symmetric && settings.symmetric;
    ordered = ordered || settings.ordered;
    if (settings.bits == usual.bits && settings.group_size == usual.group_size) continue;
    dynamic["+:" + exactly(linear.stem)] = {{"bits", settings.bits}, {"group_size", settings.group_size}};
  }
  for (const std::string& stem : uncoded_in_blocks) dynamic["-:" + exactly(stem)] = OrderedJson::object();
  OrderedJson config = {{"quant_method", "gptq"},
                        {"bits", usual.bits},
                        {"group_size", usual.group_size},
                        {"desc_act", ordered},
                        {"sym", symmetric},
                        {"lm_head", false},
                        {"checkpoint_format", coded.front().format.zero_minus_one ? "gptq" : "gptq_v2"},
                        {"pack_dtype", "int32"}};
  if (!dynamic.empty()) config["dynamic"] = dynamic;
  std::string writer = program;  // readers expect "name:version"
  std::replace(writer.begin(), writer.end(), ' ', ':');
  config["meta"] = {{"quantizer", OrderedJson::array({writer})}};
  return config;
}

OrderedJson compressed_tensors_config(const std::vector<CodedLinear>& coded, const std::vector<std::string>& uncoded) {
  const bool inputs = coded.front().int8_inputs;
  const Settings usual = usual_settings(coded);
  std::map<Settings, std::vector<std::string>> groups;
  for (const CodedLinear& linear : coded) {
    std::vector<std::string>& targets = groups[settings_of(linear)];
    if (settings_of(linear) != usual) targets.push_back("re:" + exactly(linear.stem));
  }
  groups[usual] = {"Linear"};
  OrderedJson config_groups = OrderedJson::object();
  const auto add = [&](const Settings& settings, const std::vector<std::string>& targets) {
    const bool grouped = settings.group_size > 0;
    OrderedJson weights = {{"num_bits", settings.bits},
                           {"type", "int"},
                           {"symmetric", settings.symmetric},
                           {"strategy", grouped ? "group" : "channel"},
                           {"group_size", grouped ? OrderedJson(settings.group_size) : OrderedJson()},
                           {"actorder", settings.ordered ? OrderedJson("group") : OrderedJson()},
                           {"dynamic", false}};
    OrderedJson input_activations;
    if (inputs) {
      input_activations = {
          {"num_bits", 8}, {"type", "int"}, {"symmetric", true}, {"strategy", "token"}, {"dynamic", true}};
    }
    config_groups["group_" + std::to_string(config_groups.size())] = {{"targets", targets},
                                                                      {"weights", weights},
                                                                      {"input_activations", input_activations},
                                                                      {"output_activations", nullptr}};
  };
  add(usual, groups.at(usual));
  for (const auto& [settings, targets] : groups)
    if (settings != usual) add(settings, targets);
  return {{"quant_method", "compressed-tensors"},
          {"format", inputs ? "int-quantized" : "pack-quantized"},
          {"quantization_status", "compressed"},
          {"config_groups", config_groups},
          {"ignore", uncoded},
          {"kv_cache_scheme", nullptr}};
}

}  // namespace

std::string QuantizationScheme::text() const {
  std::string text = layout == CodeLayout::Gptq            ? "GPTQ, " + std::to_string(bits) + " bits"
                     : layout == CodeLayout::PackQuantized ? "compressed-tensors W" + std::to_string(bits) + "A16"
                                                           : std::string("compressed-tensors W8A8");
  if (mixed) return text + ", mixed";
  text += group_size > 0 ? ", groups of " + std::to_string(group_size) : std::string(", one scale a row");
  if (symmetric) text += ", symmetric";
  if (activation_order) text += ", activation order";
  return text;
}

std::optional<QuantizationScheme> read_quantization(const Json& config, const std::string& path) {
  const auto at = config.find("quantization_config");
  if (at == config.end() || at->is_null() || (at->is_structured() && at->empty())) return std::nullopt;
  if (!at->is_object()) throw Error(ErrorCode::BadFormat, "'" + path + "': quantization_config is not an object.");
  const Fields fields(*at, path);
  const std::string method = fields.text("quant_method", "");
  if (method == "gptq") return read_gptq(fields);
  if (method == "compressed-tensors") return read_compressed_tensors(fields);
  if (method.empty()) not_read(path, "names no quant_method");
  not_read(path, "has the quant_method '" + method + "'");
}

std::string stem_of(const std::string& weight_name) {
  constexpr std::string_view kEnding = ".weight";
  return weight_name.ends_with(kEnding) ? weight_name.substr(0, weight_name.size() - kEnding.size()) : weight_name;
}

std::optional<CodeFormat> format_of(const QuantizationScheme& scheme, const TensorTable& table,
                                    const std::string& weight_name, std::int64_t in_features) {
  const std::string stem = stem_of(weight_name);
  const auto format = find_format(scheme.layout, scheme.zero_minus_one, table, stem, in_features);
  if (format && !scheme.mixed && format->bits != scheme.bits)
    throw Error(ErrorCode::BadFormat, "'" + table.path + "': the codes of '" + stem + "' have " +
                                          std::to_string(format->bits) + " bits, quantization_config says " +
                                          std::to_string(scheme.bits) + ".");
  return format;
}

OrderedJson quantization_config(const std::vector<CodedLinear>& coded, const std::vector<std::string>& uncoded,
                                const std::vector<std::string>& uncoded_in_blocks, const std::string& program) {
  if (coded.empty()) throw Error(ErrorCode::InvalidArgument, "A quantized checkpoint needs a linear with codes.");
  return coded.front().format.layout == CodeLayout::Gptq ? gptq_config(coded, uncoded_in_blocks, program)
                                                         : compressed_tensors_config(coded, uncoded);
}

}  // namespace qs
