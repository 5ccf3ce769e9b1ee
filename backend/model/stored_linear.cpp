#include "backend/model/stored_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "backend/model/matmul.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

/// Values that are decoded at once: small beside a model, large beside the cost of a product's call.
constexpr std::int64_t kChunkValues = std::int64_t{1} << 20;
/// Values that are worth a thread of their own.
constexpr std::int64_t kValuesPerThread = std::int64_t{1} << 16;

std::optional<at::ScalarType> torch_type(StoredType type) {
  switch (type) {
    case StoredType::F32:
      return at::kFloat;
    case StoredType::F16:
      return at::kHalf;
    case StoredType::BF16:
      return at::kBFloat16;
    default:
      return std::nullopt;
  }
}

std::optional<kernels::DenseType> kernel_type(StoredType type) {
  switch (type) {
    case StoredType::F32:
      return kernels::DenseType::F32;
    case StoredType::F16:
      return kernels::DenseType::F16;
    case StoredType::BF16:
      return kernels::DenseType::BF16;
    default:
      return std::nullopt;
  }
}

std::int64_t chunk_rows(std::int64_t rows, std::int64_t columns) {
  return std::clamp<std::int64_t>(kChunkValues / std::max<std::int64_t>(1, columns) / 16 * 16, 16,
                                  std::max<std::int64_t>(16, rows));
}

/// Rows [begin, end) decoded by all threads.
void decode_in_parallel(const StoredRows& weight, std::int64_t begin, std::int64_t end, float* out) {
  const std::int64_t columns = weight.columns();
  const std::int64_t grain = std::max<std::int64_t>(1, kValuesPerThread / std::max<std::int64_t>(1, columns));
  at::parallel_for(begin, end, grain, [&](std::int64_t from, std::int64_t to) {
    weight.decode(from, to, out + (from - begin) * columns);
  });
}

}  // namespace

StoredRows::StoredRows(std::shared_ptr<const TensorTable> table, const StoredTensor& tensor,
                       const std::vector<std::int64_t>& rows)
    : table_(std::move(table)), tensor_(tensor) {
  columns_ = tensor.columns();
  rows_ = rows.empty() ? tensor.rows() : static_cast<std::int64_t>(rows.size());
  row_bytes_ = columns_ * stored_type_bytes(tensor.type);
  bytes_ = tensor.rows() > 0 ? static_cast<std::int64_t>(tensor.bytes.size()) * rows_ / tensor.rows() : 0;
  if (rows.empty()) {
    runs_.push_back({0, 0, rows_});
    return;
  }
  for (std::int64_t i = 0; i < rows_; ++i) {
    const std::int64_t stored = rows[static_cast<std::size_t>(i)];
    if (!runs_.empty() && runs_.back().stored + runs_.back().count == stored) {
      ++runs_.back().count;
    } else {
      runs_.push_back({i, stored, 1});
    }
  }
}

void StoredRows::decode(std::int64_t begin, std::int64_t end, float* out) const {
  auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                              [](std::int64_t row, const Run& other) { return row < other.begin; });
  for (--run; run != runs_.end() && run->begin < end; ++run) {
    const std::int64_t from = std::max(begin, run->begin), to = std::min(end, run->begin + run->count);
    const std::int64_t stored = run->stored + from - run->begin, values = (to - from) * columns_;
    float* const target = out + (from - begin) * columns_;
    const auto source_of = [&](StoredType type) {
      return tensor_.type == type ? tensor_.bytes.data() + stored * row_bytes_ : nullptr;
    };
    const std::byte* const floats = source_of(StoredType::F32);
    const std::byte* const halves = source_of(StoredType::F16);
    if (floats) {
      std::memcpy(target, floats, static_cast<std::size_t>(values) * sizeof(float));
    } else if (halves && reinterpret_cast<std::uintptr_t>(halves) % alignof(std::uint16_t) == 0) {
      kernels::kernel_set().f16_to_f32(reinterpret_cast<const std::uint16_t*>(halves), target, values);
    } else {
      decode_to_f32(tensor_, stored, to - from, target);
    }
  }
}

const std::byte* StoredRows::contiguous() const {
  if (runs_.size() != 1 || !torch_type(tensor_.type)) return nullptr;
  const std::byte* const first = tensor_.bytes.data() + runs_.front().stored * row_bytes_;
  const auto alignment = static_cast<std::uintptr_t>(stored_type_bytes(tensor_.type));
  return reinterpret_cast<std::uintptr_t>(first) % alignment == 0 ? first : nullptr;
}

at::Tensor StoredLinear::view_as(at::ScalarType type) const {
  const std::byte* const data = weight_.contiguous();
  if (!data || torch_type(weight_.type()) != type) return {};
  return at::from_blob(const_cast<std::byte*>(data), {weight_.rows(), weight_.columns()}, at::TensorOptions(type));
}

at::Tensor StoredLinear::apply(const at::Tensor& x) const {
  if (const at::Tensor whole = view_as(x.scalar_type()); whole.defined()) return linear_product(x, whole, bias_);
  const bool differentiates = c10::GradMode::is_enabled() && x.requires_grad();
  const bool few = !differentiates && x.dim() == 2 && x.size(0) > 0 && x.size(0) <= kMaxGemvTokens;
  const at::Tensor y = few ? few_tokens(x) : many_tokens(x);
  return bias_.defined() ? y + bias_ : y;
}

at::Tensor StoredLinear::few_tokens(const at::Tensor& x) const {
  const auto type = kernel_type(weight_.type());
  if (const std::byte* const data = weight_.contiguous(); data && type) {
    return few_token_product(x, data, *type, weight_.rows(), weight_.columns());
  }
  const std::int64_t tokens = x.size(0), columns = weight_.columns(), rows = weight_.rows();
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({rows, tokens}, at::kFloat);
  const std::int64_t step = std::max<std::int64_t>(16, kValuesPerThread / columns / 16 * 16);
  at::parallel_for(0, (rows + step - 1) / step, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> decoded(static_cast<std::size_t>(step * columns)),
        product(static_cast<std::size_t>(step * tokens));
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * step, count = std::min(step, rows - begin);
      weight_.decode(begin, begin + count, decoded.data());
      kernels::kernel_set().dense_gemv(
          kernels::DenseType::F32, decoded.data(), columns, count,
          {.x = wide.data_ptr<float>(), .tokens = tokens, .y = product.data(), .row_begin = 0, .row_end = count});
      float* const out = y.data_ptr<float>() + begin * tokens;
      for (std::int64_t row = 0; row < count; ++row)
        for (std::int64_t token = 0; token < tokens; ++token) out[row * tokens + token] = product[token * count + row];
    }
  });
  return y.t().contiguous().to(x.scalar_type());
}

at::Tensor StoredLinear::many_tokens(const at::Tensor& x) const {
  const std::int64_t columns = weight_.columns(), rows = weight_.rows(), step = chunk_rows(rows, columns);
  const bool keeps_chunks = c10::GradMode::is_enabled() && x.requires_grad();  // the backward pass reads them
  at::Tensor decoded;
  std::vector<at::Tensor> parts;
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    if (!decoded.defined() || keeps_chunks) decoded = at::empty({std::min(step, rows), columns}, at::kFloat);
    decode_in_parallel(weight_, begin, begin + count, decoded.data_ptr<float>());
    parts.push_back(linear_product(x, decoded.narrow(0, 0, count).to(x.scalar_type()), {}));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, -1);
}

at::Tensor StoredLinear::weight() const {
  at::Tensor whole = at::empty({weight_.rows(), weight_.columns()}, at::kFloat);
  decode_in_parallel(weight_, 0, weight_.rows(), whole.data_ptr<float>());
  return whole;
}

at::Tensor StoredLinear::rows(const at::Tensor& ids) const {
  const at::Tensor wanted = ids.to(at::kLong).contiguous();
  at::Tensor result = at::empty({wanted.numel(), weight_.columns()}, at::kFloat);
  for (std::int64_t i = 0; i < wanted.numel(); ++i) {
    const std::int64_t row = wanted.data_ptr<std::int64_t>()[i];
    weight_.decode(row, row + 1, result.data_ptr<float>() + i * weight_.columns());
  }
  return result;
}

std::int64_t StoredLinear::bytes() const {
  return weight_.bytes() + (bias_.defined() ? static_cast<std::int64_t>(bias_.numel() * bias_.element_size()) : 0);
}

}  // namespace qs
