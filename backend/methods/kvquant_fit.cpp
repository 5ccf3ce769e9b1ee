#include "backend/methods/kvquant_fit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kBins = 4096;

at::Tensor tail(const at::Tensor& x, std::int64_t kept, bool largest) {
  return std::get<0>(at::topk(x, std::min(kept, x.size(0)), 0, largest, true));
}

/// @param sorted  ascending rows; the percentile lies between the first two
at::Tensor between(const at::Tensor& sorted, double fraction) {
  const at::Tensor low = sorted.select(0, 0).to(at::kDouble);
  const at::Tensor high = sorted.select(0, std::min<std::int64_t>(1, sorted.size(0) - 1)).to(at::kDouble);
  return (low + (high - low) * fraction).to(at::kHalf);
}

WeightedPlaces places(const std::vector<double>& weight, const std::vector<double>& first,
                      const std::vector<double>& second) {
  WeightedPlaces places;
  for (std::size_t bin = 0; bin < weight.size(); ++bin) {
    if (!(weight[bin] > 0.0)) continue;
    places.mean.push_back(first[bin] / weight[bin]);
    places.weight.push_back(weight[bin]);
    places.spread.push_back(std::max(0.0, second[bin] - first[bin] * first[bin] / weight[bin]));
  }
  return places;
}

double nearest(const std::vector<double>& levels, double y) {
  return *std::min_element(levels.begin(), levels.end(),
                           [y](double a, double b) { return std::fabs(y - a) < std::fabs(y - b); });
}

std::vector<float> floats_of(const at::Tensor& t) {
  const at::Tensor wide = t.to(at::kFloat).contiguous();
  return {wide.data_ptr<float>(), wide.data_ptr<float>() + wide.numel()};
}

at::Tensor squared(const at::Tensor& gradient) {
  if (!gradient.defined()) return {};
  return gradient.to(at::kFloat).square().transpose(0, 1).reshape({gradient.size(1), -1});
}

}  // namespace

at::Tensor calibration_matrix(const at::Tensor& x) {
  return as_stored(x.detach(), GroupStore::F16).transpose(0, 1).reshape({x.size(1), x.size(0) * x.size(2)});
}

KeyTails::KeyTails(std::int64_t tokens, double upper_fraction) {
  const double last = static_cast<double>(tokens - 1);
  upper_at_ = upper_fraction * last;
  lower_at_ = (1.0 - upper_fraction) * last;
  highest_kept_ = tokens - static_cast<std::int64_t>(std::floor(upper_at_));
  lowest_kept_ = std::min(tokens, static_cast<std::int64_t>(std::floor(lower_at_)) + 2);
}

void KeyTails::add(const at::Tensor& x) {
  highest_ = tail(highest_.defined() ? at::cat({highest_, x}) : x, highest_kept_, true);
  lowest_ = tail(lowest_.defined() ? at::cat({lowest_, x}) : x, lowest_kept_, false);
}

at::Tensor KeyTails::upper() const {
  return between(std::get<0>(at::sort(highest_, 0)), upper_at_ - std::floor(upper_at_));
}

at::Tensor KeyTails::lower() const {
  const at::Tensor sorted = std::get<0>(at::sort(lowest_, 0));
  const std::int64_t first = std::min(static_cast<std::int64_t>(std::floor(lower_at_)), sorted.size(0) - 1);
  return between(sorted.narrow(0, first, sorted.size(0) - first), lower_at_ - std::floor(lower_at_));
}

LevelFit::LevelFit() : weight_(kBins), first_(kBins), second_(kBins), count_(kBins), sum_(kBins), squares_(kBins) {}

void LevelFit::add(const TokenMatrix& m, const at::Tensor& fisher, const KvquantSettings& settings) {
  at::Tensor weight = fisher.defined() ? fisher.to(at::kFloat) : at::ones_like(m.x);
  if (settings.fisher_scale) weight = weight * m.half * m.half;
  const std::int64_t first = std::min(settings.first_tokens, m.x.size(0)), rest = m.x.size(0) - first;
  const auto kept = [&](const at::Tensor& t) { return t.narrow(0, first, rest).contiguous(); };
  const at::Tensor y = kept(m.normalised()), w = kept(weight), skip = kept(m.outlier);
  const float* const value = y.data_ptr<float>();
  const float* const weights = w.data_ptr<float>();
  const bool* const outlier = skip.data_ptr<bool>();
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    elements_ += 1.0;
    if (outlier[i]) {
      outliers_ += 1.0;
      continue;
    }
    const double x = value[i], importance = weights[i];
    const auto bin = static_cast<std::size_t>(std::clamp((x + 1.0) * (kBins / 2), 0.0, kBins - 1.0));
    weight_[bin] += importance;
    first_[bin] += importance * x;
    second_[bin] += importance * x * x;
    count_[bin] += 1.0;
    sum_[bin] += x;
    squares_[bin] += x * x;
  }
}

std::vector<double> LevelFit::levels(int bits) const {
  double total = 0.0;
  for (const double w : weight_) total += w;
  return weighted_kmeans(
             total > 0.0 && std::isfinite(total) ? places(weight_, first_, second_) : places(count_, sum_, squares_),
             1 << bits)
      .centroids;
}

at::Tensor LevelFit::norm(const std::vector<double>& levels) const {
  double n = 0.0, mean = 0.0, square = 0.0, level_mean = 0.0, level_square = 0.0;
  for (std::size_t bin = 0; bin < count_.size(); ++bin) {
    if (count_[bin] == 0.0) continue;
    const double level = nearest(levels, sum_[bin] / count_[bin]);
    n += count_[bin];
    mean += sum_[bin];
    square += squares_[bin];
    level_mean += count_[bin] * level;
    level_square += count_[bin] * level * level;
  }
  if (n == 0.0) return at::tensor(std::vector<float>{1.0f, 0.0f}, at::kFloat);
  mean /= n;
  level_mean /= n;
  const double deviation = std::sqrt(std::max(0.0, square / n - mean * mean));
  const double level_deviation = std::sqrt(std::max(0.0, level_square / n - level_mean * level_mean));
  const double gamma = level_deviation > 0.0 ? deviation / level_deviation : 1.0;
  return at::tensor(std::vector<double>{gamma, mean - level_mean * gamma}, at::kDouble).to(at::kFloat);
}

void LayerCalibration::fix_thresholds() {
  lower_ = tails_.lower();
  upper_ = tails_.upper();
  coding_.lower = floats_of(lower_);
  coding_.upper = floats_of(upper_);
  coding_.set_thresholds();
}

void LayerCalibration::fit(const at::Tensor& key, const at::Tensor& value, const at::Tensor& key_gradient,
                           const at::Tensor& value_gradient) {
  key_fit_.add(key_matrix(calibration_matrix(key), coding_, settings_), squared(key_gradient), settings_);
  value_fit_.add(value_matrix(calibration_matrix(value), settings_), squared(value_gradient), settings_);
}

KvLayerArtifact LayerCalibration::artifact() const {
  KvLayerArtifact result = {{"key_lower", lower_}, {"key_upper", upper_}};
  result["outliers"] = at::full({1}, settings_.outliers, at::kDouble);
  result["key_outlier_share"] = at::full({1}, key_fit_.outlier_share(), at::kDouble);
  const auto add = [&](const std::string& side, const LevelFit& fit) {
    if (settings_.datatype == NuqDatatype::Uniform) return;
    const bool fitted = settings_.datatype == NuqDatatype::Nuq;
    const std::vector<double> levels = fitted ? fit.levels(settings_.bits) : normal_float_levels(settings_.bits);
    if (fitted) result[side + "_levels"] = at::tensor(levels, at::kDouble).to(at::kFloat);
    result[side + "_norm"] = fit.norm(levels);
  };
  add("key", key_fit_);
  add("value", value_fit_);
  return result;
}

KvLayerArtifact calibrate_kvquant_layer(const KvPrompt& prompt, const ParamSet& params, std::uint64_t /*seed*/) {
  check_kv_tensor(prompt.key);
  check_kv_tensor(prompt.value);
  check_finite(prompt.key, KvRole::Key);
  check_finite(prompt.value, KvRole::Value);
  if (prompt.key.size(1) == 0)
    throw Error(ErrorCode::InvalidArgument, "kvquant cannot be calibrated on no tokens at all.");
  LayerCalibration layer(prompt.key.size(1), KvquantSettings::from(params));
  layer.add_keys(prompt.key);
  layer.fix_thresholds();
  layer.fit(prompt.key, prompt.value, {}, {});
  return layer.artifact();
}

}  // namespace qs
