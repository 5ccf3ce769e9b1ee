#include "backend/model/rope.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "backend/types/error.h"

namespace qs {
namespace {

double attention_factor(const RopeSpec& rope) {
  return rope.scaling == RopeScaling::Yarn || rope.scaling == RopeScaling::LongRope ? rope.attention_factor : 1.0;
}

/// NTK-aware base of a text that is longer than the original context.
double dynamic_theta(const RopeSpec& rope, double rotary_dim, std::int64_t length) {
  const double ratio = static_cast<double>(std::max(length, rope.original_context)) /
                       static_cast<double>(std::max<std::int64_t>(1, rope.original_context));
  const double stretch = rope.factor * ratio - (rope.factor - 1.0);
  return rope.theta * std::pow(stretch, rotary_dim / (rotary_dim - 2.0));
}

/// Wavelengths that fit the original context often keep their frequency, rare ones are interpolated (Llama 3.1).
double llama3_frequency(const RopeSpec& rope, double frequency) {
  const double turns = static_cast<double>(rope.original_context) * frequency / (2.0 * std::numbers::pi);
  if (turns > rope.high_freq_factor) return frequency;
  if (turns < rope.low_freq_factor) return frequency / rope.factor;
  const double smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

/// Share of interpolation of each pair: 0 below the channel that turns beta_fast times, 1 above beta_slow (YaRN).
std::vector<double> yarn_ramp(const RopeSpec& rope, std::int64_t rotary_dim) {
  const auto channel = [&](double turns) {
    return static_cast<double>(rotary_dim) *
           std::log(static_cast<double>(rope.original_context) / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = channel(rope.beta_fast), high = channel(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotary_dim - 1));
  if (low == high) high += 0.001;
  std::vector<double> ramp;
  for (std::int64_t i = 0; i < rotary_dim / 2; ++i)
    ramp.push_back(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
  return ramp;
}

at::Tensor rotate_heads(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope, std::int64_t length,
                        bool back) {
  if (x.dim() != 3 || x.size(2) % 2 != 0)
    throw Error(ErrorCode::InvalidArgument, "Rotary embedding needs [heads, tokens, head_dim] with an even head_dim.");
  std::vector<std::int64_t> positions(static_cast<std::size_t>(x.size(1)));
  std::iota(positions.begin(), positions.end(), first_position);
  RopeTable table = rope_table(positions, x.size(2), rope, length);
  if (back) {
    const double square = attention_factor(rope) * attention_factor(rope);
    table.cosine = table.cosine / square;
    table.sine = table.sine / -square;
  }
  return rotate(x.transpose(0, 1), table).transpose(0, 1).contiguous();
}

}  // namespace

std::vector<double> rope_frequencies(std::int64_t head_dim, const RopeSpec& rope, std::int64_t length) {
  const std::int64_t rotary_dim = rope.rotary_dim > 0 ? rope.rotary_dim : head_dim;
  const std::int64_t half = rotary_dim / 2;
  std::vector<double> frequencies(static_cast<std::size_t>(half), 0.0);
  if (!rope.rotates()) return frequencies;
  const auto width = static_cast<double>(rotary_dim);
  const double theta =
      rope.scaling == RopeScaling::Dynamic && half > 1 ? dynamic_theta(rope, width, length) : rope.theta;
  const std::vector<double> ramp =
      rope.scaling == RopeScaling::Yarn ? yarn_ramp(rope, rotary_dim) : std::vector<double>();
  const std::vector<double>& factors = length > rope.original_context ? rope.long_factor : rope.short_factor;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / width);
    if (rope.scaling == RopeScaling::Linear) frequency /= rope.factor;
    if (rope.scaling == RopeScaling::Llama3) frequency = llama3_frequency(rope, frequency);
    if (rope.scaling == RopeScaling::Yarn) frequency *= ramp[i] / rope.factor + 1.0 - ramp[i];
    if (rope.scaling == RopeScaling::LongRope) frequency /= factors.at(i);
    frequencies[i] = frequency;
  }
  return frequencies;
}

RopeTable rope_table(const std::vector<std::int64_t>& positions, std::int64_t head_dim, const RopeSpec& rope,
                     std::int64_t length) {
  const auto tokens = static_cast<std::int64_t>(positions.size());
  if (length == 0 && tokens > 0) length = *std::max_element(positions.begin(), positions.end()) + 1;
  const std::vector<double> frequencies = rope_frequencies(head_dim, rope, length);
  const auto half = static_cast<std::int64_t>(frequencies.size());
  const double amplitude = attention_factor(rope);
  RopeTable table{at::empty({tokens, 1, half}, at::kFloat), at::empty({tokens, 1, half}, at::kFloat)};
  float* cosine = table.cosine.data_ptr<float>();
  float* sine = table.sine.data_ptr<float>();
  for (std::int64_t i = 0; i < half; ++i) {
    for (std::int64_t token = 0; token < tokens; ++token) {
      const double angle =
          static_cast<double>(positions[static_cast<std::size_t>(token)]) * frequencies[static_cast<std::size_t>(i)];
      cosine[token * half + i] = static_cast<float>(amplitude * std::cos(angle));
      sine[token * half + i] = static_cast<float>(amplitude * std::sin(angle));
    }
  }
  return table;
}

at::Tensor rotate(const at::Tensor& x, const RopeTable& table) {
  const std::int64_t half = table.cosine.size(-1), rest = x.size(-1) - 2 * half;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor first = wide.narrow(-1, 0, half);
  const at::Tensor second = wide.narrow(-1, half, half);
  std::vector<at::Tensor> parts = {first * table.cosine - second * table.sine,
                                   second * table.cosine + first * table.sine};
  if (rest > 0) parts.push_back(wide.narrow(-1, 2 * half, rest));
  return at::cat(parts, -1).to(x.scalar_type());
}

at::Tensor apply_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope, std::int64_t length) {
  return rope.rotates() ? rotate_heads(x, first_position, rope, length, false) : x;
}

at::Tensor undo_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope, std::int64_t length) {
  const at::Tensor wide = x.to(at::kFloat);
  return rope.rotates() ? rotate_heads(wide, first_position, rope, length, true) : wide;
}

RopeTables rope_tables(const ArchitectureSpec& spec, const RaggedBatch& batch) {
  RopeTables tables;
  if (spec.position != PositionKind::Rope) return tables;
  const auto make = [&](const RopeSpec& rope) {
    std::vector<at::Tensor> cosines, sines;
    std::vector<std::int64_t> positions;
    for (const SequenceSpan& sequence : batch.sequences) {
      if (rope.depends_on_length()) positions.clear();
      for (std::int64_t i = 0; i < sequence.length; ++i) positions.push_back(sequence.first_position + i);
      if (!rope.depends_on_length()) continue;
      const RopeTable table = rope_table(positions, spec.head_dim, rope);
      cosines.push_back(table.cosine);
      sines.push_back(table.sine);
    }
    if (rope.depends_on_length()) return RopeTable{at::cat(cosines, 0), at::cat(sines, 0)};
    return rope_table(positions, spec.head_dim, rope);
  };
  tables.all = make(spec.rope);
  if (spec.sliding_rope) tables.sliding = make(*spec.sliding_rope);
  return tables;
}

}  // namespace qs
