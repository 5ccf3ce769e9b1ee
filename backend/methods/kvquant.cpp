#include "backend/methods/kvquant.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "backend/methods/kv_params.h"
#include "backend/methods/kvquant_cache.h"
#include "backend/methods/nuq.h"
#include "backend/methods/nuq_matrix.h"
#include "backend/types/error.h"

namespace qs {
namespace {

std::vector<float> to_floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

std::vector<float> floats_of(const at::Tensor& t) {
  const at::Tensor flat = t.to(at::kFloat).contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

at::Tensor row_of(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorCode::InvalidArgument, "kvquant: " + why); }

/// Codes of normalised elements: the nearest level, the smaller code on ties (N2).
at::Tensor nearest_levels(const at::Tensor& y, const std::vector<float>& levels) {
  at::Tensor best = at::full_like(y, std::numeric_limits<double>::infinity());
  at::Tensor codes = at::zeros(y.sizes(), at::kByte);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const at::Tensor distance = (y - levels[i]).abs();
    const at::Tensor nearer = distance < best;
    best = at::where(nearer, distance, best);
    codes.masked_fill_(nearer, static_cast<int>(i));
  }
  return codes;
}

}  // namespace

KvquantSettings KvquantSettings::from(const ParamSet& params) {
  KvquantSettings s;
  s.bits = int_param(params, "bits");
  const std::string& datatype = word_param(params, "datatype");
  s.datatype = datatype == "nf"    ? NuqDatatype::NormalFloat
               : datatype == "int" ? NuqDatatype::Uniform
                                   : NuqDatatype::Nuq;
  s.outliers = std::get<double>(params.at("outliers"));
  s.first_tokens = std::max(0, int_param(params, "first_few_fp16"));
  const std::string& norm = word_param(params, "q_norm");
  s.q_norm = norm == "on" || (norm == "auto" && s.bits == 2 && s.datatype == NuqDatatype::Nuq);
  s.cap_per_side = int_param(params, "cap_per_side");
  s.fisher_scale = std::get<bool>(params.at("fisher_scale"));
  s.integer_zero = std::get<bool>(params.at("integer_zero"));
  s.store = store_param(params);
  if (s.integer_zero && s.datatype != NuqDatatype::Uniform)
    refuse("'integer_zero' belongs to datatype=int; this setup has datatype=" + datatype + ".");
  if (s.q_norm && s.datatype == NuqDatatype::Uniform)
    refuse("'q_norm' moves the levels of a table; datatype=int has none. Set q_norm=off.");
  if (s.cap_per_side != 0 && s.outliers == 0.0)
    refuse("'cap_per_side' limits outliers, and outliers=0 leaves none; leave it out.");
  return s;
}

std::int64_t KvquantSettings::cap(std::int64_t channels) const {
  if (cap_per_side >= 0) return cap_per_side;
  return static_cast<std::int64_t>(std::ceil(0.0051 * static_cast<double>(channels)));
}

std::int64_t KvquantSettings::value_outliers_per_side(std::int64_t channels) const {
  return static_cast<std::int64_t>(std::ceil(outliers * static_cast<double>(channels))) + 2;
}

void NuqCoding::set_thresholds() {
  const at::Tensor l = row_of(lower), u = row_of(upper);
  if (!at::isfinite(l).all().item<bool>() || !at::isfinite(u).all().item<bool>() || !u.ge(l).all().item<bool>())
    refuse("the key thresholds of a calibration must be finite, the upper one not below the lower. Calibrate again.");
  middle = floats_of((u + l).to(at::kHalf).to(at::kFloat) / 2.0);
  half = floats_of((u - l).to(at::kHalf).to(at::kFloat) / 2.0);
  for (std::size_t d = 0; d < half.size(); ++d) {
    if (!std::isfinite(middle[d]) || !std::isfinite(half[d]))
      refuse("the key thresholds of channel " + std::to_string(d) + " are too far apart for 16-bit floats.");
  }
}

std::uint8_t NuqCoding::zero_code() const {
  std::size_t nearest = 0;
  for (std::size_t i = 1; i < levels.size(); ++i) {
    if (std::fabs(levels[i]) < std::fabs(levels[nearest])) nearest = i;
  }
  return static_cast<std::uint8_t>(nearest);
}

Kvquant::Kvquant(const ParamSet& params, const KvLayerArtifact* artifact)
    : settings_(KvquantSettings::from(params)), key_outlier_share_(settings_.outliers) {
  if (artifact != nullptr) read_artifact(*artifact);
}

void Kvquant::read_artifact(const KvLayerArtifact& artifact) {
  const auto find = [&](const std::string& name) {
    const auto found = artifact.find(name);
    return found == artifact.end() ? at::Tensor() : found->second;
  };
  const auto coding = [&](const std::string& side) -> std::optional<NuqCoding> {
    NuqCoding result;
    if (settings_.datatype == NuqDatatype::NormalFloat) {
      result.levels = to_floats(normal_float_levels(settings_.bits));
    } else if (settings_.datatype == NuqDatatype::Uniform) {
      result.levels = to_floats(uniform_levels(settings_.bits));
    } else if (const at::Tensor levels = find(side + "_levels"); levels.defined()) {
      result.levels = floats_of(levels);
      if (result.levels.size() != std::size_t{1} << settings_.bits) {
        refuse("the calibration has " + std::to_string(result.levels.size()) +
               " levels, bits=" + std::to_string(settings_.bits) + " needs " + std::to_string(1 << settings_.bits) +
               ". Calibrate for this setup.");
      }
    } else {
      return std::nullopt;
    }
    float gamma = 1.0f, delta = 0.0f;
    if (const at::Tensor norm = find(side + "_norm"); settings_.q_norm && norm.defined()) {
      const std::vector<float> pair = floats_of(norm);
      if (pair.size() != 2) refuse("'" + side + "_norm' of the calibration must have 2 numbers.");
      gamma = pair[0];
      delta = pair[1];
    }
    for (std::size_t i = 0; i < result.levels.size(); ++i) {
      if (!std::isfinite(result.levels[i]) || (i > 0 && result.levels[i] < result.levels[i - 1]))
        refuse("the levels of the calibration must be finite and ascending. Calibrate again.");
      const float scaled = result.levels[i] * gamma;
      result.table.push_back(scaled + delta);
    }
    return result;
  };
  if (const at::Tensor made_for = find("outliers"); made_for.defined()) {
    const double share = made_for.to(at::kDouble).item<double>();
    if (std::fabs(share - settings_.outliers) > 1e-9) {
      refuse("the calibration was made for outliers=" + format_value(share) +
             ", this setup has outliers=" + format_value(settings_.outliers) + ". Calibrate for this setup.");
    }
  }
  if (const at::Tensor share = find("key_outlier_share"); share.defined())
    key_outlier_share_ = share.to(at::kDouble).item<double>();
  values_ = coding("value");
  const at::Tensor lower = find("key_lower"), upper = find("key_upper");
  if (!lower.defined() || !upper.defined()) return;
  keys_ = coding("key");
  if (!keys_) return;
  keys_->lower = floats_of(lower.to(at::kHalf));
  keys_->upper = floats_of(upper.to(at::kHalf));
  if (keys_->lower.size() != keys_->upper.size()) refuse("the calibration has as many upper as lower thresholds.");
  keys_->set_thresholds();
}

const NuqCoding& Kvquant::coding(KvRole role) const {
  const std::optional<NuqCoding>& side = role == KvRole::Key ? keys_ : values_;
  if (side) return *side;
  throw Error(ErrorCode::InvalidArgument,
              std::string("kvquant needs a calibration for its ") + role_name(role) +
                  "s: thresholds and levels come from sample text. Run `quantoscope-cli calibrate` for this model and "
                  "setup first.");
}

QuantizedTensor Kvquant::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  job.checkpoint(0, 1, "KVQuant");
  const NuqCoding& coding = this->coding(role);
  const std::int64_t kv_heads = x.size(0), tokens = x.size(1), channels = kv_heads * x.size(2);
  if (role == KvRole::Key) check_channels({.heads = kv_heads, .kv_heads = kv_heads, .head_dim = x.size(2)});
  const at::Tensor held = as_stored(x, GroupStore::F16).transpose(0, 1).reshape({tokens, channels});
  if (tokens == 0) return {.values = x.clone(), .codes = at::zeros(x.sizes(), at::kByte)};
  TokenMatrix m = role == KvRole::Key ? key_matrix(held, coding, settings_) : value_matrix(held, settings_);
  m.outlier.narrow(0, 0, std::min(settings_.first_tokens, tokens)).fill_(true);

  at::Tensor codes;
  if (settings_.datatype == NuqDatatype::Uniform) {
    const double last = static_cast<double>((1 << settings_.bits) - 1);
    const at::Tensor lowest = m.middle - m.half;
    const at::Tensor per_unit = at::full_like(m.half, last) / (m.half * 2.0);
    at::Tensor offset = lowest * per_unit;
    if (settings_.integer_zero && role == KvRole::Value) {
      offset = at::where(m.half == 0.0, at::zeros_like(offset), at::round(offset).clamp(-last, 0.0));
      m.middle = at::where(m.half == 0.0, m.middle, offset / per_unit + m.half);
    }
    const at::Tensor steps = at::round(per_unit * m.x - offset).clamp(0.0, last);
    codes = at::where(m.half == 0.0, at::zeros_like(steps), steps).to(at::kByte);
  } else {
    codes = nearest_levels(m.normalised(), coding.levels);
  }
  if (role == KvRole::Value) {
    m.middle = as_stored(m.middle, settings_.store);
    m.half = as_stored(m.half, settings_.store);
  }
  const at::Tensor level = row_of(coding.table).index_select(0, codes.view({-1}).to(at::kLong)).view(codes.sizes());
  const at::Tensor values = at::where(m.outlier, m.x, level * m.half + m.middle);

  const auto by_head = [&](const at::Tensor& t) {
    return t.reshape({tokens, kv_heads, x.size(2)}).transpose(0, 1).contiguous();
  };
  return {.values = by_head(values).to(x.scalar_type()),
          .codes = by_head(codes.masked_fill(m.outlier, 255)),
          .scale = m.half.reshape({-1}),
          .group_min = m.middle.reshape({-1}),
          .levels = std::int64_t{1} << settings_.bits,
          .full_precision = by_head(m.outlier)};
}

TokenRange Kvquant::seen_by_query(KvRole role, std::int64_t position) const {
  return after_prefill(role, position + 1);
}

TokenRange Kvquant::after_prefill(KvRole, std::int64_t tokens) const {
  return {std::min(settings_.first_tokens, tokens), tokens};
}

at::Tensor Kvquant::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, GroupStore::F16).to(x.scalar_type());
}

ScaleGroups Kvquant::scale_groups(KvRole role, const CacheShape& shape) const {
  if (role == KvRole::Value) return {.tokens = 1, .starts = {0}, .order = {}};
  return {.tokens = 0, .starts = even_starts(shape.kv_heads * shape.head_dim, 1), .order = {}};
}

std::unique_ptr<KvCache> Kvquant::make_cache(const CacheShape& shape) const {
  check_fits(shape);
  return make_kvquant_cache(*this, shape);
}

double Kvquant::role_bits(KvRole role, std::int64_t channels, std::int64_t tokens, double outlier_share) const {
  if (tokens <= 0) return 0.0;
  const double all = static_cast<double>(tokens);
  const double coded = static_cast<double>(after_prefill(role, tokens).size());
  const double pointer = settings_.outliers > 0.0 ? 32.0 : 0.0;
  const double normalisation = role == KvRole::Value ? (settings_.store == GroupStore::F16 ? 32.0 : 64.0) : 0.0;
  const double element =
      settings_.bits + 32.0 * outlier_share + (pointer + normalisation) / static_cast<double>(channels);
  return (coded * element + (all - coded) * 16.0) / all;
}

double Kvquant::outlier_share(KvRole role, std::int64_t channels) const {
  if (settings_.outliers == 0.0) return 0.0;
  if (role == KvRole::Key) return key_outlier_share_;
  const double last = static_cast<double>(channels - 1);
  const double above = static_cast<double>(channels) - std::ceil(settings_.upper_fraction() * last);
  const double below = std::floor((1.0 - settings_.upper_fraction()) * last) + 1.0;
  return (above + below) / static_cast<double>(channels);
}

double Kvquant::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  return (role_bits(KvRole::Key, channels, tokens, outlier_share(KvRole::Key, channels)) +
          role_bits(KvRole::Value, channels, tokens, outlier_share(KvRole::Value, channels))) /
         2.0;
}

void Kvquant::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  check_packed_head_dim("kvquant", shape);
  check_channels(shape);
}

void Kvquant::check_channels(const CacheShape& shape) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (keys_ && static_cast<std::int64_t>(keys_->lower.size()) != channels) {
    refuse("the calibration has thresholds of " + std::to_string(keys_->lower.size()) +
           " key channels, this cache has " + std::to_string(channels) + " (" + std::to_string(shape.kv_heads) +
           " KV heads of " + std::to_string(shape.head_dim) + "). It was made on another model; calibrate again.");
  }
  if (channels > 65536)
    refuse("outliers are indexed with 16 bits, so a token may have 65536 channels, found " + std::to_string(channels) +
           ".");
}

double kvquant_published_bits(KvRole role, int bits, double outlier_share, double channels, double tokens) {
  const double shared = role == KvRole::Key ? 32.0 / tokens : 32.0 / channels;
  return bits + 32.0 * outlier_share + 32.0 / channels + shared;
}

}  // namespace qs
