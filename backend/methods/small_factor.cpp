#include "backend/methods/small_factor.h"

#include <ATen/ATen.h>

#include <Eigen/Core>
#include <algorithm>

#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMatrixMap = Eigen::Map<const Matrix>;

}  // namespace

SmallFactor::SmallFactor(const std::vector<at::Tensor>& tensors, GroupStore store) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& tensor : tensors) {
    shapes_.emplace_back(tensor.size(0), tensor.size(1));
    flat.push_back(tensor.reshape({-1}));
  }
  block_ = shapes_.front().first;
  const at::Tensor all = at::cat(flat);
  stored_ = all.to(store == GroupStore::F16 ? at::kHalf : at::kFloat).contiguous();
  if (!at::isfinite(stored_).all().item<bool>()) {
    throw Error(ErrorCode::InvalidArgument, "The small factor holds a value of " +
                                                std::to_string(all.abs().max().item<double>()) +
                                                ", which does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
}

std::int64_t SmallFactor::bytes() const { return stored_.defined() ? static_cast<std::int64_t>(stored_.nbytes()) : 0; }

const float* SmallFactor::widened(std::vector<float>& copy) const {
  if (stored_.scalar_type() == at::kFloat) return stored_.data_ptr<float>();
  copy.resize(static_cast<std::size_t>(stored_.numel()));
  kernels::kernel_set().f16_to_f32(reinterpret_cast<const std::uint16_t*>(stored_.data_ptr<at::Half>()), copy.data(),
                                   stored_.numel());
  return copy.data();
}

at::Tensor SmallFactor::matrix() const {
  at::Tensor rows = at::eye(block_, at::kFloat);
  for (std::int64_t row = 0; row < block_; ++row) from_coordinates(rows.data_ptr<float>() + row * block_, block_);
  return rows;
}

void SmallFactor::to_coordinates(const float* row, std::int64_t channels, float* out) const {
  std::vector<float> copy;
  const float* factor = widened(copy) + stored_.numel();
  Matrix now = ConstMatrixMap(row, 1, channels);
  for (auto shape = shapes_.rbegin(); shape != shapes_.rend(); ++shape) {
    const auto [left, wide] = *shape;
    factor -= left * wide;
    const Matrix next =
        ConstMatrixMap(now.data(), now.size() / wide, wide) * ConstMatrixMap(factor, left, wide).transpose();
    now = next;
  }
  std::copy_n(now.data(), channels, out);
}

void SmallFactor::from_coordinates(float* row, std::int64_t channels) const {
  std::vector<float> copy;
  const float* factor = widened(copy);
  Matrix now = ConstMatrixMap(row, 1, channels);
  for (const auto& [left, wide] : shapes_) {
    const Matrix next = ConstMatrixMap(now.data(), now.size() / left, left) * ConstMatrixMap(factor, left, wide);
    now = next;
    factor += left * wide;
  }
  std::copy_n(now.data(), channels, row);
}

}  // namespace qs
