#include <QtTest>

#include "backend/formats/gguf.h"
#include "backend/types/error.h"
#include "tests/support/gguf_writer.h"

using qs::test::GgufWriter;

namespace {

std::string zeros(std::size_t count) { return std::string(count, '\0'); }

qs::GgufFile parse(const std::string& bytes) {
  const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
  return qs::GgufFile::read(qs::MappedFile::in_memory({first, first + bytes.size()}, "model.gguf"));
}

/// One of every kind.
GgufWriter whole() {
  GgufWriter file;
  file.text("general.architecture", "llama");
  file.number("u8", 0, std::uint8_t{200});
  file.number("i8", 1, std::int8_t{-3});
  file.number("u16", 2, std::uint16_t{60000});
  file.number("i16", 3, std::int16_t{-300});
  file.u32("u32", 4000000000u);
  file.number("i32", 5, std::int32_t{-70000});
  file.f32("f32", 0.5f);
  file.flag("yes", true);
  file.number("u64", 10, std::uint64_t{1} << 40);
  file.number("huge", 10, std::uint64_t{1} << 63);
  file.number("i64", 11, std::int64_t{-5});
  file.number("f64", 12, 0.1);
  file.texts("words", {"", "a", "\xe2\x96\x81the"});
  file.array<std::int32_t>("kinds", 5, {1, -2, 3});
  file.array<float>("scores", 6, {0.0f, -1.5f});
  file.array<std::uint8_t>("flags", 7, {1, 0});
  file.array<std::uint32_t>("nothing", 4, {});
  file.tensor("b.weight", 0, {2, 3}, std::string("\0\0\x80\x3f", 4) + zeros(20));
  file.tensor("a.weight", 8, {2, 32}, zeros(68));
  file.tensor("scalar", 1, {}, zeros(2));
  return file;
}

}  // namespace

class TestGguf : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyKindOfValueIsRead() {
    const qs::GgufFile file = parse(whole().bytes());
    QCOMPARE(file.version(), 3u);
    QCOMPARE(*file.text("general.architecture"), std::string_view("llama"));
    QCOMPARE(*file.integer("u8"), 200);
    QCOMPARE(*file.integer("i8"), -3);
    QCOMPARE(*file.integer("u16"), 60000);
    QCOMPARE(*file.integer("i16"), -300);
    QCOMPARE(*file.integer("u32"), 4000000000);
    QCOMPARE(*file.integer("i32"), -70000);
    QCOMPARE(*file.integer("u64"), std::int64_t{1} << 40);
    QCOMPARE(*file.integer("i64"), -5);
    QCOMPARE(*file.real("f32"), 0.5);
    QCOMPARE(*file.real("f64"), 0.1);
    QCOMPARE(*file.real("i8"), -3.0);
    QCOMPARE(*file.real("huge"), 0x1p63);
    QCOMPARE(*file.flag("yes"), true);
    QCOMPARE(*file.texts("words"), (std::vector<std::string_view>{"", "a", "\xe2\x96\x81the"}));
    QCOMPARE(*file.integers("kinds"), (std::vector<std::int64_t>{1, -2, 3}));
    QCOMPARE(*file.integers("flags"), (std::vector<std::int64_t>{1, 0}));
    QCOMPARE(*file.reals("scores"), (std::vector<double>{0.0, -1.5}));
    QCOMPARE(*file.reals("kinds"), (std::vector<double>{1.0, -2.0, 3.0}));
    QVERIFY(file.integers("nothing")->empty());
    QVERIFY(!file.text("absent") && !file.integer("absent") && !file.real("absent") && !file.flag("absent"));
    QVERIFY(!file.texts("absent") && !file.integers("absent") && !file.reals("absent"));
    QCOMPARE(file.tensors().metadata.at("i16"), std::string("-300"));
  }

  void tensorsHaveTheirShapeOutermostFirst() {
    const qs::GgufFile file = parse(whole().bytes());
    const qs::TensorTable& table = file.tensors();
    QCOMPARE(table.tensors.size(), std::size_t{3});
    QCOMPARE(table.at("b.weight").shape, (std::vector<std::int64_t>{2, 3}));
    QCOMPARE(qs::to_f32(table.at("b.weight")), (std::vector<float>{1, 0, 0, 0, 0, 0}));
    QCOMPARE(table.at("a.weight").type, qs::StoredType::Q8_0);
    QCOMPARE(table.at("a.weight").bytes.size(), std::size_t{68});
    QCOMPARE(table.at("scalar").size(), 1);
  }

  void versionTwoAndOtherAlignmentsAreRead() {
    GgufWriter file;
    file.version = 2;
    file.alignment = 8;
    file.u32("general.alignment", 8);
    file.tensor("x", 0, {1}, zeros(4));
    file.tensor("y", 0, {1}, std::string("\0\0\x80\x3f", 4));
    QCOMPARE(qs::to_f32(parse(file.bytes()).tensors().at("y")), std::vector<float>{1.0f});
  }

  void aValueOfAnotherKindIsNamed() {
    const qs::GgufFile file = parse(whole().bytes());
    expect([&] { (void)file.text("u8"); }, "'u8' at byte ");
    expect([&] { (void)file.integer("f32"); }, "is f32, expected a whole number");
    expect([&] { (void)file.integer("huge"); }, "below 2^63");
    expect([&] { (void)file.integer("yes"); }, "is bool");
    expect([&] { (void)file.real("words"); }, "an array of 3 text");
    expect([&] { (void)file.flag("u8"); }, "expected true or false");
    expect([&] { (void)file.texts("kinds"); }, "expected an array of texts");
    expect([&] { (void)file.integers("scores"); }, "array of whole numbers");
    expect([&] { (void)file.reals("words"); }, "array of numbers");
  }

  void badFilesAreRefused_data() {
    QTest::addColumn<QByteArray>("bytes");
    QTest::addColumn<QString>("says");
    const auto row = [](const char* name, const std::string& bytes, const char* says) {
      QTest::newRow(name) << QByteArray(bytes.data(), static_cast<qsizetype>(bytes.size())) << says;
    };
    row("empty", "", "letters GGUF");
    row("another format", "GGML" + zeros(40), "letters GGUF");
    row("nothing after the magic", "GGUF", "the version at byte 4");
    GgufWriter file;
    file.version = 1;
    row("version 1", file.bytes(), "version 1");
    file.version = 0x03000000;
    row("big-endian", file.bytes(), "big-endian");
    file = {};
    file.claimed_metadata = 1 << 20;
    row("too many metadata", file.bytes(), "at most 65536");
    file.claimed_metadata = 60000;
    row("metadata beyond the file", file.bytes(), "claims 60000 metadata entries");
    file = {};
    file.claimed_tensors = INT64_MAX;
    row("too many tensors", file.bytes(), "at most 1048576");
    file = {};
    std::string key;
    GgufWriter::put(key, std::uint64_t{1} << 62);
    file.raw_metadata(key + zeros(32));
    row("length of a key", file.bytes(), "the key of metadata entry 0 at byte 32");
    file = {};
    file.number("x", 13, 0);
    row("unknown value type", file.bytes(), "unknown type 13");
    file = {};
    file.number("x", 7, std::uint8_t{2});
    row("a boolean of 2", file.bytes(), "true or false");
    file = {};
    file.u32("x", 1);
    file.u32("x", 2);
    row("a key twice", file.bytes(), "'x' appears twice");
    file = {};
    file.array<std::uint64_t>("x", 9, {0, 0});
    row("nested arrays", file.bytes(), "array of arrays");
    const auto claimed_array = [](std::uint32_t type, std::uint64_t count) {
      GgufWriter writer;
      std::string bytes;
      GgufWriter::put_text(bytes, "x");
      GgufWriter::put(bytes, std::uint32_t{9});
      GgufWriter::put(bytes, type);
      GgufWriter::put(bytes, count);
      writer.raw_metadata(bytes + zeros(16));
      return writer.bytes();
    };
    row("array beyond the file", claimed_array(4, 1u << 30), "metadata 'x' at byte");
    row("array whose size overflows", claimed_array(12, std::uint64_t{1} << 62), "truncated");
    row("texts beyond the file", claimed_array(8, std::uint64_t{1} << 61), "texts");
    file = {};
    file.u32("general.alignment", 24);
    row("alignment", file.bytes(), "power of two");
    file = {};
    file.text("general.alignment", "32");
    row("alignment as text", file.bytes(), "'general.alignment'");
    file = {};
    file.tensor("t", 0, {1, 1, 1, 1, 1}, zeros(4));
    row("five dimensions", file.bytes(), "5 dimensions");
    file = {};
    file.tensor("t", 0, {std::int64_t{1} << 40, std::int64_t{1} << 40}, zeros(4));
    row("shape overflows", file.bytes(), "too large");
    file = {};
    file.tensor("t", 0, {std::int64_t{1} << 40, std::int64_t{1} << 40, 0}, "");
    row("shape overflows but for a zero", file.bytes(), "too large");
    file = {};
    file.tensor("t", 0, {-1}, zeros(4));
    row("negative extent", file.bytes(), "too large");
    file = {};
    file.tensor("t", 0, {std::int64_t{1} << 62}, zeros(4));
    row("bytes overflow", file.bytes(), "too large");
    file = {};
    file.tensor("t", 77, {1}, zeros(4));
    row("unknown tensor type", file.bytes(), "unknown type 77");
    file = {};
    file.tensor("t", 20, {32}, zeros(18));
    row("a type that is not read", file.bytes(), "IQ4_NL");
    file = {};
    file.tensor("t", 12, {2, 128}, zeros(144));
    row("half a block in a row", file.bytes(), "multiple of 256");
    file = {};
    file.tensor_at("t", 0, {4}, 8);
    row("unaligned", file.bytes() + zeros(64), "no multiple of 32");
    file = {};
    file.tensor_at("t", 0, {4}, 32);
    row("beyond the end", file.bytes() + zeros(40), "'t' of shape [4] needs 16 bytes at byte 32");
    file = {};
    file.tensor_at("t", 0, {4}, std::uint64_t{1} << 63);
    row("offset overflows", file.bytes() + zeros(40), "truncated");
    file = {};
    file.tensor("t", 0, {16}, zeros(64));
    file.tensor_at("u", 0, {4}, 32);
    row("overlap", file.bytes(), "'t' and 'u' overlap");
    file = {};
    file.tensor("t", 0, {8}, zeros(32));
    file.tensor("t", 0, {8}, zeros(32));
    row("a name twice", file.bytes(), "'t' appears twice");
    file = {};
    file.tensor("\xff\n", 0, {64}, zeros(4));
    row("a name that cannot be shown", file.bytes(), "'\\xff\\x0a'");
  }
  void badFilesAreRefused() {
    QFETCH(QByteArray, bytes);
    QFETCH(QString, says);
    expect([&] { parse(bytes.toStdString()); }, says);
    expect([&] { parse(bytes.toStdString()); }, "'model.gguf'");
  }

  void everyTruncationIsRefused() {
    GgufWriter writer = whole();
    writer.tensor("last", 0, {8}, zeros(32));
    const std::string bytes = writer.bytes();
    for (std::size_t size = 0; size < bytes.size(); ++size) expect([&] { parse(bytes.substr(0, size)); }, "model.gguf");
  }

  void everyByteMayBeWrong() {
    const std::string bytes = whole().bytes();
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      for (const char value : {'\0', '\x01', '\x7f', '\xff'}) {
        std::string damaged = bytes;
        damaged[at] = value;
        try {
          const qs::GgufFile file = parse(damaged);
          for (const qs::StoredTensor& tensor : file.tensors().tensors)
            if (qs::is_float(tensor.type)) (void)qs::to_f32(tensor);
        } catch (const qs::Error&) {
        }
      }
    }
  }

 private:
  template <typename Work>
  static void expect(Work&& work, const QString& says) {
    try {
      work();
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(QString(e.what()).contains(says), e.what());
    }
  }
};

QTEST_GUILESS_MAIN(TestGguf)
#include "tst_gguf.moc"
