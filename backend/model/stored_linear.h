#pragma once

#include <memory>
#include <vector>

#include "backend/formats/tensor_table.h"
#include "backend/model/decoder.h"

namespace qs {

/// Some rows of a checkpoint's tensor, in an order of their own, left where they are mapped and in their stored type.
/// What is not touched takes no memory, and what was touched is the operating system's to drop again, so a model may be
/// larger than memory.
class StoredRows {
 public:
  /// @param table   keeps the bytes alive; `tensor` lies in it, seen as [rows, columns of its last extent]
  /// @param rows    indices of stored rows; empty: all
  StoredRows(std::shared_ptr<const TensorTable> table, const StoredTensor& tensor,
             const std::vector<std::int64_t>& rows);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t bytes() const { return bytes_; }
  StoredType type() const { return tensor_.type; }
  const std::string& name() const { return tensor_.name; }
  /// Rows [begin, end) as f32 [end - begin, columns].
  void decode(std::int64_t begin, std::int64_t end, float* out) const;
  /// All rows as they lie in the file, when they follow one another at a multiple of the element size; else null.
  const std::byte* contiguous() const;

 private:
  struct Run {
    std::int64_t begin = 0, stored = 0, count = 0;  ///< our rows [begin, begin + count) are stored from `stored` on
  };
  std::shared_ptr<const TensorTable> table_;
  StoredTensor tensor_;
  std::int64_t rows_ = 0, columns_ = 0, bytes_ = 0;
  std::int64_t row_bytes_ = 0;  ///< where elements lie one by one
  std::vector<Run> runs_;
};

/// A linear layer, or an embedding, whose weight stays mapped. Products with one or a few tokens read the stored values
/// once; others decode some rows at a time into the type of the input.
class StoredLinear final : public LinearOp {
 public:
  /// @param bias  in the compute type, undefined when there is none
  explicit StoredLinear(StoredRows weight, at::Tensor bias = {}) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  at::Tensor rows(const at::Tensor& ids) const override;  ///< f32
  at::Tensor bias() const override { return bias_; }
  bool floating_point() const override { return true; }
  std::int64_t bytes() const override;
  std::int64_t in_features() const override { return weight_.columns(); }
  std::int64_t out_features() const override { return weight_.rows(); }
  const StoredRows& stored() const { return weight_; }

 private:
  at::Tensor view_as(at::ScalarType type) const;
  at::Tensor few_tokens(const at::Tensor& x) const;
  at::Tensor many_tokens(const at::Tensor& x) const;

  StoredRows weight_;
  at::Tensor bias_;
};

}  // namespace qs
