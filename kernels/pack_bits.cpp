#include "kernels/pack_bits.h"

namespace qs::kernels {
namespace {

/// One of the runs that a packed row consists of: `width` bits of every code, taken from bit `shift`.
struct Run {
  int width = 0;
  int shift = 0;
};

int runs_of(int bits, Run (&runs)[2]) noexcept {
  if (bits == 3) {
    runs[0] = {2, 0};
    runs[1] = {1, 2};
    return 2;
  }
  runs[0] = {bits, 0};
  return 1;
}

std::uint8_t gather_byte(const std::uint8_t* codes, Run run) noexcept {
  const unsigned mask = (1U << run.width) - 1U;
  unsigned byte = 0;
  for (int j = 0; j * run.width < 8; ++j)
    byte |= ((static_cast<unsigned>(codes[j]) >> run.shift) & mask) << (j * run.width);
  return static_cast<std::uint8_t>(byte);
}

void scatter_byte(std::uint8_t byte, Run run, std::uint8_t* codes) noexcept {
  const unsigned mask = (1U << run.width) - 1U;
  for (int j = 0; j * run.width < 8; ++j)
    codes[j] = static_cast<std::uint8_t>(codes[j] | (((byte >> (j * run.width)) & mask) << run.shift));
}

/// Where byte `j` of row `row` lies inside a run of a block.
std::int64_t block_byte(std::int64_t j, std::int64_t row, std::int64_t rows, int unit) noexcept {
  return (j / unit * rows + row) * unit + j % unit;
}

}  // namespace

std::int64_t i32_lsb_words(std::int64_t count, int bits) noexcept { return (count * bits + 31) / 32; }

void pack_i32_lsb(const std::uint8_t* codes, std::int64_t count, int bits, std::uint32_t* words) noexcept {
  const std::int64_t per_word = 32 / bits;
  for (std::int64_t w = 0; w < i32_lsb_words(count, bits); ++w) words[w] = 0;
  for (std::int64_t j = 0; j < count; ++j)
    words[j / per_word] |= static_cast<std::uint32_t>(codes[j]) << (bits * static_cast<int>(j % per_word));
}

void unpack_i32_lsb(const std::uint32_t* words, std::int64_t count, int bits, std::uint8_t* codes) noexcept {
  const std::int64_t per_word = 32 / bits;
  const std::uint32_t mask = (1U << bits) - 1U;
  for (std::int64_t j = 0; j < count; ++j)
    codes[j] = static_cast<std::uint8_t>((words[j / per_word] >> (bits * static_cast<int>(j % per_word))) & mask);
}

std::int64_t i32_3bit_words(std::int64_t count) noexcept { return (count + 31) / 32 * 3; }

void pack_i32_3bit(const std::uint8_t* codes, std::int64_t count, std::uint32_t* words) noexcept {
  for (std::int64_t w = 0; w < i32_3bit_words(count); ++w) words[w] = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    std::uint32_t* const triple = words + j / 32 * 3;
    const int bit = 3 * static_cast<int>(j % 32);
    const std::uint64_t field = static_cast<std::uint64_t>(codes[j]) << (bit % 32);
    triple[bit / 32] |= static_cast<std::uint32_t>(field);
    if (bit % 32 > 29) triple[bit / 32 + 1] |= static_cast<std::uint32_t>(field >> 32);
  }
}

void unpack_i32_3bit(const std::uint32_t* words, std::int64_t count, std::uint8_t* codes) noexcept {
  for (std::int64_t j = 0; j < count; ++j) {
    const std::uint32_t* const triple = words + j / 32 * 3;
    const int bit = 3 * static_cast<int>(j % 32);
    std::uint64_t pair = triple[bit / 32];
    if (bit % 32 > 29) pair |= static_cast<std::uint64_t>(triple[bit / 32 + 1]) << 32;
    codes[j] = static_cast<std::uint8_t>((pair >> (bit % 32)) & 7U);
  }
}

std::int64_t u8_msb_bytes(std::int64_t count, int bits) noexcept { return (count * bits + 7) / 8; }

void pack_u8_msb(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* bytes) noexcept {
  const std::int64_t per_byte = 8 / bits;
  for (std::int64_t i = 0; i < u8_msb_bytes(count, bits); ++i) bytes[i] = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    const int shift = 8 - bits * static_cast<int>(j % per_byte + 1);
    bytes[j / per_byte] = static_cast<std::uint8_t>(bytes[j / per_byte] | (codes[j] << shift));
  }
}

void unpack_u8_msb(const std::uint8_t* bytes, std::int64_t count, int bits, std::uint8_t* codes) noexcept {
  const std::int64_t per_byte = 8 / bits;
  const int mask = (1 << bits) - 1;
  for (std::int64_t j = 0; j < count; ++j) {
    const int shift = 8 - bits * static_cast<int>(j % per_byte + 1);
    codes[j] = static_cast<std::uint8_t>((bytes[j / per_byte] >> shift) & mask);
  }
}

std::int64_t u8_trit5_bytes(std::int64_t count) noexcept { return (count + 4) / 5; }

void pack_u8_trit5(const std::uint8_t* codes, std::int64_t count, std::uint8_t* bytes) noexcept {
  for (std::int64_t i = 0; i < u8_trit5_bytes(count); ++i) {
    int byte = 0;
    for (int j = 4; j >= 0; --j) byte = byte * 3 + (5 * i + j < count ? codes[5 * i + j] : 0);
    bytes[i] = static_cast<std::uint8_t>(byte);
  }
}

void unpack_u8_trit5(const std::uint8_t* bytes, std::int64_t count, std::uint8_t* codes) noexcept {
  for (std::int64_t i = 0; i < u8_trit5_bytes(count); ++i) {
    int byte = bytes[i];
    for (std::int64_t j = 5 * i; j < 5 * i + 5 && j < count; ++j, byte /= 3)
      codes[j] = static_cast<std::uint8_t>(byte % 3);
  }
}

std::int64_t i32_signed_words(std::int64_t count, int bits) noexcept { return i32_lsb_words(count, bits); }

void pack_i32_signed(const std::int8_t* codes, std::int64_t count, int bits, std::uint32_t* words) noexcept {
  const std::int64_t per_word = 32 / bits;
  const std::uint32_t mask = (1U << bits) - 1U;
  for (std::int64_t w = 0; w < i32_signed_words(count, bits); ++w) words[w] = 0;
  for (std::int64_t j = 0; j < count; ++j)
    words[j / per_word] |= (static_cast<std::uint32_t>(codes[j]) & mask) << (bits * static_cast<int>(j % per_word));
}

void unpack_i32_signed(const std::uint32_t* words, std::int64_t count, int bits, std::int8_t* codes) noexcept {
  const std::int64_t per_word = 32 / bits;
  for (std::int64_t j = 0; j < count; ++j) {
    const int shift = 32 - bits * static_cast<int>(j % per_word + 1);
    codes[j] = static_cast<std::int8_t>(static_cast<std::int32_t>(words[j / per_word] << shift) >> (32 - bits));
  }
}

std::int64_t bit_stream_bytes(std::int64_t count, int bits) noexcept { return (count * bits + 7) / 8; }

void pack_bit_stream(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* bytes) noexcept {
  unsigned held = 0;
  int filled = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    held |= static_cast<unsigned>(codes[j]) << filled;
    for (filled += bits; filled >= 8; filled -= 8, held >>= 8) *bytes++ = static_cast<std::uint8_t>(held & 0xFFU);
  }
  if (filled > 0) *bytes = static_cast<std::uint8_t>(held);
}

void unpack_bit_stream(const std::uint8_t* bytes, std::int64_t count, int bits, std::uint8_t* codes) noexcept {
  const unsigned mask = (1U << bits) - 1U;
  unsigned held = 0;
  int filled = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    for (; filled < bits; filled += 8) held |= static_cast<unsigned>(*bytes++) << filled;
    codes[j] = static_cast<std::uint8_t>(held & mask);
    held >>= bits;
    filled -= bits;
  }
}

std::int64_t packed_row_bytes(std::int64_t columns, int bits) noexcept { return columns * bits / 8; }

int block_unit_bytes(std::int64_t run_bytes) noexcept {
  if (run_bytes % 4 == 0) return 4;
  return run_bytes % 2 == 0 ? 2 : 1;
}

void pack_row(const std::uint8_t* codes, std::int64_t columns, int bits, std::uint8_t* packed) noexcept {
  pack_block(codes, columns, 1, columns, bits, packed);
}

void unpack_row(const std::uint8_t* packed, std::int64_t columns, int bits, std::uint8_t* codes) noexcept {
  unpack_block_row(packed, 1, columns, bits, 0, codes);
}

void pack_block(const std::uint8_t* codes, std::int64_t code_stride, std::int64_t rows, std::int64_t columns, int bits,
                std::uint8_t* packed) noexcept {
  Run runs[2];
  const int count = runs_of(bits, runs);
  for (int r = 0; r < count; ++r) {
    const std::int64_t bytes = columns * runs[r].width / 8;
    const int unit = block_unit_bytes(bytes);
    const std::int64_t codes_per_byte = 8 / runs[r].width;
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t j = 0; j < bytes; ++j)
        packed[block_byte(j, row, rows, unit)] = gather_byte(codes + row * code_stride + j * codes_per_byte, runs[r]);
    packed += rows * bytes;
  }
}

void unpack_block_row(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits, std::int64_t row,
                      std::uint8_t* codes) noexcept {
  Run runs[2];
  const int count = runs_of(bits, runs);
  for (std::int64_t j = 0; j < columns; ++j) codes[j] = 0;
  for (int r = 0; r < count; ++r) {
    const std::int64_t bytes = columns * runs[r].width / 8;
    const int unit = block_unit_bytes(bytes);
    const std::int64_t codes_per_byte = 8 / runs[r].width;
    for (std::int64_t j = 0; j < bytes; ++j)
      scatter_byte(packed[block_byte(j, row, rows, unit)], runs[r], codes + j * codes_per_byte);
    packed += rows * bytes;
  }
}

void unpack_block(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits, std::uint8_t* codes,
                  std::int64_t code_stride) noexcept {
  for (std::int64_t row = 0; row < rows; ++row)
    unpack_block_row(packed, rows, columns, bits, row, codes + row * code_stride);
}

void pack_weight(const std::uint8_t* codes, std::int64_t rows, std::int64_t columns, int bits,
                 std::uint8_t* packed) noexcept {
  for (std::int64_t row = 0; row < rows; row += kWeightTileRows) {
    const std::int64_t in_tile = rows - row < kWeightTileRows ? rows - row : kWeightTileRows;
    pack_block(codes + row * columns, columns, in_tile, columns, bits, packed + row * packed_row_bytes(columns, bits));
  }
}

void unpack_weight(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits,
                   std::uint8_t* codes) noexcept {
  for (std::int64_t row = 0; row < rows; row += kWeightTileRows) {
    const std::int64_t in_tile = rows - row < kWeightTileRows ? rows - row : kWeightTileRows;
    unpack_block(packed + row * packed_row_bytes(columns, bits), in_tile, columns, bits, codes + row * columns,
                 columns);
  }
}

}  // namespace qs::kernels
