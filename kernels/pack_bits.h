#pragma once

#include <cstdint>

namespace qs::kernels {

/// Containers of the KV specification, section 1.5. Words are little-endian; codes are bytes, one each.
///
/// i32-lsb     32/bits codes a word (bits 2, 4, 8); code j of a word occupies bits [bits*j, bits*j + bits)
/// i32-3bit    32 codes in 3 words: code j < 10 in word 0 at bit 3j; code 10: low 2 bits at word 0 bit 30, high bit at
/// word 1
///             bit 0; codes 11..20 in word 1 at bit 3j mod 32; code 21: low bit at word 1 bit 31, high 2 bits at word 2
///             bit 0; codes 22..31 in word 2 at bit 3j mod 32. That is: code j at bit 3j of the 96-bit number.
/// u8-msb      8/bits codes a byte (bits 2, 4), the first code in the most significant field
/// u8-trit5    5 digits 0..2 a byte, byte = sum of digit j * 3^j
/// i32-signed  i32-lsb whose fields are two's complement (bits 2, 4, 8), sign-extended when read; codes are int8
///
/// `count` is the logical length; unused fields of the last word or byte are written as 0 and never read.

std::int64_t i32_lsb_words(std::int64_t count, int bits) noexcept;
void pack_i32_lsb(const std::uint8_t* codes, std::int64_t count, int bits, std::uint32_t* words) noexcept;
void unpack_i32_lsb(const std::uint32_t* words, std::int64_t count, int bits, std::uint8_t* codes) noexcept;

std::int64_t i32_3bit_words(std::int64_t count) noexcept;  ///< a multiple of 3
void pack_i32_3bit(const std::uint8_t* codes, std::int64_t count, std::uint32_t* words) noexcept;
void unpack_i32_3bit(const std::uint32_t* words, std::int64_t count, std::uint8_t* codes) noexcept;

std::int64_t u8_msb_bytes(std::int64_t count, int bits) noexcept;
void pack_u8_msb(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* bytes) noexcept;
void unpack_u8_msb(const std::uint8_t* bytes, std::int64_t count, int bits, std::uint8_t* codes) noexcept;

std::int64_t u8_trit5_bytes(std::int64_t count) noexcept;
void pack_u8_trit5(const std::uint8_t* codes, std::int64_t count, std::uint8_t* bytes) noexcept;
void unpack_u8_trit5(const std::uint8_t* bytes, std::int64_t count, std::uint8_t* codes) noexcept;

std::int64_t i32_signed_words(std::int64_t count, int bits) noexcept;
void pack_i32_signed(const std::int8_t* codes, std::int64_t count, int bits, std::uint32_t* words) noexcept;
void unpack_i32_signed(const std::uint32_t* words, std::int64_t count, int bits, std::int8_t* codes) noexcept;

/// Bit stream: code j occupies bits [bits*j, bits*j + bits) counted from bit 0 of byte 0 upwards, 1 to 8 bits; unused
/// bits of the last byte are 0. With whole words it is i32-lsb at 2, 4 and 8 bits and i32-3bit at 3.
std::int64_t bit_stream_bytes(std::int64_t count, int bits) noexcept;
void pack_bit_stream(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* bytes) noexcept;
void unpack_bit_stream(const std::uint8_t* bytes, std::int64_t count, int bits, std::uint8_t* codes) noexcept;

/// Layouts that the fused kernels read. `bits` is 2, 3, 4 or 8, `columns` a multiple of 8.
///
/// Packed row: the codes of one row (one token and head, or one output feature), columns * bits / 8 bytes. Code j
/// occupies bits [bits*j, bits*j + bits) counted from bit 0 of byte 0 upwards. 3 bits are two such runs one after the
/// other: first the low 2 bits of all codes (columns / 4 bytes), then the high bit of all codes (columns / 8 bytes).
///
/// Packed block: `rows` packed rows, transposed in units so that one load reads the same columns of neighbouring rows.
/// Each run (3 bits have two) of r bytes a row is cut into units of 4 bytes, or 2 when 4 does not divide r, or 1; unit
/// u of row i lies at unit index u * rows + i of the run. The runs follow each other. Size: rows * columns * bits / 8
/// bytes.

std::int64_t packed_row_bytes(std::int64_t columns, int bits) noexcept;
void pack_row(const std::uint8_t* codes, std::int64_t columns, int bits, std::uint8_t* packed) noexcept;
void unpack_row(const std::uint8_t* packed, std::int64_t columns, int bits, std::uint8_t* codes) noexcept;
/// @param codes  [rows][columns], rows `code_stride` apart
void pack_block(const std::uint8_t* codes, std::int64_t code_stride, std::int64_t rows, std::int64_t columns, int bits,
                std::uint8_t* packed) noexcept;
void unpack_block(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits, std::uint8_t* codes,
                  std::int64_t code_stride) noexcept;
/// One row of a block. @param codes  [columns]
void unpack_block_row(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits, std::int64_t row,
                      std::uint8_t* codes) noexcept;
/// Bytes of a unit for a run of `run_bytes` bytes a row: 4, 2 or 1.
int block_unit_bytes(std::int64_t run_bytes) noexcept;

/// A packed weight: rows in tiles of 16 (the last one may have fewer), each tile a packed block. Tile i begins at byte
/// i * 16 * packed_row_bytes(columns, bits). Size: rows * columns * bits / 8 bytes.
inline constexpr std::int64_t kWeightTileRows = 16;
void pack_weight(const std::uint8_t* codes, std::int64_t rows, std::int64_t columns, int bits,
                 std::uint8_t* packed) noexcept;
void unpack_weight(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns, int bits,
                   std::uint8_t* codes) noexcept;

}  // namespace qs::kernels
