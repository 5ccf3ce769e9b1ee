#include "backend/model/family.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/types/error.h"

namespace qs {
namespace {

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

std::string known_architectures() {
  std::string text;
  for (const Family& family : families()) text += (text.empty() ? "" : ", ") + family.architecture;
  return text;
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      llama_family(),
  };
  return all;
}

const Family& family_of(const nlohmann::json& config, const std::string& path) {
  const auto at = config.find("architectures");
  if (at == config.end() || !at->is_array() || at->empty() || !at->front().is_string())
    throw Error(ErrorCode::BadFormat, "'" + path +
                                          "' names no architecture: expected \"architectures\": [\"...\"]. Known are " +
                                          known_architectures() + ".");
  const std::string name = at->front().get<std::string>();
  for (const Family& family : families())
    if (family.architecture == name) return family;
  throw Error(ErrorCode::Unsupported, "'" + path + "' has the architecture '" + name +
                                          "', which is not known. Known are " + known_architectures() + ".");
}

std::string layer_weight_name(const std::string& pattern, std::int64_t layer) {
  const std::size_t at = pattern.find("{}");
  return at == std::string::npos ? pattern : pattern.substr(0, at) + std::to_string(layer) + pattern.substr(at + 2);
}

bool ConfigReader::has(const char* key) const {
  const auto at = config_.find(key);
  return at != config_.end() && !at->is_null();
}

std::string ConfigReader::value_text(const char* key) const {
  std::string text = has(key) ? config_[key].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) : "missing";
  if (text.size() > 80) text = text.substr(0, 80) + "...";
  return text;
}

std::int64_t ConfigReader::positive(const char* key, std::int64_t maximum) {
  const bool fits = has(key) && config_[key].is_number_unsigned() && config_[key].get<std::uint64_t>() >= 1 &&
                    config_[key].get<std::uint64_t>() <= static_cast<std::uint64_t>(maximum);
  if (fits) return config_[key].get<std::int64_t>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a whole number from 1 to " + std::to_string(maximum));
  return 1;
}

std::int64_t ConfigReader::positive_or(const char* key, std::int64_t fallback, std::int64_t maximum) {
  return has(key) ? positive(key, maximum) : fallback;
}

double ConfigReader::real_or(const char* key, double fallback) {
  if (!has(key)) return fallback;
  const bool fits =
      config_[key].is_number() && std::isfinite(config_[key].get<double>()) && config_[key].get<double>() > 0.0;
  if (fits) return config_[key].get<double>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a number above 0");
  return fallback;
}

bool ConfigReader::flag_or(const char* key, bool fallback) {
  if (!has(key)) return fallback;
  if (config_[key].is_boolean()) return config_[key].get<bool>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected true or false");
  return fallback;
}

std::string ConfigReader::text_or(const char* key, const std::string& fallback) {
  if (!has(key)) return fallback;
  if (config_[key].is_string()) return config_[key].get<std::string>();
  wrong(std::string(key) + " is " + value_text(key) + ", expected a text");
  return fallback;
}

void ConfigReader::finish() const {
  if (!wrong_.empty()) throw Error(ErrorCode::BadFormat, "'" + path_ + "' cannot be right: " + joined(wrong_) + ".");
  if (!not_understood_.empty())
    throw Error(ErrorCode::Unsupported,
                "'" + path_ + "' asks for what this program does not compute: " + joined(not_understood_) +
                    ". Running it without would give wrong numbers, so it is refused.");
}

}  // namespace qs
