#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace qs {

/// Read-only, dense, row-major float tensor that crosses layer borders without LibTorch. Copies share the data.
struct TensorView {
  std::shared_ptr<const void> owner;  ///< keeps `data` alive
  const float* data = nullptr;
  std::vector<std::int64_t> shape;

  std::int64_t size() const {
    std::int64_t count = data ? 1 : 0;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
  }
  bool empty() const { return size() == 0; }
  std::span<const float> values() const { return {data, static_cast<std::size_t>(size())}; }

  /// Takes over `values`; their count must be the product of `shape`.
  static TensorView own(std::vector<float> values, std::vector<std::int64_t> shape) {
    auto held = std::make_shared<const std::vector<float>>(std::move(values));
    return {held, held->data(), std::move(shape)};
  }
};

}  // namespace qs
