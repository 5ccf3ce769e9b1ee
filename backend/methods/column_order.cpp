#include "backend/methods/column_order.h"

#include <ATen/ATen.h>

#include <utility>

#include "backend/types/error.h"

namespace qs {

ColumnOrder parse_column_order(const std::string& id) {
  if (id == "identity") return ColumnOrder::Identity;
  if (id == "act_order") return ColumnOrder::ActOrder;
  if (id == "spearman") return ColumnOrder::Spearman;
  throw Error(ErrorCode::InvalidArgument,
              "permutation_order must be identity, act_order or spearman; it is '" + id + "'.");
}

at::Tensor order_by_diagonal(const at::Tensor& hessian) {
  return at::argsort(at::diagonal(hessian).contiguous(), true, 0, true);
}

at::Tensor order_by_rank_correlation(const at::Tensor& weight) {
  const std::int64_t columns = weight.size(1);
  at::Tensor ranks = at::argsort(at::argsort(weight.to(at::kFloat), true, 0, false), true, 0, false).to(at::kFloat);
  ranks = ranks - ranks.mean(at::IntArrayRef{0}, true);
  ranks = ranks / ranks.norm(2, {0}, true);
  const at::Tensor correlation = at::mm(ranks.t(), ranks).contiguous();
  at::Tensor order = at::arange(columns, at::kLong);
  auto* const place = order.data_ptr<std::int64_t>();
  const float* const all = correlation.data_ptr<float>();
  for (std::int64_t i = 0; i + 2 < columns; ++i) {
    const float* const row = all + place[i] * columns;
    std::int64_t best = i + 1;
    for (std::int64_t k = i + 2; k < columns; ++k) {
      if (row[place[k]] > row[place[best]]) best = k;
    }
    std::swap(place[i + 1], place[best]);
  }
  return order;
}

}  // namespace qs
