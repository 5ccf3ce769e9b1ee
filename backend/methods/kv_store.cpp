#include "backend/methods/kv_store.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

/// A chunk that has this many bytes is left alone and a new one begins: it bounds what growing may copy.
constexpr std::int64_t kChunkBytes = 64 * 1024;
/// Prompts are quantized this many tokens at a time.
constexpr std::int64_t kEncodeTokens = 256;

std::int64_t one_bit_bytes(std::int64_t count) { return (count + 7) / 8; }

void pack_one_bit(const std::uint8_t* codes, std::int64_t count, std::uint8_t* packed) {
  std::memset(packed, 0, static_cast<std::size_t>(one_bit_bytes(count)));
  for (std::int64_t i = 0; i < count; ++i)
    packed[i / 8] = static_cast<std::uint8_t>(packed[i / 8] | (codes[i] << (i % 8)));
}

void unpack_one_bit(const std::uint8_t* packed, std::int64_t count, std::uint8_t* codes) {
  for (std::int64_t i = 0; i < count; ++i) codes[i] = (packed[i / 8] >> (i % 8)) & 1;
}

const std::uint8_t* bytes_of(const std::byte* data) { return reinterpret_cast<const std::uint8_t*>(data); }

}  // namespace

ExactBuffer::ExactBuffer(ExactBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

ExactBuffer& ExactBuffer::operator=(ExactBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ExactBuffer::~ExactBuffer() { std::free(data_); }

std::byte* ExactBuffer::grow(std::size_t bytes) {
  if (bytes == 0) return data_ + bytes_;
  void* grown = std::realloc(data_, bytes_ + bytes);
  if (grown == nullptr) {
    throw Error(ErrorCode::OutOfMemory, "There is no memory for " + std::to_string(bytes_ + bytes) +
                                            " more bytes of the KV cache. Use a shorter context or fewer bits.");
  }
  data_ = static_cast<std::byte*>(grown);
  std::byte* const added = data_ + bytes_;
  bytes_ += bytes;
  return added;
}

void ExactBuffer::erase(std::int64_t offset, std::int64_t bytes) {
  if (bytes == 0) return;
  const auto first = static_cast<std::size_t>(offset), count = static_cast<std::size_t>(bytes);
  std::memmove(data_ + first, data_ + first + count, bytes_ - first - count);
  bytes_ -= count;
  if (bytes_ == 0) {
    std::free(std::exchange(data_, nullptr));
  } else if (void* smaller = std::realloc(data_, bytes_)) {
    data_ = static_cast<std::byte*>(smaller);
  }
}

PackedRows::PackedRows(std::int64_t kv_heads, std::int64_t head_dim, Layout layout, std::int64_t group,
                       const GroupQuantizer& quantizer)
    : TokenStore(kv_heads, head_dim), layout_(layout), group_(group), quantizer_(quantizer) {}

std::int64_t PackedRows::head_code_bytes() const {
  const std::int64_t row =
      quantizer_.bits == 1 ? one_bit_bytes(head_dim_) : kernels::packed_row_bytes(head_dim_, quantizer_.bits);
  return row * unit_tokens();
}

std::int64_t PackedRows::unit_parameters() const { return layout_ == Layout::Blocks ? width() : width() / group_; }

bool PackedRows::fused() const { return quantizer_.store == GroupStore::F16 && minima_fit_ && quantizer_.bits > 1; }

void PackedRows::append(const float* rows, std::int64_t tokens) {
  const std::int64_t units = tokens / unit_tokens();
  if (units == 0) return;
  if (chunks_.empty() || chunks_.back().codes.bytes() >= kChunkBytes || units > kEncodeTokens) chunks_.emplace_back();
  Chunk& chunk = chunks_.back();
  const std::int64_t code_bytes = kv_heads_ * head_code_bytes();
  const std::int64_t parameter_bytes = unit_parameters() * quantizer_.parameter_bytes();
  Target target{};
  target.codes = chunk.codes.grow(static_cast<std::size_t>(units * code_bytes));
  target.scale = chunk.scale.grow(static_cast<std::size_t>(units * parameter_bytes));
  if (!quantizer_.symmetric) target.group_min = chunk.group_min.grow(static_cast<std::size_t>(units * parameter_bytes));
  chunk.units += units;
  tokens_ += tokens;

  const std::int64_t slab = std::max<std::int64_t>(1, kEncodeTokens / unit_tokens());
  std::atomic<bool> fits{true};
  const auto encode_slabs = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first * slab; begin < std::min(last * slab, units); begin += slab) {
      const Target part{target.codes + begin * code_bytes, target.scale + begin * parameter_bytes,
                        target.group_min == nullptr ? nullptr : target.group_min + begin * parameter_bytes};
      if (!encode(rows + begin * unit_tokens() * width(), std::min(slab, units - begin), part)) fits = false;
    }
  };
  const std::int64_t slabs = (units + slab - 1) / slab;
  if (slabs > 1) {
    at::parallel_for(0, slabs, 1, encode_slabs);
  } else {
    encode_slabs(0, 1);
  }
  check_stored(fits, target, units);
}

void PackedRows::erase(std::int64_t begin, std::int64_t tokens) {
  const std::int64_t code_bytes = kv_heads_ * head_code_bytes();
  const std::int64_t parameter_bytes = unit_parameters() * quantizer_.parameter_bytes();
  const std::int64_t first = begin / unit_tokens(), end = (begin + tokens) / unit_tokens();
  std::int64_t chunk_begin = 0;
  for (Chunk& chunk : chunks_) {
    const std::int64_t from = std::max(first, chunk_begin) - chunk_begin;
    const std::int64_t to = std::min(end, chunk_begin + chunk.units) - chunk_begin;
    chunk_begin += chunk.units;
    if (from >= to) continue;
    chunk.codes.erase(from * code_bytes, (to - from) * code_bytes);
    chunk.scale.erase(from * parameter_bytes, (to - from) * parameter_bytes);
    if (!quantizer_.symmetric) chunk.group_min.erase(from * parameter_bytes, (to - from) * parameter_bytes);
    chunk.units -= to - from;
  }
  std::erase_if(chunks_, [](const Chunk& chunk) { return chunk.units == 0; });
  tokens_ -= tokens;
}

void PackedRows::replace(std::int64_t begin, const float* rows) {
  std::int64_t unit = begin / unit_tokens();
  for (Chunk& chunk : chunks_) {
    if (unit >= chunk.units) {
      unit -= chunk.units;
      continue;
    }
    const std::int64_t parameters = unit * unit_parameters() * quantizer_.parameter_bytes();
    const Target target{chunk.codes.data() + unit * kv_heads_ * head_code_bytes(), chunk.scale.data() + parameters,
                        quantizer_.symmetric ? nullptr : chunk.group_min.data() + parameters};
    check_stored(encode(rows, 1, target), target, 1);
    return;
  }
}

void PackedRows::check_stored(bool fits, const Target& target, std::int64_t units) {
  if (quantizer_.symmetric && quantizer_.store == GroupStore::F16) {
    const auto* const scale = reinterpret_cast<const std::uint16_t*>(target.scale);
    for (std::int64_t i = 0; i < units * unit_parameters(); ++i) {
      minima_fit_ = minima_fit_ && kernels::f16_to_f32(scale[i]) * symmetric_offset() < 65520.0f;
    }
  }
  if (!fits) {
    throw Error(ErrorCode::InvalidArgument,
                "A group's scale or minimum does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
}

bool PackedRows::encode(const float* rows, std::int64_t units, const Target& target) const {
  const kernels::KernelSet& set = kernels::kernel_set();
  const std::int64_t tokens = units * unit_tokens();
  const std::int64_t parameters = units * unit_parameters();
  const auto compute = quantizer_.compute == GroupCompute::F16 ? kernels::Compute::F16 : kernels::Compute::F32;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(tokens * width()));
  std::vector<float> scale(static_cast<std::size_t>(parameters)), group_min(static_cast<std::size_t>(parameters));
  std::vector<float> rounded;
  if (compute == kernels::Compute::F16 && quantizer_.store == GroupStore::F32) {
    rounded.assign(rows, rows + tokens * width());
    for (float& value : rounded) value = kernels::round_to_f16(value);
    rows = rounded.data();
  }
  if (quantizer_.symmetric) {
    auto* signed_codes = reinterpret_cast<std::int8_t*>(codes.data());
    kernels::quantize_rows_symmetric(rows, tokens, width(), width(), group_, quantizer_.bits, compute, signed_codes,
                                     scale.data());
    const int offset = 1 << (quantizer_.bits - 1);
    for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(static_cast<std::int8_t>(code) + offset);
  } else if (layout_ == Layout::Runs) {
    set.quantize_rows({rows, tokens, width(), width(), group_, quantizer_.bits, compute, codes.data(), scale.data(),
                       group_min.data()});
  } else {
    set.quantize_columns({rows, tokens, width(), width(), group_, quantizer_.bits, compute, codes.data(), scale.data(),
                          group_min.data()});
  }
  pack(codes.data(), units, target.codes);
  const auto store = [&](const std::vector<float>& values, std::byte* place) {
    if (quantizer_.store == GroupStore::F32) {
      std::memcpy(place, values.data(), values.size() * sizeof(float));
      return true;
    }
    set.f32_to_f16(values.data(), reinterpret_cast<std::uint16_t*>(place), parameters);
    // 65520 is the smallest magnitude that rounds to infinity.
    return std::all_of(values.begin(), values.end(), [](float v) { return std::fabs(v) < 65520.0f; });
  };
  const bool scale_fits = store(scale, target.scale);
  return quantizer_.symmetric ? scale_fits : store(group_min, target.group_min) && scale_fits;
}

void PackedRows::pack(const std::uint8_t* codes, std::int64_t units, std::byte* packed) const {
  const std::int64_t step = head_code_bytes();
  auto* place = reinterpret_cast<std::uint8_t*>(packed);
  for (std::int64_t unit = 0; unit < units; ++unit) {
    for (std::int64_t head = 0; head < kv_heads_; ++head, place += step) {
      const std::uint8_t* const first = codes + unit * unit_tokens() * width() + head * head_dim_;
      if (quantizer_.bits == 1) {
        for (std::int64_t t = 0; t < unit_tokens(); ++t)
          pack_one_bit(first + t * width(), head_dim_, place + t * one_bit_bytes(head_dim_));
      } else if (layout_ == Layout::Blocks) {
        kernels::pack_block(first, width(), group_, head_dim_, quantizer_.bits, place);
      } else {
        kernels::pack_row(first, head_dim_, quantizer_.bits, place);
      }
    }
  }
}

void PackedRows::add_segments(std::int64_t head, std::vector<kernels::Segment>& segments,
                              DerivedMinima& derived) const {
  const bool blocks = layout_ == Layout::Blocks;
  const std::int64_t first_parameter = blocks ? head * head_dim_ : head * head_dim_ / group_;
  for (const Chunk& chunk : chunks_) {
    const auto* const scale = reinterpret_cast<const std::uint16_t*>(chunk.scale.data());
    const auto* group_min = reinterpret_cast<const std::uint16_t*>(chunk.group_min.data());
    if (quantizer_.symmetric) {
      std::vector<std::uint16_t>& minima = derived[scale];
      if (minima.empty()) {
        std::vector<float> values(static_cast<std::size_t>(chunk.units * unit_parameters()));
        minima.resize(values.size());
        const auto count = static_cast<std::int64_t>(values.size());
        kernels::kernel_set().f16_to_f32(scale, values.data(), count);
        for (float& value : values) value *= -symmetric_offset();
        kernels::kernel_set().f32_to_f16(values.data(), minima.data(), count);
      }
      group_min = minima.data();
    }
    segments.push_back({.storage = blocks ? kernels::Storage::PerChannel : kernels::Storage::PerToken,
                        .bits = quantizer_.bits,
                        .tokens = chunk.units * unit_tokens(),
                        .data = chunk.codes.data() + head * head_code_bytes(),
                        .stride = kv_heads_ * head_code_bytes(),
                        .scale = scale + first_parameter,
                        .group_min = group_min + first_parameter,
                        .scale_stride = unit_parameters(),
                        .group_size = group_,
                        .channel_offset = blocks ? 0 : head * head_dim_ % group_});
  }
}

void PackedRows::read_parameters(const ExactBuffer& buffer, std::int64_t unit, std::int64_t head,
                                 float* by_channel) const {
  const auto at_index = [&](std::int64_t index) {
    if (quantizer_.store == GroupStore::F32) return reinterpret_cast<const float*>(buffer.data())[index];
    return kernels::f16_to_f32(reinterpret_cast<const std::uint16_t*>(buffer.data())[index]);
  };
  const std::int64_t first = unit * unit_parameters();
  const std::int64_t begin = head * head_dim_, end = begin + head_dim_;
  const std::int64_t run = layout_ == Layout::Blocks ? 1 : group_;
  for (std::int64_t channel = begin; channel < end;) {
    const float value = at_index(first + channel / run);
    const std::int64_t stop = std::min(end, (channel / run + 1) * run);
    std::fill(by_channel + channel - begin, by_channel + stop - begin, value);
    channel = stop;
  }
}

void PackedRows::decode_unit(const Chunk& chunk, std::int64_t unit, std::int64_t head, std::uint8_t* codes,
                             float* rows) const {
  const std::uint8_t* const packed = bytes_of(chunk.codes.data()) + (unit * kv_heads_ + head) * head_code_bytes();
  if (quantizer_.bits == 1) {
    for (std::int64_t t = 0; t < unit_tokens(); ++t) {
      unpack_one_bit(packed + t * one_bit_bytes(head_dim_), head_dim_, codes + t * head_dim_);
    }
  } else if (layout_ == Layout::Blocks) {
    kernels::unpack_block(packed, group_, head_dim_, quantizer_.bits, codes, head_dim_);
  } else {
    kernels::unpack_row(packed, head_dim_, quantizer_.bits, codes);
  }
  std::array<float, kernels::kMaxHeadDim> scale, group_min{};
  read_parameters(chunk.scale, unit, head, scale.data());
  if (!quantizer_.symmetric) read_parameters(chunk.group_min, unit, head, group_min.data());
  const float offset = quantizer_.symmetric ? symmetric_offset() : 0.0f;
  for (std::int64_t t = 0; t < unit_tokens(); ++t) {
    const std::uint8_t* const code = codes + t * head_dim_;
    float* const row = rows + t * head_dim_;
    for (std::int64_t d = 0; d < head_dim_; ++d)
      row[d] = (static_cast<float>(code[d]) - offset) * scale[d] + group_min[d];
  }
}

void PackedRows::decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                        std::int64_t row_stride) const {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(unit_tokens() * head_dim_));
  std::vector<float> values(codes.size());
  std::int64_t chunk_begin = 0;
  for (const Chunk& chunk : chunks_) {
    const std::int64_t chunk_end = chunk_begin + chunk.units * unit_tokens();
    const std::int64_t from = std::max(begin, chunk_begin), to = std::min(end, chunk_end);
    for (std::int64_t token = from; token < to;) {
      const std::int64_t unit = (token - chunk_begin) / unit_tokens();
      const std::int64_t unit_begin = chunk_begin + unit * unit_tokens();
      const std::int64_t stop = std::min(to, unit_begin + unit_tokens());
      decode_unit(chunk, unit, head, codes.data(), values.data());
      for (; token < stop; ++token) {
        std::memcpy(rows + (token - begin) * row_stride, values.data() + (token - unit_begin) * head_dim_,
                    static_cast<std::size_t>(head_dim_) * sizeof(float));
      }
    }
    chunk_begin = chunk_end;
  }
}

void PackedRows::add_bytes(CacheStats& stats) const {
  for (const Chunk& chunk : chunks_) {
    stats.bytes_codes += chunk.codes.bytes();
    stats.bytes_scales += chunk.scale.bytes();
    stats.bytes_zeros += chunk.group_min.bytes();
  }
}

}  // namespace qs
