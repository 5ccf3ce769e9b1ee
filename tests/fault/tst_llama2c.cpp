#include <QtTest>
#include <cstring>

#include "backend/formats/llama2c.h"
#include "backend/types/error.h"

namespace {

constexpr std::int32_t kMagic = 0x616b3432;

/// dim 4, hidden 8, 2 layers, 2 heads, 1 KV head, 3 tokens, 2 positions.
struct Sizes {
  std::int32_t dim = 4, hidden = 8, layers = 2, heads = 2, kv_heads = 1, vocab = 3, positions = 2;
};

class Writer {
 public:
  template <typename T>
  void put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void header(std::int32_t version, const Sizes& s, bool shared, std::int32_t group = 0) {
    if (version > 0) put(kMagic), put(version);
    for (const std::int32_t value : {s.dim, s.hidden, s.layers, s.heads, s.kv_heads, s.vocab, s.positions}) put(value);
    if (version == 0) return;
    put(std::uint8_t{shared});
    if (version == 2) put(group);
    bytes.resize(256, '\0');
  }
  /// The values count up over the file, so that each tensor tells where it was read.
  void floats(int count) {
    while (count-- > 0) put(next_++);
  }
  /// Codes 1, 2, 3 ... and the scales 0.5, 1, 1.5 ...
  void codes(int count, int group) {
    for (int i = 0; i < count; ++i) put(static_cast<std::int8_t>(i % 100 + 1));
    for (int i = 0; i < count / group; ++i) put(0.5f * static_cast<float>(i + 1));
  }
  float next() const { return next_; }
  std::string bytes;

 private:
  float next_ = 0.0f;
};

qs::Llama2cFile parse(const std::string& bytes) {
  const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
  return qs::read_llama2c(qs::MappedFile::in_memory({first, first + bytes.size()}, "model.bin"));
}

std::string version0(bool shared) {
  Writer file;
  Sizes sizes;
  if (!shared) sizes.vocab = -3;
  file.header(0, sizes, shared);
  file.floats(12 + 8 + 32 + 16 + 16 + 32 + 8 + 3 * 64 + 4 + 4 + (shared ? 0 : 12));
  return file.bytes;
}

std::string version1(bool shared) {
  Writer file;
  file.header(1, {}, shared);
  file.floats(8 + 8 + 4 + 12 + 32 + 16 + 16 + 32 + 3 * 64 + (shared ? 0 : 12));
  return file.bytes;
}

std::string version2(int group = 4) {
  Writer file;
  file.header(2, {}, false, group);
  file.floats(8 + 8 + 4);
  file.codes(12, group);
  for (const int count : {16, 8, 8, 16, 32, 32, 32})
    for (int layer = 0; layer < 2; ++layer) file.codes(count, group);
  file.codes(12, group);
  return file.bytes;
}

float first_value(const qs::Llama2cFile& file, const char* name) { return qs::to_f32(file.tensors.at(name)).front(); }

}  // namespace

class TestLlama2c : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void versionZeroHasItsTensorsInOrder() {
    const qs::Llama2cFile file = parse(version0(false));
    QCOMPARE(file.header.version, 0);
    QVERIFY(!file.header.shared_classifier);
    QCOMPARE(first_value(file, "model.embed_tokens.weight"), 0.0f);
    QCOMPARE(first_value(file, "model.layers.0.input_layernorm.weight"), 12.0f);
    QCOMPARE(first_value(file, "model.layers.1.self_attn.q_proj.weight"), 36.0f);
    QCOMPARE(first_value(file, "model.layers.1.self_attn.k_proj.weight"), 60.0f);
    QCOMPARE(first_value(file, "model.layers.0.post_attention_layernorm.weight"), 116.0f);
    QCOMPARE(first_value(file, "model.layers.0.mlp.down_proj.weight"), 188.0f);
    QCOMPARE(first_value(file, "model.norm.weight"), 316.0f);
    QCOMPARE(first_value(file, "lm_head.weight"), 324.0f);  // after 4 values of rotary tables
    QVERIFY(parse(version0(true)).tensors.find("lm_head.weight") == nullptr);
  }

  void versionOneHasTheNormsInFront() {
    const qs::Llama2cFile file = parse(version1(false));
    QCOMPARE(file.header.version, 1);
    QCOMPARE(file.header.hidden_size, 4);
    QCOMPARE(first_value(file, "model.layers.0.input_layernorm.weight"), 0.0f);
    QCOMPARE(first_value(file, "model.layers.1.post_attention_layernorm.weight"), 12.0f);
    QCOMPARE(first_value(file, "model.norm.weight"), 16.0f);
    QCOMPARE(first_value(file, "model.embed_tokens.weight"), 20.0f);
    QCOMPARE(first_value(file, "model.layers.0.self_attn.q_proj.weight"), 32.0f);
    QCOMPARE(first_value(file, "model.layers.1.self_attn.v_proj.weight"), 88.0f);
    QCOMPARE(first_value(file, "model.layers.0.mlp.gate_proj.weight"), 128.0f);
    QCOMPARE(first_value(file, "model.layers.0.mlp.down_proj.weight"), 192.0f);
    QCOMPARE(first_value(file, "model.layers.1.mlp.up_proj.weight"), 288.0f);
    QCOMPARE(first_value(file, "lm_head.weight"), 320.0f);
    QVERIFY(parse(version1(true)).header.shared_classifier);
  }

  void versionTwoMultipliesCodesByTheScaleOfTheirGroup() {
    const qs::Llama2cFile file = parse(version2());
    QCOMPARE(file.header.group_size, 4);
    QCOMPARE(first_value(file, "model.norm.weight"), 16.0f);
    const qs::StoredTensor& embedding = file.tensors.at("model.embed_tokens.weight");
    QCOMPARE(embedding.type, qs::StoredType::Q8Groups);
    QCOMPARE(qs::to_f32(embedding),
             (std::vector<float>{0.5f, 1.0f, 1.5f, 2.0f, 5.0f, 6.0f, 7.0f, 8.0f, 13.5f, 15.0f, 16.5f, 18.0f}));
    std::vector<float> row(4);
    qs::decode_to_f32(embedding, 2, 1, row.data());
    QCOMPARE(row, (std::vector<float>{13.5f, 15.0f, 16.5f, 18.0f}));
    QCOMPARE(qs::to_f32(file.tensors.at("model.layers.1.self_attn.k_proj.weight")),
             (std::vector<float>{0.5f, 1.0f, 1.5f, 2.0f, 5.0f, 6.0f, 7.0f, 8.0f}));
    QCOMPARE(qs::to_f32(file.tensors.at("lm_head.weight")).back(), 18.0f);
    // Groups may cross rows.
    QCOMPARE(qs::to_f32(parse(version2(2)).tensors.at("model.layers.0.mlp.up_proj.weight"))[3], 4.0f);
  }

  void badHeadersAreRefused_data() {
    QTest::addColumn<QByteArray>("bytes");
    QTest::addColumn<QString>("says");
    const auto row = [](const char* name, const std::string& bytes, const char* says) {
      QTest::newRow(name) << QByteArray(bytes.data(), static_cast<qsizetype>(bytes.size())) << says;
    };
    const auto with_int = [](std::string bytes, std::size_t at, std::int32_t value) {
      std::memcpy(bytes.data() + at, &value, sizeof value);
      return bytes;
    };
    row("empty", "", "header of 28 bytes");
    row("short header", version1(true).substr(0, 100), "header of 256 bytes");
    row("later version", with_int(version1(true), 4, 3), "version 3");
    row("negative version", with_int(version1(true), 4, -1), "version -1");
    row("no layers", with_int(version1(true), 16, 0), "n_layers is 0");
    row("negative vocabulary", with_int(version1(true), 28, -3), "vocab_size is -3");
    row("smallest vocabulary", with_int(version0(true), 20, INT32_MIN), "vocab_size is 2147483648");
    row("odd heads", with_int(version1(true), 20, 4), "n_heads 4 must divide");
    row("KV heads", with_int(version1(true), 24, 3), "n_kv_heads 3 must divide");
    row("huge", with_int(with_int(version1(true), 8, 1 << 24), 12, 1 << 24), "truncated");
    row("no group", with_int(version2(), 37, 0), "group_size is 0");
    row("group that does not fit", with_int(version2(), 37, 5), "groups of 5");
    std::string flag = version1(true);
    flag[36] = 7;
    row("flag", flag, "is 7, expected 0 or 1");
    row("too short", version2().substr(0, version2().size() - 1), "truncated");
    row("too long", version1(false) + "x", "not a llama2.c file");
  }
  void badHeadersAreRefused() {
    QFETCH(QByteArray, bytes);
    QFETCH(QString, says);
    try {
      parse(bytes.toStdString());
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(QString(e.what()).contains(says), e.what());
      QVERIFY2(QString(e.what()).contains("'model.bin'"), e.what());
    }
  }

  void everyTruncationIsRefused() {
    for (const std::string& whole : {version0(true), version1(false), version2()})
      for (std::size_t size = 0; size < whole.size(); ++size)
        QVERIFY_THROWS_EXCEPTION(qs::Error, parse(whole.substr(0, size)));
  }
};

QTEST_GUILESS_MAIN(TestLlama2c)
#include "tst_llama2c.moc"
