#include "backend/methods/rotation_table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "backend/model/rope.h"

namespace qs {
namespace {

constexpr std::int64_t kSmallest = 512;

}  // namespace

std::shared_ptr<RotationTable> RotationTable::shared(const RopeSpec& rope, std::int64_t head_dim) {
  static std::mutex mutex;
  static std::vector<std::weak_ptr<RotationTable>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  known.erase(std::remove_if(known.begin(), known.end(), [](const auto& table) { return table.expired(); }),
              known.end());
  for (const std::weak_ptr<RotationTable>& weak : known) {
    const std::shared_ptr<RotationTable> table = weak.lock();
    if (table && table->head_dim_ == head_dim && table->rope_ == rope) return table;
  }
  auto table = std::make_shared<RotationTable>(rope, head_dim);
  known.push_back(table);
  return table;
}

std::shared_ptr<const RotationTable::Rows> RotationTable::rows(std::int64_t positions) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (rows_ && rows_->positions >= positions) return rows_;
  std::vector<std::int64_t> all(
      static_cast<std::size_t>(std::max({positions, kSmallest, rows_ ? 2 * rows_->positions : 0})));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  const RopeTable computed = rope_table(all, head_dim_, rope_);
  const at::Tensor both = at::cat({computed.cosine, computed.sine}, 1).contiguous();  // [tokens, 2, half]
  auto rows = std::make_shared<Rows>();
  rows->positions = both.size(0);
  rows->half = both.size(2);
  rows->values.assign(both.data_ptr<float>(), both.data_ptr<float>() + both.numel());
  rows_ = std::move(rows);
  return rows_;
}

}  // namespace qs
