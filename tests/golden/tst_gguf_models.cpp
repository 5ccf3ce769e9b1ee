#include <ATen/ATen.h>

#include <QtTest>

#include "backend/formats/gguf.h"
#include "backend/formats/safetensors.h"
#include "backend/model/decoder.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "tests/support/family_cases.h"
#include "tests/support/gguf_llama.h"
#include "tests/support/run_cli.h"

using namespace qs;
using namespace qs::test;

namespace {

const std::filesystem::path kStories = QS_TEST_DATA "/models/stories260K-hf";

at::Tensor logits(const Model& model, const std::vector<std::int64_t>& ids) {
  FullPrecisionWindow attention;
  return forward(model.spec(), model.weights(), RaggedBatch::single(ids), attention, LogitRows::All, nullptr, {});
}

}  // namespace

class TestGgufModels : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() { folder_ = std::make_unique<QTemporaryDir>(); }

  // Converted with llama.cpp's Python package from the checkpoints that the transformers library computed.
  void familiesComputeWhatTheirCheckpointsDo_data() {
    QTest::addColumn<QString>("name");
    for (const auto& entry : std::filesystem::directory_iterator(QS_TEST_DATA "/gguf/families"))
      QTest::newRow(entry.path().stem().c_str()) << QString::fromStdString(entry.path().stem().string());
    QVERIFY(std::filesystem::exists(QS_TEST_DATA "/gguf/families/gemma2.gguf"));
  }
  void familiesComputeWhatTheirCheckpointsDo() {
    QFETCH(QString, name);
    const FamilyCase& family = family_case(name.toStdString());
    const auto model =
        Model::load(std::filesystem::path(QS_TEST_DATA "/gguf/families") / (name.toStdString() + ".gguf"), {}, {});
    QCOMPARE(model->info().architecture, family.model->info().architecture);
    QCOMPARE(model->info().parameters, family.model->info().parameters);
    std::vector<std::int64_t> ids = family.ids();
    // llama.cpp keeps no window of Qwen 2; the case has one of 8 tokens.
    const std::int64_t tokens = std::min({static_cast<std::int64_t>(ids.size()), model->info().max_context,
                                          name == "qwen2" ? std::int64_t{8} : std::int64_t{1000}});
    ids.resize(static_cast<std::size_t>(tokens));
    const at::Tensor expected = family.at("logits").narrow(0, 0, tokens);
    const double difference = largest_difference(logits(*model, ids), expected);
    QVERIFY2(difference < 1e-4, qPrintable(QString::number(difference)));
  }

  void weightsOfEveryTypeAreLoaded_data() {
    QTest::addColumn<int>("type");
    for (const StoredType type : gguf_types()) QTest::newRow(stored_type_id(type)) << static_cast<int>(type);
  }
  void weightsOfEveryTypeAreLoaded() {
    QFETCH(int, type);
    const auto path = write(tiny_gguf(static_cast<StoredType>(type)));
    const auto model = Model::load(path, {}, {});
    const TensorTable table = GgufFile::read(path).tensors();
    QCOMPARE(model->info().dtype, std::string(stored_type_name(static_cast<StoredType>(type))));
    QCOMPARE(model->info().format, std::string("GGUF"));
    const DecoderBlock& block = model->weights().blocks.front();
    const std::pair<LinearKind, const char*> linears[] = {
        {LinearKind::Q, "attn_q"},      {LinearKind::K, "attn_k"},      {LinearKind::V, "attn_v"},
        {LinearKind::O, "attn_output"}, {LinearKind::Gate, "ffn_gate"}, {LinearKind::Up, "ffn_up"},
        {LinearKind::Down, "ffn_down"}};
    for (const auto& [kind, name] : linears) {
      const StoredTensor& stored = table.at(std::string("blk.0.") + name + ".weight");
      const at::Tensor weight = block.linear(kind).weight().contiguous();
      const bool paired = kind == LinearKind::Q || kind == LinearKind::K;
      QCOMPARE(weight.size(0), stored.rows());
      std::vector<float> row(static_cast<std::size_t>(stored.columns()));
      for (std::int64_t i = 0; i < stored.rows(); ++i) {
        const std::int64_t channel = i % 64;
        decode_to_f32(stored, paired ? i - channel + 2 * (channel % 32) + channel / 32 : i, 1, row.data());
        QVERIFY2(std::memcmp(row.data(), weight[i].data_ptr<float>(), row.size() * sizeof(float)) == 0, name);
      }
    }
    QVERIFY(at::isfinite(logits(*model, {1, 2, 3})).all().item<bool>());
  }

  void theCommandLineOpensEveryType_data() { weightsOfEveryTypeAreLoaded_data(); }
  void theCommandLineOpensEveryType() {
    QFETCH(int, type);
    const QString path = QString::fromStdString(write(tiny_gguf(static_cast<StoredType>(type))).string());
    const CliResult inspected = run_cli({"inspect", path, "--json"});
    QVERIFY2(inspected.status == 0, inspected.error);
    QCOMPARE(inspected.json()["format"].toString(), QStringLiteral("GGUF"));
    QCOMPARE(inspected.json()["dtype"].toString(), QString::fromUtf8(stored_type_name(static_cast<StoredType>(type))));
    const CliResult generated = run_cli({"generate", path, "--prompt-ids", "1,2,3", "--max-tokens", "4"});
    QVERIFY2(generated.status == 0, generated.error);
  }

  void aConvertedFolderComputesTheSame_data() {
    QTest::addColumn<int>("type");
    QTest::newRow("F32") << static_cast<int>(StoredType::F32);
    QTest::newRow("F16") << static_cast<int>(StoredType::F16);
  }
  void aConvertedFolderComputesTheSame() {
    QFETCH(int, type);
    const std::vector<std::int64_t> ids = {1, 403, 407, 261, 378, 400, 300, 12};
    TensorTable weights = read_safetensors_folder(kStories);
    const auto stored = static_cast<StoredType>(type);
    // In f16 the folder is rounded first, so that both hold the same values.
    const auto folder = std::filesystem::path(folder_->path().toStdString()) / "hf";
    std::filesystem::create_directories(folder);
    std::filesystem::copy(kStories / "config.json", folder / "config.json");
    std::vector<std::vector<float>> kept;
    for (StoredTensor& tensor : weights.tensors) {
      kept.push_back(to_f32(tensor));
      if (stored == StoredType::F16 && tensor.shape.size() > 1)
        for (float& value : kept.back()) value = f16_to_f32(f32_to_f16(value));
      tensor.type = StoredType::F32;
      tensor.bytes = std::as_bytes(std::span(kept.back()));
    }
    write_safetensors(folder / "model.safetensors", weights.tensors);
    const auto expected = Model::load(folder, {}, {});
    const auto found = Model::load(write(llama_gguf(weights, stored, 5, 8, 4)), {}, {});
    const double difference = largest_difference(logits(*found, ids), logits(*expected, ids));
    QVERIFY2(difference < 1e-5, qPrintable(QString::number(difference)));
  }

  void wrongDescriptionsAreNamed_data() {
    QTest::addColumn<QString>("says");
    QTest::newRow("unknown") << "'fancy', which is not known. Known in GGUF files are llama";
    QTest::newRow("missing") << "no llama.block_count";
    QTest::newRow("zero") << "llama.block_count is 0";
    QTest::newRow("array") << "'llama.attention.head_count' at byte";
    QTest::newRow("heads") << "does not divide";
    QTest::newRow("scaled") << "llama.logit_scale = 0.5";
    QTest::newRow("scaling") << "llama.rope.scaling.type = odd";
    QTest::newRow("split") << "llama-gguf-split --merge";
    QTest::newRow("shape") << "'blk.0.attn_q.weight' has shape [256, 256]";
    QTest::newRow("no architecture") << "no general.architecture";
    QTest::newRow("not finite") << "NaN or infinite";
  }
  void wrongDescriptionsAreNamed() {
    const std::string row = QTest::currentDataTag();
    QFETCH(QString, says);
    const auto build = [&row] {
      GgufWriter file;
      if (row != "no architecture") file.text("general.architecture", row == "unknown" ? "fancy" : "llama");
      if (row != "missing") file.u32("llama.block_count", row == "zero" ? 0 : 1);
      file.u32("llama.context_length", 64);
      file.u32("llama.embedding_length", row == "shape" ? 512 : 256);
      file.u32("llama.feed_forward_length", 512);
      if (row == "array") {
        file.array<std::uint32_t>("llama.attention.head_count", 4, {4, 4});
      } else {
        file.u32("llama.attention.head_count", row == "heads" ? 3 : 4);
      }
      if (row == "scaled") file.f32("llama.logit_scale", 0.5f);
      if (row == "scaling") file.text("llama.rope.scaling.type", "odd");
      if (row == "split") file.number("split.count", 2, std::uint16_t{3});
      const std::string nan = row == "not finite" ? std::string(256 * 4, '\xff') : std::string(256 * 4, '\0');
      const auto add = [&](const char* name, const std::vector<std::int64_t>& shape) {
        std::int64_t count = 1;
        for (const std::int64_t extent : shape) count *= extent;
        file.tensor(name, 0, shape, std::string(static_cast<std::size_t>(count) * 4, '\0'));
      };
      add("token_embd.weight", {32, row == "shape" ? 512 : 256});
      for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
        add((std::string("blk.0.") + name + ".weight").c_str(), {256, 256});
      add("blk.0.ffn_gate.weight", {512, 256});
      add("blk.0.ffn_up.weight", {512, 256});
      add("blk.0.ffn_down.weight", {256, 512});
      file.tensor("blk.0.attn_norm.weight", 0, {row == "shape" ? 512 : 256},
                  std::string(row == "shape" ? 2048 : 1024, '\0'));
      add("blk.0.ffn_norm.weight", {256});
      file.tensor("output_norm.weight", 0, {256}, nan);
      return file;
    };
    try {
      Model::load(write(build()), {}, {});
      QFAIL("accepted");
    } catch (const Error& e) {
      QVERIFY2(QString(e.what()).contains(says), e.what());
      QVERIFY2(QString(e.what()).contains("model.gguf"), e.what());
    }
  }

 private:
  std::filesystem::path write(const GgufWriter& file) const {
    const auto path = std::filesystem::path(folder_->path().toStdString()) / "model.gguf";
    file.write(path);
    return path;
  }

  std::unique_ptr<QTemporaryDir> folder_;
};

QTEST_GUILESS_MAIN(TestGgufModels)
#include "tst_gguf_models.moc"
