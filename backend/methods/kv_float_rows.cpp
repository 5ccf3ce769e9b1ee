#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/methods/kv_store.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

constexpr std::int64_t kChunkBytes = 256 * 1024;

}  // namespace

FloatRows::FloatRows(std::int64_t kv_heads, std::int64_t head_dim, at::ScalarType type, std::int64_t capacity)
    : TokenStore(kv_heads, head_dim), type_(type), capacity_(capacity) {
  if (type != at::kHalf && type != at::kFloat && type != at::kBFloat16) {
    throw Error(
        ErrorCode::Unsupported,
        std::string("A cache in full precision holds float16, float32 or bfloat16, not ") + c10::toString(type) + ".");
  }
}

void FloatRows::write_row(const float* row, std::byte* target) const {
  if (type_ == at::kFloat) {
    std::memcpy(target, row, static_cast<std::size_t>(row_bytes()));
    return;
  }
  auto* const half = reinterpret_cast<std::uint16_t*>(target);
  if (type_ == at::kBFloat16) {
    kernels::f32_to_bf16(row, half, width());
    return;
  }
  kernels::kernel_set().f32_to_f16(row, half, width());
  for (std::int64_t i = 0; i < width(); ++i) {
    if ((half[i] & 0x7fffu) < 0x7c00u || !std::isfinite(row[i])) continue;
    throw Error(ErrorCode::InvalidArgument,
                "A key or value of " + std::to_string(row[i]) +
                    " does not fit the 16-bit floats of the cache (at most 65504). Use a cache in f32.");
  }
}

void FloatRows::read_row(const std::byte* source, float* row, std::int64_t count) const {
  if (type_ == at::kFloat) {
    std::memcpy(row, source, static_cast<std::size_t>(count) * sizeof(float));
  } else if (type_ == at::kBFloat16) {
    kernels::bf16_to_f32(reinterpret_cast<const std::uint16_t*>(source), row, count);
  } else {
    kernels::kernel_set().f16_to_f32(reinterpret_cast<const std::uint16_t*>(source), row, count);
  }
}

void FloatRows::append(const float* rows, std::int64_t tokens) {
  while (capacity_ > 0 && tokens > 0 && tokens_ == capacity_) {
    write_row(rows, chunks_.front().rows.data() + oldest_ * row_bytes());
    oldest_ = (oldest_ + 1) % capacity_;
    rows += width();
    --tokens;
  }
  if (tokens == 0) return;
  // A ring is one chunk; without a capacity chunks end where growing would copy much.
  if (chunks_.empty() ||
      (capacity_ == 0 && (chunks_.back().rows.bytes() >= kChunkBytes || tokens * row_bytes() >= kChunkBytes))) {
    chunks_.emplace_back();
  }
  const std::int64_t fresh = capacity_ > 0 ? std::min(tokens, capacity_ - tokens_) : tokens;
  Chunk& chunk = chunks_.back();
  std::byte* target = chunk.rows.grow(static_cast<std::size_t>(fresh * row_bytes()));
  for (std::int64_t t = 0; t < fresh; ++t) write_row(rows + t * width(), target + t * row_bytes());
  chunk.tokens += fresh;
  tokens_ += fresh;
  if (fresh < tokens) append(rows + fresh * width(), tokens - fresh);
}

void FloatRows::read(std::int64_t begin, std::int64_t end, float* rows) const {
  for (std::int64_t head = 0; head < kv_heads_; ++head) decode(head, begin, end, rows + head * head_dim_, width());
}

void FloatRows::clear() {
  chunks_.clear();
  tokens_ = oldest_ = 0;
}

void FloatRows::erase(const std::vector<std::int64_t>& tokens) {
  std::int64_t chunk_begin = 0;
  auto next = tokens.begin();
  for (Chunk& chunk : chunks_) {
    const std::int64_t count = chunk.tokens;
    for (std::int64_t gone = 0; next != tokens.end() && *next < chunk_begin + count; ++gone, ++next) {
      chunk.rows.erase((*next - chunk_begin - gone) * row_bytes(), row_bytes());
      --chunk.tokens;
      --tokens_;
    }
    chunk_begin += count;
  }
  // Chunks that have become small join the one before them, so that their number stays bounded.
  for (std::size_t i = 1; i < chunks_.size(); ++i) {
    Chunk &to = chunks_[i - 1], &from = chunks_[i];
    if (tokens.empty() || to.rows.bytes() + from.rows.bytes() > kChunkBytes / 2) continue;
    if (from.tokens > 0) {
      std::memcpy(to.rows.grow(static_cast<std::size_t>(from.rows.bytes())), from.rows.data(),
                  static_cast<std::size_t>(from.rows.bytes()));
    }
    to.tokens += from.tokens;
    chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(i--));
  }
}

void FloatRows::add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima&) const {
  const std::int64_t head_bytes = head_dim_ * static_cast<std::int64_t>(c10::elementSize(type_));
  const auto add = [&](const Chunk& chunk, std::int64_t first, std::int64_t count) {
    if (count == 0) return;
    segments.push_back({.storage = type_ == at::kFloat ? kernels::Storage::F32 : kernels::Storage::F16,
                        .tokens = count,
                        .data = chunk.rows.data() + first * row_bytes() + head * head_bytes,
                        .stride = row_bytes()});
  };
  for (const Chunk& chunk : chunks_) {
    add(chunk, oldest_, chunk.tokens - oldest_);
    add(chunk, 0, oldest_);
  }
}

void FloatRows::decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                       std::int64_t row_stride) const {
  const std::int64_t head_bytes = head_dim_ * static_cast<std::int64_t>(c10::elementSize(type_));
  std::int64_t chunk_begin = 0;
  for (const Chunk& chunk : chunks_) {
    for (std::int64_t t = std::max(begin, chunk_begin); t < std::min(end, chunk_begin + chunk.tokens); ++t) {
      const std::int64_t slot = (t - chunk_begin + oldest_) % chunk.tokens;
      read_row(chunk.rows.data() + slot * row_bytes() + head * head_bytes, rows + (t - begin) * row_stride, head_dim_);
    }
    chunk_begin += chunk.tokens;
  }
}

void FloatRows::add_bytes(CacheStats& stats) const {
  for (const Chunk& chunk : chunks_) stats.bytes_full_precision += chunk.rows.bytes();
}

}  // namespace qs
