#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/model/config_reader.h"

namespace qs {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMaxContext = std::int64_t{1} << 26;

/// The settings inside rope_scaling or rope_parameters.
class RopeReader {
 public:
  RopeReader(ConfigReader& reader, const char* parent, const Json& settings)
      : reader_(reader), parent_(parent), settings_(settings) {}

  bool has(const char* name) const { return settings_.contains(name) && !settings_.at(name).is_null(); }

  double real_or(const char* name, double fallback) const {
    if (!has(name)) return fallback;
    const Json& value = settings_.at(name);
    if (value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0.0)
      return value.get<double>();
    reader_.wrong(full(name) + " is " + text(value) + ", expected a number above 0");
    return fallback;
  }

  double real(const char* name) const {
    if (!has(name)) reader_.wrong(full(name) + " is missing, expected a number above 0");
    return real_or(name, 1.0);
  }

  std::vector<double> reals(const char* name, std::int64_t count) const {
    std::vector<double> values;
    if (has(name) && settings_.at(name).is_array())
      for (const Json& value : settings_.at(name))
        if (value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0.0)
          values.push_back(value.get<double>());
    if (static_cast<std::int64_t>(values.size()) == count) return values;
    reader_.wrong(full(name) + " should be a list of " + std::to_string(count) + " numbers above 0");
    return std::vector<double>(static_cast<std::size_t>(count), 1.0);
  }

  bool flag_or(const char* name, bool fallback) const {
    if (!has(name)) return fallback;
    if (settings_.at(name).is_boolean()) return settings_.at(name).get<bool>();
    reader_.wrong(full(name) + " is " + text(settings_.at(name)) + ", expected true or false");
    return fallback;
  }

  std::string type() const {
    for (const char* name : {"rope_type", "type"})
      if (has(name) && settings_.at(name).is_string()) return settings_.at(name).get<std::string>();
    return settings_.empty() || has("rope_theta") ? "default" : "";
  }

  void refuse_unknown() const {
    static const std::vector<std::string> known = {"rope_type",        "type",
                                                   "rope_theta",       "partial_rotary_factor",
                                                   "factor",           "original_max_position_embeddings",
                                                   "low_freq_factor",  "high_freq_factor",
                                                   "beta_fast",        "beta_slow",
                                                   "attention_factor", "mscale",
                                                   "mscale_all_dim",   "short_factor",
                                                   "long_factor",      "truncate",
                                                   "finetuned"};
    for (const auto& [name, value] : settings_.items())
      if (!value.is_null() && std::find(known.begin(), known.end(), name) == known.end())
        reader_.not_understood(full(name) + " = " + text(value));
  }

  std::string full(const std::string& name) const { return parent_ + "." + name; }
  const std::string& parent() const { return parent_; }

 private:
  static std::string text(const Json& value) {
    const std::string all = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return all.size() > 80 ? all.substr(0, 80) + "..." : all;
  }

  ConfigReader& reader_;
  std::string parent_;
  const Json& settings_;
};

double yarn_attention_factor(const RopeReader& settings, double factor) {
  const auto mscale = [factor](double scale) { return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0; };
  if (settings.has("attention_factor")) return settings.real("attention_factor");
  if (settings.has("mscale") && settings.has("mscale_all_dim"))
    return mscale(settings.real("mscale")) / mscale(settings.real("mscale_all_dim"));
  return mscale(1.0);
}

/// The settings of one type of layer, or of all.
const Json& settings_of(const Json& all, const char* layer_type) {
  const bool nested = layer_type && all.is_object() && all.contains(layer_type) && all[layer_type].is_object();
  return nested ? all[layer_type] : all;
}

}  // namespace

RopeSpec read_rope(ConfigReader& reader, ArchitectureSpec& spec, const RopeDefaults& defaults) {
  static const Json none = Json::object();
  RopeSpec rope;
  rope.theta = reader.real_or(defaults.theta_key, defaults.theta);
  double share = reader.real_or(defaults.share_key, defaults.rotary_share);
  const Json& older = reader.value("rope_scaling");
  const Json& newer = reader.value("rope_parameters");
  const bool is_new = newer.is_object() && !newer.empty();
  const char* parent = is_new ? "rope_parameters" : "rope_scaling";
  const Json& chosen = is_new ? settings_of(newer, defaults.layer_type) : older.is_object() ? older : none;
  if ((!older.is_null() && !older.is_object()) || (!newer.is_null() && !newer.is_object())) {
    reader.not_understood_value(newer.is_object() || newer.is_null() ? "rope_scaling" : "rope_parameters");
    return rope;
  }
  const RopeReader settings(reader, parent, chosen);
  settings.refuse_unknown();
  rope.theta = settings.real_or("rope_theta", rope.theta);
  share = settings.real_or("partial_rotary_factor", share);
  const auto rotary_dim = static_cast<std::int64_t>(static_cast<double>(spec.head_dim) * share);
  if (share > 1.0 || rotary_dim < 2 || rotary_dim % 2 != 0) {
    if (spec.head_dim % 2 == 0)
      reader.wrong("partial_rotary_factor " + std::to_string(share) + " of head_dim " + std::to_string(spec.head_dim) +
                   " is no even number of channels");
    return rope;
  }
  rope.rotary_dim = rotary_dim == spec.head_dim ? 0 : rotary_dim;

  std::string type = settings.type();
  if (type == "su" || (type == "yarn" && defaults.yarn_is_longrope)) type = "longrope";
  if (type == "default") return rope;
  if (type != "linear" && type != "dynamic" && type != "yarn" && type != "llama3" && type != "longrope") {
    reader.not_understood_value(parent);
    return rope;
  }
  rope.original_context = spec.max_context;
  if (settings.has("original_max_position_embeddings"))
    rope.original_context =
        std::max<std::int64_t>(1, std::llround(settings.real_or("original_max_position_embeddings", 1.0)));
  if (reader.has("original_max_position_embeddings"))
    rope.original_context = reader.positive("original_max_position_embeddings", kMaxContext);
  const double ratio = static_cast<double>(spec.max_context) / static_cast<double>(rope.original_context);
  if (type == "linear" || type == "dynamic") {
    rope.scaling = type == "linear" ? RopeScaling::Linear : RopeScaling::Dynamic;
    rope.original_context = spec.max_context;
    rope.factor = settings.real("factor");
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::Llama3;
    rope.factor = settings.real("factor");
    rope.low_freq_factor = settings.real("low_freq_factor");
    rope.high_freq_factor = settings.real("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor)
      reader.wrong(settings.full("high_freq_factor") + " must be above low_freq_factor");
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::Yarn;
    rope.factor = settings.real_or("factor", ratio);
    rope.beta_fast = settings.real_or("beta_fast", 32.0);
    rope.beta_slow = settings.real_or("beta_slow", 1.0);
    rope.truncate = settings.flag_or("truncate", true);
    rope.attention_factor = yarn_attention_factor(settings, rope.factor);
  } else {
    rope.scaling = RopeScaling::LongRope;
    rope.factor = settings.real_or("factor", ratio);
    rope.short_factor = settings.reals("short_factor", rotary_dim / 2);
    rope.long_factor = settings.reals("long_factor", rotary_dim / 2);
    const double usual =
        rope.factor <= 1.0 || rope.original_context < 2
            ? 1.0
            : std::sqrt(1.0 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_context)));
    rope.attention_factor = settings.real_or("attention_factor", usual);
  }
  if (rope.scaling == RopeScaling::Linear && !defaults.linear_extends) return rope;
  const double reach = static_cast<double>(rope.original_context) * rope.factor;
  spec.max_context = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(reach, 1e9)), spec.max_context,
                                              std::max(spec.max_context, kMaxContext));
  return rope;
}

}  // namespace qs
