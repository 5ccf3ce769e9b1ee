#include "backend/methods/mpo.h"

#include <ATen/ATen.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "backend/types/error.h"

namespace qs {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixMap = Eigen::Map<Matrix>;
using ConstMatrixMap = Eigen::Map<const Matrix>;

constexpr double kSmallest = 1e-6;  // of the largest singular value

std::int64_t product(const std::vector<std::int64_t>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::int64_t{1}, std::multiplies<>());
}

at::Tensor as_tensor(const Matrix& matrix) {
  at::Tensor tensor = at::empty({matrix.rows(), matrix.cols()}, at::kDouble);
  MatrixMap(tensor.data_ptr<double>(), matrix.rows(), matrix.cols()) = matrix;
  return tensor;
}

ConstMatrixMap as_matrix(const at::Tensor& tensor, std::int64_t rows, std::int64_t columns) {
  return {tensor.data_ptr<double>(), rows, columns};
}

/// Square roots of a spectrum and their inverses; 0 for components that are dropped.
struct Gauge {
  explicit Gauge(const Eigen::VectorXd& spectrum) : root(spectrum.size()), inverse(spectrum.size()) {
    const double limit = spectrum.size() > 0 ? kSmallest * spectrum.maxCoeff() : 0.0;
    for (Eigen::Index i = 0; i < spectrum.size(); ++i) {
      const bool kept = spectrum[i] > 0.0 && spectrum[i] >= limit;
      root[i] = kept ? std::sqrt(spectrum[i]) : 0.0;
      inverse[i] = kept ? 1.0 / root[i] : 0.0;
    }
  }
  Eigen::VectorXd root, inverse;
};

/// One step of the sweep: remainder [left * size, rest] = U S V^T.
struct Step {
  Matrix left;       ///< U
  Matrix remainder;  ///< S V^T
  Eigen::VectorXd spectrum;
};

Step sweep_step(const at::Tensor& remainder, std::int64_t rows, std::int64_t columns) {
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(as_matrix(remainder, rows, columns),
                                           Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {svd.matrixU(), svd.singularValues().asDiagonal() * svd.matrixV().transpose(), svd.singularValues()};
}

}  // namespace

Mpo mpo_decompose(const at::Tensor& x, const std::vector<std::int64_t>& rows,
                  const std::vector<std::int64_t>& columns) {
  const auto count = static_cast<std::int64_t>(rows.size());
  if (rows.empty() || rows.size() != columns.size() || x.dim() != 2 || x.size(0) != product(rows) ||
      x.size(1) != product(columns)) {
    throw Error(ErrorCode::InvalidArgument,
                "An MPO needs as many row extents as column extents, whose products are the matrix.");
  }
  std::vector<std::int64_t> shape(rows), order;
  shape.insert(shape.end(), columns.begin(), columns.end());
  for (std::int64_t k = 0; k < count; ++k) order.insert(order.end(), {k, count + k});
  at::Tensor remainder = x.to(at::kDouble).reshape(shape).permute(order).contiguous();

  Mpo mpo;
  std::int64_t left = 1, rest = remainder.numel();
  Eigen::VectorXd inverse = Eigen::VectorXd::Ones(1);
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t i = rows[static_cast<std::size_t>(k)], j = columns[static_cast<std::size_t>(k)];
    rest /= i * j;
    const auto scaled = [&](const at::Tensor& factor) {
      const at::Tensor gauge = at::from_blob(inverse.data(), {left, 1}, at::kDouble);
      return factor.reshape({left, -1}) * gauge;
    };
    if (k + 1 == count) {
      mpo.factors.push_back(scaled(remainder).reshape({left, i, j, 1}));
      break;
    }
    const Step step = sweep_step(remainder, left * i * j, rest);
    const Gauge gauge(step.spectrum);
    const Matrix balanced = step.left * gauge.root.asDiagonal();
    const std::int64_t right = step.spectrum.size();
    mpo.factors.push_back(scaled(as_tensor(balanced)).reshape({left, i, j, right}));
    mpo.spectra.push_back(as_tensor(Matrix(step.spectrum)).reshape({right}));
    remainder = as_tensor(step.remainder);
    inverse = gauge.inverse;
    left = right;
  }
  return mpo;
}

at::Tensor mpo_contract(const Mpo& mpo) {
  std::vector<std::int64_t> shape, order;
  at::Tensor product = at::ones({1, 1}, at::kDouble);
  for (const at::Tensor& factor : mpo.factors) {
    product = at::matmul(product.reshape({-1, factor.size(0)}), factor.reshape({factor.size(0), -1}));
    shape.insert(shape.end(), {factor.size(1), factor.size(2)});
  }
  const auto count = static_cast<std::int64_t>(mpo.factors.size());
  for (std::int64_t k = 0; k < count; ++k) order.push_back(2 * k);
  for (std::int64_t k = 0; k < count; ++k) order.push_back(2 * k + 1);
  std::int64_t rows = 1;
  for (const at::Tensor& factor : mpo.factors) rows *= factor.size(1);
  return product.reshape(shape).permute(order).reshape({rows, -1}).contiguous();
}

TwoFactors two_factors(const at::Tensor& m) {
  const at::Tensor x = m.to(at::kFloat).contiguous();
  const std::int64_t rows = x.size(0), columns = x.size(1);
  constexpr std::int64_t kRows = 4096;  // widened at a time
  const auto block = [&](std::int64_t begin) -> Matrix {
    const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> part(
        x.data_ptr<float>() + begin * columns, std::min(kRows, rows - begin), columns);
    return part.cast<double>();
  };
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(columns, columns);
  for (std::int64_t begin = 0; begin < rows; begin += kRows) {
    const Matrix part = block(begin);
    gram.noalias() += part.transpose() * part;
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(gram);
  // Ascending order becomes descending; what rounding made negative is 0.
  const Eigen::MatrixXd basis = solver.eigenvectors().rowwise().reverse();
  Eigen::VectorXd singular = solver.eigenvalues().reverse().cwiseMax(0.0).cwiseSqrt();
  for (std::int64_t i = rows; i < columns; ++i) singular[i] = 0.0;
  const Gauge gauge(singular);

  TwoFactors result;
  result.large = at::empty({rows, columns}, at::kFloat);
  const Matrix projection = basis * gauge.inverse.asDiagonal();
  for (std::int64_t begin = 0; begin < rows; begin += kRows) {
    const Matrix part = block(begin) * projection;
    Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
        result.large.data_ptr<float>() + begin * columns, part.rows(), columns) = part.cast<float>();
  }
  result.small = as_tensor(Matrix(gauge.root.asDiagonal() * basis.transpose()));
  result.singular = as_tensor(Matrix(singular)).reshape({columns});
  return result;
}

std::vector<at::Tensor> split_small_factor(const TwoFactors& factors, const std::vector<std::int64_t>& widths) {
  const std::int64_t columns = factors.small.size(1);
  if (product(widths) != columns) {
    throw Error(ErrorCode::InvalidArgument,
                "The widths of the small tensors must multiply to " + std::to_string(columns) + ".");
  }
  // The remainder of the sweep carries the whole spectrum on its left; its own left gauge comes last.
  const Eigen::VectorXd spectrum = as_matrix(factors.singular, columns, 1);
  Eigen::VectorXd inverse = Gauge(spectrum).inverse;
  at::Tensor remainder =
      as_tensor(Matrix(Gauge(spectrum).root.asDiagonal() * as_matrix(factors.small, columns, columns)));
  std::vector<at::Tensor> tensors;
  std::int64_t left = columns, rest = columns;
  for (std::size_t k = 0; k < widths.size(); ++k) {
    rest /= widths[k];
    const at::Tensor gauge = at::from_blob(inverse.data(), {left, 1}, at::kDouble);
    if (k + 1 == widths.size()) {
      tensors.push_back(remainder.reshape({left, -1}) * gauge);
      break;
    }
    const Step step = sweep_step(remainder, left * widths[k], rest);
    const Gauge next(step.spectrum);
    tensors.push_back(as_tensor(Matrix(step.left * next.root.asDiagonal())).reshape({left, -1}) * gauge);
    remainder = as_tensor(step.remainder);
    left = step.spectrum.size();
    inverse = next.inverse;
  }
  return tensors;
}

}  // namespace qs
