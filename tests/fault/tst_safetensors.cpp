#include <sys/resource.h>

#include <QtTest>
#include <csignal>
#include <cstring>

#include "backend/formats/half.h"
#include "backend/formats/pickle.h"
#include "backend/formats/safe_write.h"
#include "backend/formats/safetensors.h"
#include "backend/formats/sha256.h"
#include "backend/types/error.h"
#include "tests/support/model_files.h"

namespace {

using qs::test::read_all;
using qs::test::write_all;

/// A file with the given header text and `data_bytes` zero bytes after it.
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string text(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(text.data(), &size, 8);
  return text + header + std::string(data_bytes, '\0');
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

}  // namespace

class TestSafetensors : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() {
    folder_ = std::make_unique<QTemporaryDir>();
    path_ = std::filesystem::path(folder_->path().toStdString()) / "model.safetensors";
  }

  void whatIsWrittenIsReadBack() {
    const std::vector<float> a = {1.0f, -2.5f, 3.0f, 0.0f, 5.0f, 6.0f};
    const std::vector<std::uint16_t> b = {qs::f32_to_f16(0.1f), qs::f32_to_f16(65504.0f)};
    qs::write_safetensors(path_,
                          {{"b", qs::StoredType::F16, {2}, std::as_bytes(std::span(b))},
                           {"a", qs::StoredType::F32, {2, 3}, std::as_bytes(std::span(a))},
                           {"empty", qs::StoredType::I32, {0, 4}, {}}},
                          {{"format", "pt"}});
    const qs::TensorTable table = qs::read_safetensors(path_);
    QCOMPARE(table.tensors.size(), std::size_t{3});
    QCOMPARE(qs::to_f32(table.at("a")), a);
    QCOMPARE(table.at("a").shape, (std::vector<std::int64_t>{2, 3}));
    QCOMPARE(qs::to_f32(table.at("b"))[1], 65504.0f);
    QCOMPARE(table.at("empty").size(), 0);
    QCOMPARE(QString::fromStdString(table.metadata.at("format")), QStringLiteral("pt"));
    QVERIFY(table.find("c") == nullptr);
    expect([&] { (void)table.at("c"); }, qs::ErrorCode::NotFound, "'c'");
  }

  void everyHalfRoundTrips() {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const float value = qs::f16_to_f32(static_cast<std::uint16_t>(bits));
      if (value != value) continue;
      QCOMPARE(qs::f32_to_f16(value), static_cast<std::uint16_t>(bits));
    }
    QCOMPARE(qs::f32_to_f16(65520.0f), std::uint16_t{0x7c00});         // halfway to the next: infinity
    QCOMPARE(qs::f32_to_f16(1.0f + 0x1p-11f), std::uint16_t{0x3c00});  // tie to even
    QCOMPARE(qs::f32_to_f16(1.0f + 0x3p-11f), std::uint16_t{0x3c02});
    QCOMPARE(qs::f32_to_f16(0x1p-25f), std::uint16_t{0});
    QCOMPARE(qs::f32_to_bf16(1.0f + 0x1p-8f), std::uint16_t{0x3f80});
  }

  void badHeadersAreRefused_data() {
    QTest::addColumn<QByteArray>("bytes");
    QTest::addColumn<QString>("says");
    const auto row = [](const char* name, const std::string& bytes, const char* says) {
      QTest::newRow(name) << QByteArray(bytes.data(), static_cast<qsizetype>(bytes.size())) << says;
    };
    const std::string good = entry("F32", "[2]", "[0,8]");
    row("empty file", "", "truncated");
    row("shorter than the length", "abc", "truncated");
    row("length beyond the file", file_of("{}", 0).replace(0, 2, "\x40\x1f"), "truncated");
    row("absurd length", std::string(16, '\xff'), "header of");
    row("not JSON", file_of("{\"a\":", 0), "not JSON");
    row("not UTF-8", file_of("{\"\xff\xfe\":1}", 0), "not JSON");
    row("not an object", file_of("[1]", 0), "not a JSON object");
    row("nested deeply", file_of("{\"a\":" + std::string(2000, '[') + std::string(2000, ']') + "}", 0), "nested");
    row("duplicate name", file_of("{\"a\":" + good + ",\"a\":" + good + "}", 8), "twice");
    row("missing fields", file_of(R"({"a":{"dtype":"F32"}})", 0), "lacks");
    row("unknown dtype", file_of("{\"a\":" + entry("F3", "[2]", "[0,8]") + "}", 8), "unknown dtype");
    row("dtype of the wrong kind", file_of(R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})", 8), "dtype");
    row("negative extent", file_of("{\"a\":" + entry("F32", "[-2]", "[0,8]") + "}", 8), "whole number");
    row("shape overflows", file_of("{\"a\":" + entry("F32", "[4294967296,4294967296,4]", "[0,8]") + "}", 8),
        "too large");
    row("shape overflows but for a zero",
        file_of("{\"a\":" + entry("F32", "[0,4294967296,4294967296]", "[0,0]") + "}", 0), "too large");
    row("shape against size", file_of("{\"a\":" + entry("F32", "[3]", "[0,8]") + "}", 8), "needs 12 bytes");
    row("reversed offsets", file_of("{\"a\":" + entry("F32", "[2]", "[8,0]") + "}", 8), "before it begins");
    row("offset beyond the end", file_of("{\"a\":" + entry("F32", "[2]", "[4,12]") + "}", 8), "truncated");
    row("fractional offset", file_of("{\"a\":" + entry("F32", "[2]", "[0.5,8]") + "}", 8), "whole number");
    row("offsets not a pair", file_of("{\"a\":" + entry("F32", "[2]", "[0]") + "}", 8), "pair");
    row("overlap", file_of("{\"a\":" + good + ",\"b\":" + entry("F32", "[2]", "[4,12]") + "}", 12), "overlap");
    row("equal ranges", file_of("{\"a\":" + good + ",\"b\":" + good + "}", 8), "overlap");
    row("gap", file_of("{\"a\":" + good + ",\"b\":" + entry("F32", "[2]", "[12,20]") + "}", 20), "gap of 4");
    row("bytes of nobody", file_of("{\"a\":" + good + "}", 24), "belong to none");
    row("metadata not texts", file_of("{\"__metadata__\":{\"a\":1},\"a\":" + good + "}", 8), "not a text");
  }
  void badHeadersAreRefused() {
    QFETCH(QByteArray, bytes);
    QFETCH(QString, says);
    write_all(path_, bytes.toStdString());
    try {
      qs::read_safetensors(path_);
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(QString(e.what()).contains(says), e.what());
      QVERIFY2(QString(e.what()).contains("model.safetensors"), e.what());
    }
  }

  void everyTruncationIsRefused() {
    qs::test::TinyModel().write(folder());
    const std::string whole = read_all(path_);
    for (std::size_t size = 0; size < whole.size(); size += 1 + size / 7) {
      write_all(path_, whole.substr(0, size));
      QVERIFY_EXCEPTION_THROWN(qs::read_safetensors(path_), qs::Error);
    }
  }

  void flippedHeaderBytesNeverCrash() {
    qs::test::TinyModel().write(folder());
    const std::string whole = read_all(path_);
    std::uint64_t header = 0;
    std::memcpy(&header, whole.data(), 8);
    int refused = 0;
    for (std::size_t at = 0; at < 8 + header; at += 3) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x15);
      write_all(path_, damaged);
      try {
        qs::read_safetensors(path_);
      } catch (const qs::Error&) {
        ++refused;
      }
    }
    QVERIFY(refused > 0);
  }

  void missingFilesAndFoldersAreNamed() {
    expect([&] { qs::read_safetensors(path_); }, qs::ErrorCode::NotFound, "does not exist");
    expect([&] { qs::read_safetensors(folder()); }, qs::ErrorCode::InvalidArgument, "regular file");
    write_all(folder() / "llama2c.bin", "x");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::NotFound, "model.safetensors.index.json.");
    write_all(folder() / "model-00001-of-00002.safetensors", "x");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::NotFound, "It has 'model-00001-of");
  }

  void shardsAreJoinedAndTheirFaultsNamed() {
    const qs::test::TinyModel tiny;
    tiny.write_sharded(folder());
    const auto index = folder() / "model.safetensors.index.json";
    const qs::TensorTable table = qs::read_safetensors_folder(folder());
    QCOMPARE(table.tensors.size(), tiny.tensors.size());
    QCOMPARE(qs::to_f32(table.at("lm_head.weight")), tiny.tensors.back().values);
    const std::string good = read_all(index);

    std::filesystem::rename(folder() / "model-00002-of-00002.safetensors", folder() / "elsewhere");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::NotFound, "model-00002-of-00002.safetensors");
    std::filesystem::rename(folder() / "elsewhere", folder() / "model-00002-of-00002.safetensors");

    write_all(index, "{");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::BadFormat, "not JSON");
    write_all(index, "{\"weight_map\":{}}");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::BadFormat, "weight_map");
    write_all(index, R"({"weight_map":{"a":"../secret.safetensors"}})");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::BadFormat, "beside the index");
    write_all(index, R"({"weight_map":{"nowhere":"model-00001-of-00002.safetensors"}})");
    expect([&] { qs::read_safetensors_folder(folder()); }, qs::ErrorCode::NotFound, "nowhere");
  }

  void anIndexMustAgreeWithItsShards() {
    const qs::test::TinyModel tiny;
    tiny.write_sharded(folder());
    const auto index = folder() / "model.safetensors.index.json";
    const auto read = [&] { qs::read_safetensors_folder(folder()); };
    write_all(index, R"({"weight_map":{"lm_head.weight":"model-00001-of-00002.safetensors"}})");
    expect(read, qs::ErrorCode::NotFound, "has no tensor 'lm_head.weight'");
    write_all(index, R"({"weight_map":{"lm_head.weight":"model-00002-of-00002.safetensors",
                                       "lm_head.weight":"model-00001-of-00002.safetensors"}})");
    expect(read, qs::ErrorCode::BadFormat, "'lm_head.weight' twice");
    for (const char* outside : {"/etc/passwd", "..", "a/b.safetensors", "./x.safetensors", ""}) {
      write_all(index, R"({"weight_map":{"a":")" + std::string(outside) + R"("}})");
      expect(read, qs::ErrorCode::BadFormat, "beside the index");
    }
    write_all(index, R"({"weight_map":{"a":5}})");
    expect(read, qs::ErrorCode::BadFormat, "not a text");
    write_all(index, "{\"weight_map\":" + std::string(100000, '[') + std::string(100000, ']') + "}");
    expect(read, qs::ErrorCode::BadFormat, "nested");
    write_safetensors(folder() / "model-00001-of-00002.safetensors", tiny.stored(0, tiny.tensors.size()));
    write_all(index, R"({"weight_map":{"lm_head.weight":"model-00002-of-00002.safetensors",
                                       "model.embed_tokens.weight":"model-00001-of-00002.safetensors"}})");
    expect(read, qs::ErrorCode::BadFormat, "lies in 'model-00001-of-00002.safetensors' and in");
  }

  void oneFileGoesBeforeAnIndex() {
    qs::test::TinyModel first(1), second(2);
    first.write_sharded(folder());
    second.write(folder());
    QCOMPARE(qs::to_f32(qs::read_safetensors_folder(folder()).at("lm_head.weight")),
             second.at("lm_head.weight").values);
  }

  void eightBitFloatsAreDecoded() {
    const std::vector<std::uint8_t> e4m3 = {0x38, 0xb8, 0x7e, 0x01, 0x80}, e5m2 = {0x3c, 0x7b, 0x01};
    qs::write_safetensors(path_, {{"a", qs::StoredType::F8E4M3, {5}, std::as_bytes(std::span(e4m3))},
                                  {"b", qs::StoredType::F8E5M2, {3}, std::as_bytes(std::span(e5m2))}});
    const qs::TensorTable table = qs::read_safetensors(path_);
    QCOMPARE(qs::to_f32(table.at("a")), (std::vector<float>{1.0f, -1.0f, 448.0f, 0x1p-9f, -0.0f}));
    QCOMPARE(qs::to_f32(table.at("b")), (std::vector<float>{1.0f, 57344.0f, 0x1p-16f}));
  }

  void picklesAreRefusedWithTheCommandThatConvertsThem() {
    const std::string zip = std::string("PK\x03\x04", 4) + "rest";
    write_all(folder() / "pytorch_model-00001-of-00002.bin", zip);
    write_all(folder() / "pytorch_model-00002-of-00002.bin", zip);
    const auto read = [&] { qs::read_safetensors_folder(folder()); };
    expect(read, qs::ErrorCode::NotFound, "Pickled weights are not read, because reading a pickle runs");
    expect(read, qs::ErrorCode::NotFound, "python3 -c \"import sys, torch");
    expect(read, qs::ErrorCode::NotFound, "pytorch_model-00002-of-00002.bin'");
    std::filesystem::remove(folder() / "pytorch_model-00001-of-00002.bin");
    std::filesystem::remove(folder() / "pytorch_model-00002-of-00002.bin");
    write_all(folder() / "training_args.bin", zip);
    write_all(folder() / "optimizer.pt", zip);
    QVERIFY(qs::pickles_in(folder()).empty());
    write_all(folder() / "consolidated.00.pth", std::string("\x80\x02\x8a\x0a", 4));
    expect(read, qs::ErrorCode::NotFound, "convert_llama_weights_to_hf --input_dir '");
  }

  void picklesAreToldFromLlama2cFiles() {
    const auto check = [&](const std::string& bytes) {
      write_all(folder() / "x.bin", bytes);
      return qs::is_pickle(folder() / "x.bin");
    };
    QVERIFY(check(std::string("PK\x03\x04", 4)));
    QVERIFY(check(std::string("\x80\x02\x8a\x0a\x6c", 5)));
    QVERIFY(check("\x80\x04\x95\x10"));
    QVERIFY(!check(std::string("\x80\x02\x00\x00", 4)));  // the size 640
    QVERIFY(!check(std::string("\x00\x01\x00\x00", 4)));
    QVERIFY(!check("PK"));
    QVERIFY(!qs::is_pickle(folder()));
    QVERIFY(qs::pickle_advice("/a b/it's.pt").find("'/a b/it'\\''s.pt'") != std::string::npos);
  }

  void refusedWritesLeaveNothing() {
    const std::vector<float> a = {1.0f};
    const qs::StoredTensor tensor{"a", qs::StoredType::F32, {1}, std::as_bytes(std::span(a))};
    expect([&] { qs::write_safetensors(path_, {tensor, tensor}); }, qs::ErrorCode::InvalidArgument, "twice");
    qs::StoredTensor wrong = tensor;
    wrong.shape = {2};
    expect([&] { qs::write_safetensors(path_, {wrong}); }, qs::ErrorCode::InvalidArgument, "needs 8 bytes");
    expect([&] { qs::write_safetensors(folder() / "none" / "x", {tensor}); }, qs::ErrorCode::Io, "cannot be written");
    QVERIFY(std::filesystem::is_empty(folder()));
  }

  void anAbandonedWriteKeepsTheOldFile() {
    write_all(path_, "old");
    {
      qs::SafeFile file(path_);
      file.write("half of it");
    }
    QCOMPARE(QString::fromStdString(read_all(path_)), QStringLiteral("old"));
    QCOMPARE(std::distance(std::filesystem::directory_iterator(folder()), {}), std::ptrdiff_t{1});
    qs::write_file_safely(path_, "new");
    QCOMPARE(QString::fromStdString(read_all(path_)), QStringLiteral("new"));
  }

  void aWriteThatFailsHalfwayIsReportedAndLeavesNothing() {
    // A limit on file sizes makes write() fail in the middle, as a full disk does.
    rlimit old = {};
    QVERIFY(getrlimit(RLIMIT_FSIZE, &old) == 0);
    const auto previous = std::signal(SIGXFSZ, SIG_IGN);
    rlimit small = old;
    small.rlim_cur = 1024;
    setrlimit(RLIMIT_FSIZE, &small);
    const std::vector<float> big(4096, 1.0f);
    QString message;
    try {
      qs::write_safetensors(path_, {{"a", qs::StoredType::F32, {4096}, std::as_bytes(std::span(big))}});
    } catch (const qs::Error& e) {
      message = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, previous);
    QVERIFY2(message.contains("could not be written after"), qPrintable(message));
    QVERIFY(std::filesystem::is_empty(folder()));
  }

  void sha256IsTheStandards() {
    QCOMPARE(QString::fromStdString(qs::sha256_hex(std::string_view("abc"))),
             QStringLiteral("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
  }

 private:
  std::filesystem::path folder() const { return path_.parent_path(); }
  template <typename Work>
  static void expect(Work work, qs::ErrorCode code, const char* says) {
    try {
      work();
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(e.code() == code, e.what());
      QVERIFY2(QString(e.what()).contains(says), e.what());
    }
  }

  std::unique_ptr<QTemporaryDir> folder_;
  std::filesystem::path path_;
};

QTEST_GUILESS_MAIN(TestSafetensors)
#include "tst_safetensors.moc"
