#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/kv_grouped.h"
#include "kernels/spqr.h"

namespace qs::kernels::cuda {

/// The kernels on a CUDA device, compute capability 8.0 or later. All pointers are device pointers, a stream is a
/// cudaStream_t (null: the default stream), calls return before the work is done. Every function returns an empty
/// string, or why it failed. Packed layouts are those of pack_bits.h; f16 arrays hold raw bits.

bool cuda_available() noexcept;
/// Why cuda_available() is false; empty when it is true.
std::string cuda_problem();
std::string cuda_device_name();
/// Waits for a stream.
std::string synchronize(void* stream);

/// Device memory with one owner.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  /// Replaces what it held; false when there is no memory or no device.
  bool allocate(std::size_t bytes) noexcept;
  bool upload(const void* host, std::size_t bytes, void* stream) noexcept;
  bool download(void* host, std::size_t bytes, void* stream) const noexcept;
  void* data() const noexcept { return data_; }
  std::size_t size_bytes() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A1 per channel over blocks of group_size tokens, packed (keys).
struct KeyQuantization {
  const float* x = nullptr;  ///< [kv_heads][tokens][head_dim]; tokens a multiple of group_size
  std::int64_t kv_heads = 0, tokens = 0, head_dim = 0, group_size = 0;
  int bits = 0;                        ///< 2, 3, 4 or 8
  std::uint8_t* codes = nullptr;       ///< scratch, shape of x
  std::uint8_t* packed = nullptr;      ///< [kv_heads][tokens / group_size] packed blocks
  std::uint16_t* scale = nullptr;      ///< f16 [kv_heads][tokens / group_size][head_dim]
  std::uint16_t* group_min = nullptr;  ///< as scale
};
std::string quantize_keys(const KeyQuantization& args, void* stream);

/// A1 per token over groups of group_size channels, packed (values).
struct ValueQuantization {
  const float* x = nullptr;  ///< [kv_heads][tokens][head_dim]; head_dim a multiple of group_size
  std::int64_t kv_heads = 0, tokens = 0, head_dim = 0, group_size = 0;
  int bits = 0;                        ///< 2, 3, 4 or 8
  std::uint8_t* codes = nullptr;       ///< scratch, shape of x
  std::uint8_t* packed = nullptr;      ///< [kv_heads][tokens] packed rows
  std::uint16_t* scale = nullptr;      ///< f16 [kv_heads][tokens][head_dim / group_size]
  std::uint16_t* group_min = nullptr;  ///< as scale
};
std::string quantize_values(const ValueQuantization& args, void* stream);

/// Decode attention of one sequence and layer: keys packed per channel, values packed per token, the newest of both in
/// f16.
struct DecodeAttention {
  const float* query = nullptr;                        ///< [heads][head_dim], already multiplied by 1 / sqrt(head_dim)
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  ///< head_dim a multiple of 8, at most 256
  std::int64_t tokens = 0;                             ///< in all; the first quantized_* of them are packed
  std::int64_t quantized_keys = 0, quantized_values = 0, group_size = 0;
  int key_bits = 0, value_bits = 0;
  const std::uint8_t* key_codes = nullptr;   ///< [kv_heads][quantized_keys / group_size] packed blocks
  const std::uint16_t* key_scale = nullptr;  ///< [kv_heads][quantized_keys / group_size][head_dim]
  const std::uint16_t* key_min = nullptr;
  const std::uint8_t* value_codes = nullptr;   ///< [kv_heads][quantized_values] packed rows
  const std::uint16_t* value_scale = nullptr;  ///< [kv_heads][quantized_values][head_dim / group_size]
  const std::uint16_t* value_min = nullptr;
  const std::uint16_t* recent_keys = nullptr;    ///< f16 [kv_heads][tokens - quantized_keys][head_dim]
  const std::uint16_t* recent_values = nullptr;  ///< f16 [kv_heads][tokens - quantized_values][head_dim]
  float* scratch = nullptr;                      ///< attention_scratch_bytes()
  float* out = nullptr;                          ///< [heads][head_dim]
};
std::size_t attention_scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t tokens) noexcept;
std::string decode_attention(const DecodeAttention& args, void* stream);

/// Keys or values of a cache with one row of codes a token (Storage::Grouped and Storage::Table of kv_attention.h):
/// tokens [begin, end) are coded, those before and behind lie in f16.
struct RowSide {
  std::int64_t begin = 0, end = 0;
  int bits = 0;                         ///< 2, 3, 4, 8 or kTritBits; with a table 2 to 5
  const std::uint8_t* codes = nullptr;  ///< [end - begin] tokens of token_bytes, in each a row of head_bytes a KV head
  std::int64_t token_bytes = 0, head_bytes = 0;  ///< kTritBits: a token is one row, token_bytes long
  /// value = code * scale + group_min, parameters [end - begin][groups] of `format`
  const void* scale = nullptr;
  const void* group_min = nullptr;
  ParameterFormat format = ParameterFormat::F16;
  std::int64_t groups = 0;
  const std::int32_t* group_of = nullptr;  ///< [kv_heads * head_dim] group of each channel
  /// With a table [kTableSize] value = table[code] * scale + zero, factors by channel [kv_heads * head_dim], or f16 by
  /// token in `scale` and `group_min` when these are null, plus what sparse elements have beyond it.
  const float* table = nullptr;
  const float* channel_scale = nullptr;
  const float* channel_zero = nullptr;
  const std::int64_t* sparse_begin = nullptr;     ///< [end - begin + 1] first element of each token; null: none
  const std::uint16_t* sparse_channel = nullptr;  ///< over all heads; distinct within a token
  const float* sparse_excess = nullptr;
  const std::uint16_t* sinks = nullptr;   ///< f16 [kv_heads][begin][head_dim]
  const std::uint16_t* recent = nullptr;  ///< f16 [kv_heads][tokens - end][head_dim]
};

/// Decode attention of one sequence and layer over rows: SKVQ, KVQuant, RTN a token, QAQ of one width, and with the
/// small factor applied to the query DecoQuant; `dead` selects tokens (SCOPE).
struct RowAttention {
  const float* query = nullptr;  ///< [heads][head_dim], already multiplied by the scale of the scores
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  ///< head_dim a multiple of 8, at most 256
  std::int64_t tokens = 0;
  RowSide key, value;
  const float* rotation = nullptr;  ///< of coded keys: [position][2][half], cosines then sines; null: rotated already
  std::int64_t half = 0;
  const std::int64_t* positions = nullptr;  ///< [tokens]; null: a token's position is its number
  float score_softcap = 0.0F;               ///< cap * tanh(score / cap) before the softmax; 0: off
  const std::uint8_t* dead = nullptr;       ///< [tokens], not 0: no query sees it; null: all are seen
  float* scratch = nullptr;                 ///< row_attention_scratch_bytes()
  float* out = nullptr;                     ///< [heads][head_dim]
};
std::size_t row_attention_scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t tokens) noexcept;
std::string row_attention(const RowAttention& args, void* stream);

/// y = x W^T from a packed weight (gemv.h's PackedWeight with device pointers).
struct LowBitGemv {
  int bits = 0;
  std::int64_t out_features = 0, in_features = 0, group_size = 0, tokens = 0;
  const std::uint8_t* codes = nullptr;       ///< pack_weight layout
  const std::uint16_t* scale = nullptr;      ///< f16 [out_features][in_features / group_size]
  const std::uint8_t* zero_point = nullptr;  ///< [out_features][in_features / group_size]
  const float* x = nullptr;                  ///< [tokens][in_features]
  float* y = nullptr;                        ///< [tokens][out_features]
};
std::string low_bit_gemv(const LowBitGemv& args, void* stream);

/// LUT-GEMM (lut_gemm.h's BitPlaneWeight with device pointers): tables in shared memory, f32 sums. Slices of the inner
/// dimension leave their sums in `scratch` and a second pass adds them in a fixed order, so that results repeat.
struct LutProduct {
  int bits = 0;
  std::int64_t out_features = 0, in_features = 0;
  std::int64_t group_size = 0;            ///< a multiple of 32, or in_features
  const std::uint32_t* planes = nullptr;  ///< [ceil(in_features / 32)][bits][out_features]
  const std::uint16_t* alpha = nullptr;   ///< f16 [in_features / group_size][bits][out_features]
  const std::uint16_t* offset = nullptr;  ///< f16 [in_features / group_size][out_features]; null: 0
  std::int64_t tokens = 0;
  const float* x = nullptr;  ///< [tokens][in_features]
  float* scratch = nullptr;  ///< lut_scratch_bytes()
  float* y = nullptr;        ///< [tokens][out_features]
};
std::size_t lut_scratch_bytes(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) noexcept;
std::string lut_gemm(const LutProduct& args, void* stream);

/// SpqrGemv (spqr.h), f32 sums; the sums of x over the groups are made on the way.
struct SpqrProduct {
  SpqrWeight weight;  ///< device pointers
  std::int64_t tokens = 0;
  const float* x = nullptr;  ///< [tokens][in_features]
  float* y = nullptr;        ///< [tokens][out_features]
};
std::string spqr_product(const SpqrProduct& args, void* stream);

/// gemv.h's Int8Gemm with device pointers.
struct Int8Product {
  std::int64_t tokens = 0, out_features = 0, in_features = 0;
  const std::uint8_t* x_codes = nullptr;  ///< [tokens][in_features]
  const float* x_scale = nullptr;         ///< [tokens], as are zero points and sums of codes
  const std::int32_t* x_zero_point = nullptr;
  const std::int32_t* x_code_sum = nullptr;
  const std::int8_t* codes = nullptr;  ///< [out_features][in_features]
  const float* scale = nullptr;        ///< [out_features], as are zero points (null: 0) and sums of codes
  const std::int32_t* zero_point = nullptr;
  const std::int32_t* code_sum = nullptr;
  float* y = nullptr;  ///< [tokens][out_features]
};
std::string int8_gemm(const Int8Product& args, void* stream);

}  // namespace qs::kernels::cuda
