#include "backend/formats/block_types.h"

#include <cstring>

#include "backend/formats/half.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr int kSmall = 32;  // values of a Q4_0 to Q8_0 block

float half_at(const std::uint8_t* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

/// d, then 16 bytes: value j in the low, value j + 16 in the high nibble of byte j.
void q4_0(const std::uint8_t* block, float* out) {
  const float d = half_at(block);
  const std::uint8_t* codes = block + 2;
  for (int j = 0; j < kSmall / 2; ++j) {
    out[j] = static_cast<float>((codes[j] & 15) - 8) * d;
    out[j + kSmall / 2] = static_cast<float>((codes[j] >> 4) - 8) * d;
  }
}

/// d, minimum, nibbles.
void q4_1(const std::uint8_t* block, float* out) {
  const float d = half_at(block), minimum = half_at(block + 2);
  const std::uint8_t* codes = block + 4;
  for (int j = 0; j < kSmall / 2; ++j) {
    out[j] = static_cast<float>(codes[j] & 15) * d + minimum;
    out[j + kSmall / 2] = static_cast<float>(codes[j] >> 4) * d + minimum;
  }
}

/// The fifth bit of value j is bit j of a 32-bit word before the nibbles.
struct FiveBits {
  const std::uint8_t* codes;
  std::uint32_t high;
  explicit FiveBits(const std::uint8_t* at) : codes(at + 4) { std::memcpy(&high, at, sizeof high); }
  int low_half(int j) const { return (codes[j] & 15) | static_cast<int>(((high >> j) & 1u) << 4); }
  int high_half(int j) const { return (codes[j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1u) << 4); }
};

void q5_0(const std::uint8_t* block, float* out) {
  const float d = half_at(block);
  const FiveBits bits(block + 2);
  for (int j = 0; j < kSmall / 2; ++j) {
    out[j] = static_cast<float>(bits.low_half(j) - 16) * d;
    out[j + kSmall / 2] = static_cast<float>(bits.high_half(j) - 16) * d;
  }
}

void q5_1(const std::uint8_t* block, float* out) {
  const float d = half_at(block), minimum = half_at(block + 2);
  const FiveBits bits(block + 4);
  for (int j = 0; j < kSmall / 2; ++j) {
    out[j] = static_cast<float>(bits.low_half(j)) * d + minimum;
    out[j + kSmall / 2] = static_cast<float>(bits.high_half(j)) * d + minimum;
  }
}

void q8_0(const std::uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < kSmall; ++j) out[j] = static_cast<float>(static_cast<std::int8_t>(block[2 + j])) * d;
}

/// 16 bytes of 4-bit scale and 4-bit minimum, 64 bytes of 2-bit codes, d, d of the minima. Each half of 128 values has
/// 32 bytes of codes; byte l holds values l, l + 32, l + 64 and l + 96 of its half.
void q2_k(const std::uint8_t* block, float* out) {
  const std::uint8_t *scales = block, *codes = block + 16;
  const float d = half_at(block + 80), d_min = half_at(block + 82);
  for (int half = 0; half < 2; ++half, codes += 32) {
    for (int shift = 0; shift < 8; shift += 2) {
      for (int part = 0; part < 2; ++part) {
        const std::uint8_t scale = *scales++;
        const float step = d * static_cast<float>(scale & 15), minimum = d_min * static_cast<float>(scale >> 4);
        for (int l = 0; l < 16; ++l) *out++ = step * static_cast<float>((codes[16 * part + l] >> shift) & 3) - minimum;
      }
    }
  }
}

/// 32 bytes with the third bit (bit b of byte l: value l + 32 b; clear means minus 4), 64 bytes of 2-bit codes as in
/// Q2_K, 12 bytes of sixteen 6-bit scales offset by 32, d.
void q3_k(const std::uint8_t* block, float* out) {
  const std::uint8_t *high = block, *codes = block + 32, *packed = block + 96;
  const float d = half_at(block + 108);
  int scales[16];
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
    const int top = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
    scales[i] = (low | (top << 4)) - 32;
  }
  const int* scale = scales;
  int bit = 0;
  for (int half = 0; half < 2; ++half, codes += 32) {
    for (int shift = 0; shift < 8; shift += 2, ++bit) {
      for (int part = 0; part < 2; ++part) {
        const float step = d * static_cast<float>(*scale++);
        for (int l = 16 * part; l < 16 * part + 16; ++l) {
          const int code = ((codes[l] >> shift) & 3) - ((high[l] >> bit) & 1 ? 0 : 4);
          *out++ = step * static_cast<float>(code);
        }
      }
    }
  }
}

/// Eight 6-bit scales and eight 6-bit minima in 12 bytes, as Q4_K and Q5_K have them.
struct SixBitScales {
  const std::uint8_t* packed;
  int scale(int i) const { return i < 4 ? packed[i] & 63 : (packed[i + 4] & 15) | ((packed[i - 4] >> 6) << 4); }
  int minimum(int i) const { return i < 4 ? packed[i + 4] & 63 : (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4); }
};

/// d, d of the minima, scales, 128 bytes of nibbles: each 32 bytes hold 32 values in their low, the next 32 in their
/// high nibbles.
void q4_k(const std::uint8_t* block, float* out) {
  const float d = half_at(block), d_min = half_at(block + 2);
  const SixBitScales scales{block + 4};
  const std::uint8_t* codes = block + 16;
  for (int i = 0; i < 8; ++i) {
    const float step = d * static_cast<float>(scales.scale(i)), minimum = d_min * static_cast<float>(scales.minimum(i));
    const int shift = i % 2 ? 4 : 0;
    for (int l = 0; l < 32; ++l) *out++ = step * static_cast<float>((codes[32 * (i / 2) + l] >> shift) & 15) - minimum;
  }
}

/// As Q4_K, with 32 bytes before the nibbles whose bit i of byte l is the fifth bit of value l of group i.
void q5_k(const std::uint8_t* block, float* out) {
  const float d = half_at(block), d_min = half_at(block + 2);
  const SixBitScales scales{block + 4};
  const std::uint8_t *high = block + 16, *codes = block + 48;
  for (int i = 0; i < 8; ++i) {
    const float step = d * static_cast<float>(scales.scale(i)), minimum = d_min * static_cast<float>(scales.minimum(i));
    const int shift = i % 2 ? 4 : 0;
    for (int l = 0; l < 32; ++l) {
      const int code = ((codes[32 * (i / 2) + l] >> shift) & 15) + (((high[l] >> i) & 1) << 4);
      *out++ = step * static_cast<float>(code) - minimum;
    }
  }
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen signed scales, d. In each half of 128 values, value
/// l + 32 g takes its nibble from byte l + 32 (g mod 2) and its pair from byte l.
void q6_k(const std::uint8_t* block, float* out) {
  const std::uint8_t *low = block, *high = block + 128, *scales = block + 192;
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half, low += 64, high += 32, scales += 8) {
    for (int g = 0; g < 4; ++g) {
      for (int l = 0; l < 32; ++l) {
        const int nibble = (low[l + 32 * (g % 2)] >> (g < 2 ? 0 : 4)) & 15;
        const int code = (nibble | (((high[l] >> (2 * g)) & 3) << 4)) - 32;
        *out++ = d * static_cast<float>(static_cast<std::int8_t>(scales[l / 16 + 2 * g])) * static_cast<float>(code);
      }
    }
  }
}

using DecodeBlock = void (*)(const std::uint8_t* block, float* out);

DecodeBlock decoder_of(StoredType type) {
  switch (type) {
    case StoredType::Q4_0:
      return &q4_0;
    case StoredType::Q4_1:
      return &q4_1;
    case StoredType::Q5_0:
      return &q5_0;
    case StoredType::Q5_1:
      return &q5_1;
    case StoredType::Q8_0:
      return &q8_0;
    case StoredType::Q2_K:
      return &q2_k;
    case StoredType::Q3_K:
      return &q3_k;
    case StoredType::Q4_K:
      return &q4_k;
    case StoredType::Q5_K:
      return &q5_k;
    case StoredType::Q6_K:
      return &q6_k;
    default:
      throw Error(ErrorCode::InvalidArgument, std::string(stored_type_name(type)) + " is not stored in blocks.");
  }
}

}  // namespace

void decode_blocks(StoredType type, const std::byte* data, std::int64_t elements, float* out) {
  const DecodeBlock decode = decoder_of(type);
  const std::int64_t each = stored_type_elements(type);
  if (elements % each != 0)
    throw Error(ErrorCode::InvalidArgument, std::to_string(elements) + " values are no whole number of " +
                                                stored_type_name(type) + " blocks of " + std::to_string(each) + ".");
  const auto* block = reinterpret_cast<const std::uint8_t*>(data);
  const std::int64_t block_bytes = stored_type_bytes(type);
  for (std::int64_t done = 0; done < elements; done += each, block += block_bytes) decode(block, out + done);
}

}  // namespace qs
