#include "backend/model/linear_codes.h"

#include <ATen/ATen.h>

#include <atomic>

#include "backend/model/decoder.h"
#include "backend/types/error.h"

namespace qs {
namespace {

std::atomic<PackedLinearFactory> g_factory = nullptr;

}  // namespace

bool LinearCodes::symmetric() const { return zero_point.eq(std::int64_t{1} << (bits - 1)).all().item<bool>(); }

bool LinearCodes::groups_are_runs() const {
  return at::equal(group_index.to(at::kLong), at::floor_divide(at::arange(in_features(), at::kLong), group_size));
}

at::Tensor LinearCodes::values() const {
  const at::Tensor group = group_index.to(at::kLong);
  return codes.to(at::kFloat)
      .sub_(zero_point.to(at::kFloat).index_select(1, group))
      .mul_(scale.to(at::kFloat).index_select(1, group));
}

LinearCodes rows_of(const LinearCodes& codes, const std::vector<std::int64_t>& rows) {
  const at::Tensor index = at::tensor(rows, at::kLong);
  LinearCodes part = codes;
  if (codes.codes.defined()) part.codes = codes.codes.index_select(0, index);
  part.scale = codes.scale.index_select(0, index);
  part.zero_point = codes.zero_point.index_select(0, index);
  return part;
}

void set_packed_linear_factory(PackedLinearFactory factory) { g_factory = factory; }

std::shared_ptr<const LinearOp> make_packed_linear(const LinearCodes& codes, const at::Tensor& bias) {
  const PackedLinearFactory factory = g_factory;
  if (!factory)
    throw Error(ErrorCode::Internal, "This program was put together without what computes from quantized weights.");
  return factory(codes, bias);
}

}  // namespace qs
