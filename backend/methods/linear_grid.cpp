#include "backend/methods/linear_grid.h"

#include <ATen/ATen.h>

#include "backend/methods/lut_linear.h"
#include "backend/methods/packed_linear.h"
#include "backend/methods/spqr_linear.h"
#include "kernels/float_formats.h"

namespace qs {
namespace {

TensorView view_of(const at::Tensor& tensor) {
  const at::Tensor held = tensor.to(at::kFloat).contiguous();
  return {std::make_shared<const at::Tensor>(held), held.data_ptr<float>(), held.sizes().vec()};
}

LinearGrid empty_grid(const LinearOp& linear, LinearGrid::Kind kind) {
  LinearGrid grid;
  grid.kind = kind;
  grid.out_features = linear.out_features();
  grid.in_features = linear.in_features();
  return grid;
}

LinearGrid grid_of(const PackedLinear& linear) {
  const LinearCodes codes = linear.linear_codes(false);
  LinearGrid grid = empty_grid(linear, LinearGrid::Kind::Affine);
  grid.bits = codes.bits;
  grid.groups = codes.groups();
  const at::Tensor group = codes.group_index.to(at::kInt).contiguous();
  grid.group_of.assign(group.data_ptr<std::int32_t>(), group.data_ptr<std::int32_t>() + group.numel());
  grid.scale = view_of(codes.scale);
  grid.zero_point = view_of(codes.zero_point);
  return grid;
}

LinearGrid grid_of(const SpqrLinear& linear) {
  LinearGrid grid = empty_grid(linear, LinearGrid::Kind::Affine);
  const at::Tensor scale = linear.scale().t();
  grid.bits = linear.bits();
  grid.groups = scale.size(1);
  grid.scale = view_of(scale);
  grid.zero_point = view_of(linear.zero_point().t().expand({grid.out_features, grid.groups}));
  const auto* const order = linear.order().defined() ? linear.order().data_ptr<std::int32_t>() : nullptr;
  const auto original = [&](std::int64_t place) { return order ? order[place] : place; };
  grid.group_of.resize(static_cast<std::size_t>(grid.in_features));
  for (std::int64_t place = 0; place < grid.in_features; ++place)
    grid.group_of[static_cast<std::size_t>(original(place))] = static_cast<std::int32_t>(place / linear.group_size());
  if (linear.outliers() == 0) return grid;
  at::Tensor kept = at::zeros({grid.out_features, grid.in_features}, at::kFloat);
  const auto* const rows = linear.outlier_rows().data_ptr<std::int32_t>();
  for (std::int64_t row = 0; row < grid.out_features; ++row) {
    for (std::int64_t k = rows[row]; k < rows[row + 1]; ++k)
      kept.data_ptr<float>()[row * grid.in_features + original(linear.outlier_column(k))] = 1.0F;
  }
  grid.kept = view_of(kept);
  return grid;
}

/// Alphas or offsets as the kernel reads them. @param extents  of its axes, the rows last
at::Tensor stored_scales(const void* values, kernels::DenseType type, at::IntArrayRef extents) {
  at::Tensor wide = at::empty(extents, at::kFloat);
  auto* const to = wide.data_ptr<float>();
  for (std::int64_t i = 0; i < wide.numel(); ++i) {
    const auto* const half = static_cast<const std::uint16_t*>(values);
    to[i] = type == kernels::DenseType::F32   ? static_cast<const float*>(values)[i]
            : type == kernels::DenseType::F16 ? kernels::f16_to_f32(half[i])
                                              : kernels::bf16_to_f32(half[i]);
  }
  return wide;
}

LinearGrid grid_of(const LutLinear& linear) {
  const kernels::BitPlaneWeight weight = linear.planes();
  LinearGrid grid = empty_grid(linear, LinearGrid::Kind::Binary);
  const std::int64_t rows = grid.out_features, columns = grid.in_features;
  grid.bits = weight.bits;
  grid.groups = columns / weight.group_size;
  for (std::int64_t j = 0; j < columns; ++j) grid.group_of.push_back(static_cast<std::int32_t>(j / weight.group_size));
  grid.alpha =
      view_of(stored_scales(weight.alpha, weight.scale_type, {grid.groups, weight.bits, rows}).permute({2, 0, 1}));
  if (weight.offset) grid.offset = view_of(stored_scales(weight.offset, weight.scale_type, {grid.groups, rows}).t());
  auto signs = std::make_shared<std::vector<std::uint8_t>>(static_cast<std::size_t>(rows * columns));
  for (std::int64_t j = 0; j < columns; ++j) {
    for (int plane = 0; plane < weight.bits; ++plane) {
      const std::uint32_t* const words = weight.planes + (j / 32 * weight.bits + plane) * rows;
      for (std::int64_t i = 0; i < rows; ++i)
        (*signs)[static_cast<std::size_t>(i * columns + j)] |=
            static_cast<std::uint8_t>((words[i] >> (j % 32) & 1U) << plane);
    }
  }
  grid.signs = std::move(signs);
  return grid;
}

}  // namespace

LinearGrid linear_grid(const LinearOp& linear) {
  if (const auto* packed = dynamic_cast<const PackedLinear*>(&linear)) return grid_of(*packed);
  if (const auto* spqr = dynamic_cast<const SpqrLinear*>(&linear)) return grid_of(*spqr);
  if (const auto* planes = dynamic_cast<const LutLinear*>(&linear)) return grid_of(*planes);
  return empty_grid(linear, LinearGrid::Kind::None);
}

}  // namespace qs
