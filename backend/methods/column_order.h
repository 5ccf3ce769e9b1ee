#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace qs {

/// In which order a sweep goes through the columns.
enum class ColumnOrder { Identity, ActOrder, Spearman };
ColumnOrder parse_column_order(const std::string& id);  ///< "identity", "act_order", "spearman"

/// Columns by descending diagonal of H; equal ones stay in order. @return int64 [in_features]
at::Tensor order_by_diagonal(const at::Tensor& hessian);

/// Neighbours alike (weights specification 6.4): from column 0 on, each column is followed by the one whose ranks over
/// the rows correlate most with its own. @param weight  [out_features, in_features]
at::Tensor order_by_rank_correlation(const at::Tensor& weight);

}  // namespace qs
