#include "backend/storage/attention_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace qs {
namespace {

using Json = nlohmann::json;

constexpr std::array kScalings = {
    std::pair{RopeScaling::None, "none"},       std::pair{RopeScaling::Linear, "linear"},
    std::pair{RopeScaling::Dynamic, "dynamic"}, std::pair{RopeScaling::Yarn, "yarn"},
    std::pair{RopeScaling::Llama3, "llama3"},   std::pair{RopeScaling::LongRope, "longrope"}};

/// Calls `visit(name, field)` for each number of a rotation.
template <typename Rope, typename Visit>
void visit_rope(Rope& rope, const Visit& visit) {
  visit("theta", rope.theta);
  visit("rotary_dim", rope.rotary_dim);
  visit("factor", rope.factor);
  visit("low_freq_factor", rope.low_freq_factor);
  visit("high_freq_factor", rope.high_freq_factor);
  visit("beta_fast", rope.beta_fast);
  visit("beta_slow", rope.beta_slow);
  visit("attention_factor", rope.attention_factor);
  visit("original_context", rope.original_context);
  visit("short_factor", rope.short_factor);
  visit("long_factor", rope.long_factor);
  visit("truncate", rope.truncate);
}

template <typename Rules, typename Visit>
void visit_rules(Rules& rules, const Visit& visit) {
  visit("score_scale", rules.score_scale);
  visit("score_softcap", rules.score_softcap);
  visit("sliding_window", rules.sliding_window);
}

Json kind_json(const RopeSpec& rope, const AttentionRules& rules) {
  Json text = Json::object(), kind = Json::object();
  visit_rope(rope, [&](const char* name, const auto& value) { text[name] = value; });
  for (const auto& [scaling, name] : kScalings)
    if (scaling == rope.scaling) text["scaling"] = name;
  visit_rules(rules, [&](const char* name, const auto& value) { kind[name] = value; });
  kind["rope"] = text;
  return kind;
}

bool plausible(const RopeSpec& rope, std::int64_t head_dim) {
  const auto positive = [](const std::vector<double>& values) {
    return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x) && x > 0.0; });
  };
  const auto pairs = static_cast<std::size_t>(rope.rotary_dim > 0 ? rope.rotary_dim : head_dim) / 2;
  const bool scaled = rope.scaling != RopeScaling::None;
  const bool factors =
      rope.scaling != RopeScaling::LongRope || (rope.short_factor.size() == pairs && rope.long_factor.size() == pairs);
  return std::isfinite(rope.theta) && rope.theta >= 0.0 && rope.rotary_dim >= 0 && rope.rotary_dim <= head_dim &&
         rope.rotary_dim % 2 == 0 && rope.factor > 0.0 && rope.attention_factor > 0.0 &&
         (!scaled || rope.scaling == RopeScaling::Linear || rope.original_context > 0) && factors &&
         positive(rope.short_factor) && positive(rope.long_factor);
}

bool read_kind(const Json& kind, RopeSpec& rope, AttentionRules& rules) {
  const auto read = [](const Json& from) {
    return [&from](const char* name, auto& value) {
      if (from.contains(name)) from.at(name).get_to(value);
    };
  };
  visit_rules(rules, read(kind));
  const Json& text = kind.at("rope");
  visit_rope(rope, read(text));
  const auto name = text.at("scaling").get<std::string>();
  const auto known =
      std::find_if(kScalings.begin(), kScalings.end(), [&](const auto& entry) { return name == entry.second; });
  if (known != kScalings.end()) rope.scaling = known->first;
  return known != kScalings.end();
}

}  // namespace

std::string attention_text(const CaptureInfo& info) {
  Json kinds = Json::array(), layers = Json::array();
  for (std::int64_t layer = 0; layer < info.layers; ++layer) {
    const Json kind = kind_json(info.rope_of(layer), info.rules_of(layer));
    const auto known = std::find(kinds.begin(), kinds.end(), kind);
    layers.push_back(known - kinds.begin());
    if (known == kinds.end()) kinds.push_back(kind);
  }
  return Json{{"kinds", kinds}, {"layers", layers}}.dump();
}

bool read_attention(const std::string& text, CaptureInfo& info) {
  try {
    const Json json = Json::parse(text);
    const Json& kinds = json.at("kinds");
    const auto layers = json.at("layers").get<std::vector<std::size_t>>();
    if (static_cast<std::int64_t>(layers.size()) != info.layers) return false;
    std::vector<RopeSpec> ropes;
    std::vector<AttentionRules> rules;
    for (const std::size_t index : layers) {
      ropes.emplace_back();
      rules.emplace_back();
      if (!read_kind(kinds.at(index), ropes.back(), rules.back()) || !plausible(ropes.back(), info.head_dim) ||
          rules.back().sliding_window < 0)
        return false;
    }
    info.rope = ropes.front();
    info.layer_ropes = std::move(ropes);
    info.layer_rules = std::move(rules);
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

}  // namespace qs
