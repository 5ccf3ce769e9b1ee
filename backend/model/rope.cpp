#include "backend/model/rope.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "backend/model/decoder.h"
#include "backend/types/error.h"

namespace qs {

RopeTable rope_table(const std::vector<std::int64_t>& positions, std::int64_t head_dim, const RopeSpec& rope) {
  const auto tokens = static_cast<std::int64_t>(positions.size());
  const std::int64_t half = head_dim / 2;
  RopeTable table{at::empty({tokens, 1, half}, at::kFloat), at::empty({tokens, 1, half}, at::kFloat)};
  float* cosine = table.cosine.data_ptr<float>();
  float* sine = table.sine.data_ptr<float>();
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    for (std::int64_t token = 0; token < tokens; ++token) {
      const double angle = static_cast<double>(positions[static_cast<std::size_t>(token)]) * frequency;
      cosine[token * half + i] = static_cast<float>(std::cos(angle));
      sine[token * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

at::Tensor rotate(const at::Tensor& x, const RopeTable& table) {
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor first = wide.narrow(-1, 0, half);
  const at::Tensor second = wide.narrow(-1, half, half);
  return at::cat({first * table.cosine - second * table.sine, second * table.cosine + first * table.sine}, -1)
      .to(x.scalar_type());
}

at::Tensor apply_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope) {
  if (x.dim() != 3 || x.size(2) % 2 != 0)
    throw Error(ErrorCode::InvalidArgument, "Rotary embedding needs [heads, tokens, head_dim] with an even head_dim.");
  std::vector<std::int64_t> positions(static_cast<std::size_t>(x.size(1)));
  std::iota(positions.begin(), positions.end(), first_position);
  return rotate(x.transpose(0, 1), rope_table(positions, x.size(2), rope)).transpose(0, 1).contiguous();
}

}  // namespace qs
