#include "backend/methods/grouped_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

/// A chunk that has this many bytes is left alone and a new one begins: it bounds what growing may copy.
constexpr std::int64_t kChunkBytes = 64 * 1024;
constexpr std::int64_t kEncodeTokens = 64;
constexpr int kDigits = 5;
constexpr std::array<int, kDigits> kPowers = {1, 3, 9, 27, 81};

}  // namespace

GroupedRows::GroupedRows(std::int64_t kv_heads, std::int64_t head_dim, CodeContainer container,
                         const SkvqQuantizer& quantizer)
    : TokenStore(kv_heads, head_dim),
      container_(container),
      quantizer_(&quantizer),
      group_of_(quantizer.groups.group_of_channel()),
      heads_(static_cast<std::size_t>(kv_heads)),
      token_bytes_(code_bytes(kv_heads, head_dim, container)) {
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    const auto begin = group_of_.begin() + head * head_dim, end = begin + head_dim;
    const auto [least, most] = std::minmax_element(begin, end);
    HeadGroups& groups = heads_[static_cast<std::size_t>(head)];
    groups.first = *least;
    groups.count = *most - *least + 1;
    groups.in_sixteens = true;
    for (auto place = begin; place != end; ++place) {
      *place -= static_cast<std::int32_t>(groups.first);
      if (*place != *(begin + (place - begin) / 16 * 16)) groups.in_sixteens = false;
    }
  }
}

std::int64_t GroupedRows::code_bytes(std::int64_t kv_heads, std::int64_t head_dim, CodeContainer container) {
  if (container == CodeContainer::Trits) return kernels::u8_trit5_bytes(kv_heads * head_dim);
  return kv_heads * kernels::packed_row_bytes(head_dim, static_cast<int>(container));
}

void GroupedRows::pack(const std::uint8_t* codes, std::uint8_t* packed) const {
  if (container_ == CodeContainer::Trits) {
    std::fill(packed, packed + token_bytes_, std::uint8_t{0});
    for (std::int64_t channel = 0; channel < width(); ++channel) {
      std::uint8_t& byte = packed[channel % token_bytes_];
      byte = static_cast<std::uint8_t>(byte + codes[channel] * kPowers[channel / token_bytes_]);
    }
    return;
  }
  const int bits = static_cast<int>(container_);
  const std::int64_t step = kernels::packed_row_bytes(head_dim_, bits);
  for (std::int64_t head = 0; head < kv_heads_; ++head)
    kernels::pack_row(codes + head * head_dim_, head_dim_, bits, packed + head * step);
}

void GroupedRows::append(const float* rows, std::int64_t tokens) {
  if (tokens == 0) return;
  if (chunks_.empty() || chunks_.back().codes.bytes() >= kChunkBytes || tokens > kEncodeTokens) chunks_.emplace_back();
  Chunk& chunk = chunks_.back();
  const std::int64_t groups = quantizer_->groups.groups();
  auto* const codes =
      reinterpret_cast<std::uint8_t*>(chunk.codes.grow(static_cast<std::size_t>(tokens * token_bytes_)));
  std::byte* const scale = chunk.scale.grow(static_cast<std::size_t>(tokens * parameter_bytes()));
  std::byte* const group_min = chunk.group_min.grow(static_cast<std::size_t>(tokens * parameter_bytes()));
  chunk.tokens += tokens;
  tokens_ += tokens;
  std::atomic<bool> fits{true};
  at::parallel_for(0, tokens, kEncodeTokens, [&](std::int64_t first, std::int64_t last) {
    std::vector<std::uint8_t> token_codes(static_cast<std::size_t>(width()));
    std::vector<float> token_scale(static_cast<std::size_t>(groups)), token_min(token_scale);
    std::vector<float> scratch(static_cast<std::size_t>(2 * width()));
    for (std::int64_t t = first; t < last; ++t) {
      encode_token(rows + t * width(), *quantizer_, token_codes.data(), token_scale.data(), token_min.data(),
                   scratch.data());
      pack(token_codes.data(), codes + t * token_bytes_);
      store_parameters(quantizer_->store, token_scale.data(), groups, scale + t * parameter_bytes());
      store_parameters(quantizer_->store, token_min.data(), groups, group_min + t * parameter_bytes());
      if (quantizer_->store != ParameterType::F16) continue;
      // 65520 is the smallest magnitude that rounds to infinity.
      for (std::int64_t i = 0; i < groups; ++i) {
        if (token_scale[i] >= 65520.0f || std::fabs(token_min[i]) >= 65520.0f) fits = false;
      }
    }
  });
  if (!fits) {
    throw Error(ErrorCode::InvalidArgument,
                "A group's scale or minimum does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
}

kernels::Segment GroupedRows::segment(const Chunk& chunk, std::int64_t head) const {
  const HeadGroups& groups = heads_[static_cast<std::size_t>(head)];
  const bool trits = container_ == CodeContainer::Trits;
  const int bits = static_cast<int>(container_);
  const std::int64_t offset = trits ? 0 : head * kernels::packed_row_bytes(head_dim_, bits);
  return {.storage = kernels::Storage::Grouped,
          .bits = bits,
          .tokens = chunk.tokens,
          .data = chunk.codes.data() + offset,
          .stride = token_bytes_,
          .grouped = {.scale = chunk.scale.data(),
                      .group_min = chunk.group_min.data(),
                      .format = quantizer_->store,
                      .groups = quantizer_->groups.groups(),
                      .first_group = groups.first,
                      .head_groups = groups.count,
                      .group_of = group_of_.data() + head * head_dim_,
                      .in_sixteens = groups.in_sixteens,
                      .first_channel = head * head_dim_,
                      .plane_bytes = token_bytes_}};
}

void GroupedRows::add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima&) const {
  for (const Chunk& chunk : chunks_) segments.push_back(segment(chunk, head));
}

void GroupedRows::decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                         std::int64_t row_stride) const {
  const float* const smooth = quantizer_->smooth.empty() ? nullptr : quantizer_->smooth.data() + head * head_dim_;
  std::int64_t chunk_begin = 0;
  for (const Chunk& chunk : chunks_) {
    const std::int64_t from = std::max(begin, chunk_begin), to = std::min(end, chunk_begin + chunk.tokens);
    if (from < to) {
      kernels::kernel_set().decode_grouped(segment(chunk, head), from - chunk_begin, to - from, head_dim_,
                                           rows + (from - begin) * row_stride, row_stride);
    }
    chunk_begin += chunk.tokens;
  }
  if (smooth == nullptr) return;
  for (std::int64_t t = 0; t < end - begin; ++t)
    for (std::int64_t d = 0; d < head_dim_; ++d) rows[t * row_stride + d] /= smooth[d];
}

void GroupedRows::add_bytes(CacheStats& stats) const {
  for (const Chunk& chunk : chunks_) {
    stats.bytes_codes += chunk.codes.bytes();
    stats.bytes_scales += chunk.scale.bytes();
    stats.bytes_zeros += chunk.group_min.bytes();
  }
}

}  // namespace qs
