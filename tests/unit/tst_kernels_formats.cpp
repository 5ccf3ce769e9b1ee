#include <QtTest>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"
#include "tests/support/safetensors_fixture.h"

using namespace qs::kernels;

namespace {

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::vector<std::uint8_t> some_codes(std::int64_t count, unsigned levels) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  unsigned state = 12345U + static_cast<unsigned>(count);
  for (auto& code : codes) {
    state = state * 1664525U + 1013904223U;
    code = static_cast<std::uint8_t>((state >> 20) % levels);
  }
  return codes;
}

}  // namespace

class TestKernelsFormats : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everyHalfSurvivesTheWayThroughFloat() {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
      const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
      const bool nan = (bits & 0x7FFFU) > 0x7C00U;
      QCOMPARE(std::isnan(value), nan);
      if (!nan) QCOMPARE(f32_to_f16(value), static_cast<std::uint16_t>(bits));
    }
  }

  void halvesRoundToNearestEven() {
    // Between neighbours a < b: the middle goes to the even one, anything off the middle to the nearer one.
    for (std::uint16_t bits = 0; bits < 0x7BFF; ++bits) {
      const float a = f16_to_f32(bits);
      const float b = f16_to_f32(static_cast<std::uint16_t>(bits + 1));
      const float middle = (a + b) / 2;
      QCOMPARE(f32_to_f16(middle), static_cast<std::uint16_t>(bits + (bits & 1)));
      QCOMPARE(f32_to_f16(std::nextafter(middle, 0.0F)), bits);
      QCOMPARE(f32_to_f16(std::nextafter(middle, 1e9F)), static_cast<std::uint16_t>(bits + 1));
    }
    QCOMPARE(f32_to_f16(65519.99F), std::uint16_t{0x7BFF});
    QCOMPARE(f32_to_f16(65520.0F), std::uint16_t{0x7C00});
    QCOMPARE(f32_to_f16(-0.0F), std::uint16_t{0x8000});
  }

  void bfloatRoundsToNearestEven() {
    QCOMPARE(f32_to_bf16(1.0F), std::uint16_t{0x3F80});
    QCOMPARE(f32_to_bf16(std::bit_cast<float>(0x3F808000U)), std::uint16_t{0x3F80});
    QCOMPARE(f32_to_bf16(std::bit_cast<float>(0x3F818000U)), std::uint16_t{0x3F82});
    QCOMPARE(f32_to_bf16(std::bit_cast<float>(0x3F808001U)), std::uint16_t{0x3F81});
    QCOMPARE(bf16_to_f32(0xC020), -2.5F);
    QVERIFY(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  }

  void eightBitFloatsDecodeAsTheTable() {
    const SafetensorsFixture table(QS_TEST_DATA "/golden/kv/fp8/decode_table.safetensors");
    QVERIFY(table.isOpen());
    const auto e4m3 = table.read<float>("e4m3");
    const auto e5m2 = table.read<float>("e5m2");
    for (std::size_t code = 0; code < 256; ++code) {
      QVERIFY2(same(e4m3_to_f32(static_cast<std::uint8_t>(code)), e4m3[code]), qPrintable(QString::number(code)));
      QVERIFY2(same(e5m2_to_f32(static_cast<std::uint8_t>(code)), e5m2[code]), qPrintable(QString::number(code)));
    }
  }

  void eightBitFloatsConvertAsTheGoldenVectors() {
    const SafetensorsFixture cases(QS_TEST_DATA "/golden/kv/fp8/convert.safetensors");
    QVERIFY(cases.isOpen());
    const auto x = cases.read<float>("x");
    const auto count = static_cast<std::int64_t>(x.size());
    std::vector<std::uint8_t> codes(x.size());
    std::vector<float> values(x.size());
    std::int64_t saturated = 0;
    for (const float value : x) saturated += std::fabs(value) > 448.0F ? 1 : 0;
    QCOMPARE(f32_to_e4m3(x.data(), codes.data(), count), saturated);
    QCOMPARE(codes, cases.read<std::uint8_t>("e4m3_code"));
    e4m3_to_f32(codes.data(), values.data(), count);
    const auto e4m3 = cases.read<float>("e4m3_value");
    for (std::size_t i = 0; i < x.size(); ++i) QVERIFY(same(values[i], e4m3[i]));
    f32_to_e5m2(x.data(), codes.data(), count);
    QCOMPARE(codes, cases.read<std::uint8_t>("e5m2_code"));
    e5m2_to_f32(codes.data(), values.data(), count);
    const auto e5m2 = cases.read<float>("e5m2_value");
    for (std::size_t i = 0; i < x.size(); ++i) QVERIFY(same(values[i], e5m2[i]));
  }

  void everyContainerGivesBackCodesOfAnyLength() {
    for (std::int64_t count = 0; count <= 100; ++count) {
      const auto size = static_cast<std::size_t>(count);
      std::vector<std::uint8_t> back(size);
      for (const int bits : {2, 4, 8}) {
        const auto codes = some_codes(count, 1U << bits);
        std::vector<std::uint32_t> words(static_cast<std::size_t>(i32_lsb_words(count, bits)), 0xFFFFFFFFU);
        pack_i32_lsb(codes.data(), count, bits, words.data());
        unpack_i32_lsb(words.data(), count, bits, back.data());
        QCOMPARE(back, codes);
        std::vector<std::int8_t> with_sign(size);
        std::vector<std::int8_t> sign_back(size);
        for (std::size_t i = 0; i < size; ++i) with_sign[i] = static_cast<std::int8_t>(codes[i] - (1 << (bits - 1)));
        pack_i32_signed(with_sign.data(), count, bits, words.data());
        unpack_i32_signed(words.data(), count, bits, sign_back.data());
        QCOMPARE(sign_back, with_sign);
      }
      for (const int bits : {2, 4}) {
        const auto codes = some_codes(count, 1U << bits);
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(u8_msb_bytes(count, bits)), 0xFF);
        pack_u8_msb(codes.data(), count, bits, bytes.data());
        unpack_u8_msb(bytes.data(), count, bits, back.data());
        QCOMPARE(back, codes);
      }
      const auto eight = some_codes(count, 8);
      std::vector<std::uint32_t> triples(static_cast<std::size_t>(i32_3bit_words(count)), 0xFFFFFFFFU);
      pack_i32_3bit(eight.data(), count, triples.data());
      unpack_i32_3bit(triples.data(), count, back.data());
      QCOMPARE(back, eight);
      const auto trits = some_codes(count, 3);
      std::vector<std::uint8_t> bytes(static_cast<std::size_t>(u8_trit5_bytes(count)), 0xFF);
      pack_u8_trit5(trits.data(), count, bytes.data());
      unpack_u8_trit5(bytes.data(), count, back.data());
      QCOMPARE(back, trits);
    }
  }

  void containersPlaceFieldsAsDocumented() {
    const std::uint8_t four[] = {1, 2, 3, 15, 0, 0, 0, 8};
    std::uint32_t word = 0;
    pack_i32_lsb(four, 8, 4, &word);
    QCOMPARE(word, 0x8000F321U);
    const std::uint8_t two[] = {3, 2, 1, 0};
    std::uint8_t byte = 0;
    pack_u8_msb(two, 4, 2, &byte);
    QCOMPARE(byte, std::uint8_t{0b11100100});
    const std::uint8_t trits[] = {1, 2, 0, 0, 2};
    pack_u8_trit5(trits, 5, &byte);
    QCOMPARE(byte, std::uint8_t{1 + 6 + 162});
    std::uint8_t three[32] = {};
    std::uint32_t words[3] = {};
    three[10] = 0b101;
    three[21] = 0b110;
    three[22] = 0b111;
    pack_i32_3bit(three, 32, words);
    QCOMPARE(words[0], 0x40000000U);
    QCOMPARE(words[1], 0x00000001U);
    QCOMPARE(words[2], 0x0000001FU);
    const std::int8_t negative[] = {-1, 1, -2, 0};
    pack_i32_signed(negative, 4, 2, &word);
    QCOMPARE(word, 0b00100111U);
  }

  void rowsAndBlocksGiveBackTheirCodes() {
    for (const std::int64_t columns : {8, 16, 24, 32, 64, 80, 128})
      for (const int bits : {2, 3, 4, 8})
        for (const std::int64_t rows : {1, 8, 16, 19, 32}) {
          const auto codes = some_codes(rows * columns, 1U << bits);
          std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * packed_row_bytes(columns, bits)) + 1, 0xAB);
          std::vector<std::uint8_t> back(codes.size());
          pack_block(codes.data(), columns, rows, columns, bits, packed.data());
          unpack_block(packed.data(), rows, columns, bits, back.data(), columns);
          QCOMPARE(back, codes);
          pack_weight(codes.data(), rows, columns, bits, packed.data());
          unpack_weight(packed.data(), rows, columns, bits, back.data());
          QCOMPARE(back, codes);
          QCOMPARE(packed.back(), std::uint8_t{0xAB});
          pack_row(codes.data(), columns, bits, packed.data());
          unpack_row(packed.data(), columns, bits, back.data());
          QVERIFY(std::equal(back.begin(), back.begin() + columns, codes.begin()));
        }
  }

  void threeBitRowsAreTwoRuns() {
    const std::uint8_t codes[8] = {7, 0, 5, 2, 0, 0, 0, 4};
    std::uint8_t packed[3] = {};
    pack_row(codes, 8, 3, packed);
    QCOMPARE(packed[0], std::uint8_t{0b10010011});
    QCOMPARE(packed[1], std::uint8_t{0});
    QCOMPARE(packed[2], std::uint8_t{0b10000101});
  }
};

QTEST_GUILESS_MAIN(TestKernelsFormats)
#include "tst_kernels_formats.moc"
