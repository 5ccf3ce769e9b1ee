#include <QtTest>
#include <bit>
#include <cstring>

#include "backend/formats/block_types.h"
#include "backend/formats/half.h"
#include "backend/formats/safetensors.h"
#include "backend/types/error.h"

using qs::StoredType;

namespace {

constexpr StoredType kBlockTypes[] = {StoredType::Q4_0, StoredType::Q4_1, StoredType::Q5_0, StoredType::Q5_1,
                                      StoredType::Q8_0, StoredType::Q2_K, StoredType::Q3_K, StoredType::Q4_K,
                                      StoredType::Q5_K, StoredType::Q6_K};

/// A block that is zero but for what a test sets.
struct Block {
  StoredType type;
  std::vector<std::uint8_t> bytes;
  explicit Block(StoredType t) : type(t), bytes(static_cast<std::size_t>(qs::stored_type_bytes(t))) {}
  void half(std::size_t at, float value) {
    const std::uint16_t bits = qs::f32_to_f16(value);
    std::memcpy(bytes.data() + at, &bits, sizeof bits);
  }
  std::vector<float> values() const {
    const std::int64_t elements = qs::stored_type_elements(type);
    std::vector<float> out(static_cast<std::size_t>(elements));
    qs::decode_blocks(type, reinterpret_cast<const std::byte*>(bytes.data()), elements, out.data());
    return out;
  }
};

}  // namespace

class TestGgufBlocks : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void valuesAreThoseOfTheReference_data() {
    QTest::addColumn<int>("type");
    for (const StoredType type : kBlockTypes) QTest::newRow(qs::stored_type_id(type)) << static_cast<int>(type);
  }
  void valuesAreThoseOfTheReference() {
    QFETCH(int, type);
    const auto stored = static_cast<StoredType>(type);
    const qs::TensorTable table = qs::read_safetensors(QS_TEST_DATA "/gguf/blocks.safetensors");
    const std::string id = qs::stored_type_id(stored);
    const qs::StoredTensor& blocks = table.at(id + ".blocks");
    const std::vector<float> expected = qs::to_f32(table.at(id + ".values"));
    QCOMPARE(blocks.shape[1], qs::stored_type_bytes(stored));
    QCOMPARE(static_cast<std::int64_t>(expected.size()), blocks.shape[0] * qs::stored_type_elements(stored));
    const qs::StoredTensor tensor{id, stored, table.at(id + ".values").shape, blocks.bytes};
    const std::vector<float> found = qs::to_f32(tensor);
    for (std::size_t i = 0; i < found.size(); ++i)
      QVERIFY2(std::bit_cast<std::uint32_t>(found[i]) == std::bit_cast<std::uint32_t>(expected[i]),
               qPrintable(QStringLiteral("value %1: %2, expected %3").arg(i).arg(found[i]).arg(expected[i])));
  }

  // One block of each layout worked out by hand from the definition in llama.cpp.
  void nibblesOfQ4() {
    Block block(StoredType::Q4_0);
    block.half(0, 0.5f);
    block.bytes[2] = 0xf0;   // value 0: (0 - 8) / 2, value 16: (15 - 8) / 2
    block.bytes[17] = 0x3a;  // value 15: (10 - 8) / 2, value 31: (3 - 8) / 2
    const auto values = block.values();
    QCOMPARE(values[0], -4.0f);
    QCOMPARE(values[16], 3.5f);
    QCOMPARE(values[15], 1.0f);
    QCOMPARE(values[31], -2.5f);
  }
  void minimumOfQ4_1() {
    Block block(StoredType::Q4_1);
    block.half(0, 0.5f);
    block.half(2, -3.0f);
    block.bytes[4] = 0xf1;
    QCOMPARE(block.values()[0], -2.5f);
    QCOMPARE(block.values()[16], 4.5f);
    QCOMPARE(block.values()[1], -3.0f);
  }
  void fifthBitOfQ5() {
    Block block(StoredType::Q5_0);
    block.half(0, 2.0f);
    block.bytes[2] = 0x01;  // bit 0: value 0
    block.bytes[5] = 0x80;  // bit 31: value 31
    block.bytes[6] = 0x02;  // nibble of value 0
    const auto values = block.values();
    QCOMPARE(values[0], 4.0f);    // (2 + 16 - 16) * 2
    QCOMPARE(values[31], 0.0f);   // (0 + 16 - 16) * 2
    QCOMPARE(values[1], -32.0f);  // (0 - 16) * 2
    Block with_minimum(StoredType::Q5_1);
    with_minimum.half(0, 2.0f);
    with_minimum.half(2, 1.0f);
    with_minimum.bytes[4] = 0x01;
    with_minimum.bytes[8] = 0x02;
    QCOMPARE(with_minimum.values()[0], 37.0f);  // 18 * 2 + 1
    QCOMPARE(with_minimum.values()[1], 1.0f);
  }
  void bytesOfQ8() {
    Block block(StoredType::Q8_0);
    block.half(0, 0.25f);
    block.bytes[2] = 0x80;
    block.bytes[33] = 0x7f;
    QCOMPARE(block.values()[0], -32.0f);
    QCOMPARE(block.values()[31], 31.75f);
  }
  void groupsOfQ2K() {
    Block block(StoredType::Q2_K);
    block.half(80, 1.0f);
    block.half(82, 0.5f);
    block.bytes[0] = 0x23;        // values 0 to 15: scale 3, minimum 2
    block.bytes[3] = 0x05;        // values 48 to 63: scale 5
    block.bytes[16] = 0x02;       // value 0: code 2
    block.bytes[16 + 17] = 0x0c;  // value 32 + 17: code 3
    const auto values = block.values();
    QCOMPARE(values[0], 5.0f);  // 3 * 2 - 0.5 * 2
    QCOMPARE(values[1], -1.0f);
    QCOMPARE(values[49], 15.0f);
    QCOMPARE(values[16], 0.0f);
  }
  void groupsOfQ3K() {
    Block block(StoredType::Q3_K);
    block.half(108, 1.0f);
    block.bytes[96] = 0x01;   // scale 0: 1 | 2 << 4 = 33
    block.bytes[104] = 0x02;  // its upper bits; scales 4, 8 and 12 have none
    block.bytes[32] = 0x03;   // value 0: code 3
    block.bytes[0] = 0x01;    // and its third bit is set
    const auto values = block.values();
    QCOMPARE(values[0], 3.0f);     // (33 - 32) * 3
    QCOMPARE(values[1], -4.0f);    // (33 - 32) * (0 - 4)
    QCOMPARE(values[16], 128.0f);  // (0 - 32) * (0 - 4)
    block.bytes[97 + 6] = 0xf0;    // scale 15: 15 | 1 << 4 = 31, values 240 to 255
    block.bytes[107] = 0x40;
    block.bytes[31] = 0x80;  // bit 7: value 224 + 31
    QCOMPARE(block.values()[255], 0.0f);
    QCOMPARE(block.values()[254], 4.0f);  // (31 - 32) * (0 - 4)
  }
  void scalesOfQ4K() {
    Block block(StoredType::Q4_K);
    block.half(0, 1.0f);
    block.half(2, 2.0f);
    block.bytes[4] = 0xc3;        // scale 0: 3; the upper bits of scale 4: 3
    block.bytes[8] = 0x41;        // minimum 0: 1; the upper bits of minimum 4: 1
    block.bytes[12] = 0x25;       // scale 4: 5 | 3 << 4 = 53, minimum 4: 2 | 1 << 4 = 18
    block.bytes[16] = 0x07;       // value 0: code 7
    block.bytes[16 + 64] = 0x01;  // value 128: code 1
    const auto values = block.values();
    QCOMPARE(values[0], 19.0f);    // 3 * 7 - 2 * 1
    QCOMPARE(values[1], -2.0f);    // 0 - 2 * 1
    QCOMPARE(values[128], 17.0f);  // 53 * 1 - 2 * 18
    QCOMPARE(values[32], 0.0f);
  }
  void fifthBitOfQ5K() {
    Block block(StoredType::Q5_K);
    block.half(0, 1.0f);
    block.bytes[4] = 2;      // scale 0
    block.bytes[5] = 1;      // scale 1
    block.bytes[16] = 0x02;  // byte 0, bit 1: value 32
    block.bytes[48] = 0x53;  // value 0: 3, value 32: 5
    QCOMPARE(block.values()[0], 6.0f);
    QCOMPARE(block.values()[32], 21.0f);
  }
  void groupsOfQ6K() {
    Block block(StoredType::Q6_K);
    block.half(208, 0.5f);
    block.bytes[192] = 0xfe;       // scale 0: -2, values 0 to 15
    block.bytes[192 + 7] = 4;      // scale 7: values 112 to 127
    block.bytes[0] = 0x01;         // value 0: 1
    block.bytes[128] = 0x03;       // + 3 << 4
    block.bytes[63] = 0xf0;        // value 127: 15 in byte 32 + 31
    block.bytes[128 + 31] = 0x80;  // + 2 << 4
    const auto values = block.values();
    QCOMPARE(values[0], -17.0f);   // 0.5 * -2 * (49 - 32)
    QCOMPARE(values[1], 32.0f);    // 0.5 * -2 * (0 - 32)
    QCOMPARE(values[127], 30.0f);  // 0.5 * 4 * (47 - 32)
  }

  void partsOfBlocksAreRefused() {
    float out[32];
    QVERIFY_THROWS_EXCEPTION(qs::Error, qs::decode_blocks(StoredType::Q4_0, nullptr, 31, out));
    QVERIFY_THROWS_EXCEPTION(qs::Error, qs::decode_blocks(StoredType::F16, nullptr, 32, out));
  }

  void rangesOfRowsDecode() {
    std::vector<std::uint8_t> bytes;
    for (int row = 0; row < 4; ++row) {
      Block block(StoredType::Q8_0);
      block.half(0, 1.0f);
      block.bytes[2] = static_cast<std::uint8_t>(row);
      bytes.insert(bytes.end(), block.bytes.begin(), block.bytes.end());
    }
    const qs::StoredTensor tensor{"t", StoredType::Q8_0, {2, 2, 32}, std::as_bytes(std::span(bytes))};
    std::vector<float> out(64);
    qs::decode_to_f32(tensor, 1, 2, out.data());
    QCOMPARE(out[0], 1.0f);
    QCOMPARE(out[32], 2.0f);
    QVERIFY_THROWS_EXCEPTION(qs::Error, qs::decode_to_f32(tensor, 3, 2, out.data()));
    QVERIFY_THROWS_EXCEPTION(qs::Error, qs::decode_to_f32(tensor, -1, 1, out.data()));
  }
};

QTEST_GUILESS_MAIN(TestGgufBlocks)
#include "tst_gguf_blocks.moc"
