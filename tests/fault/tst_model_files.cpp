#include <sys/resource.h>

#include <QtTest>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/formats/llama2c.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "tests/support/model_files.h"

namespace {

using qs::ErrorCode;
using qs::test::read_all;
using qs::test::TinyModel;
using qs::test::write_all;

const std::filesystem::path kStories = QS_TEST_DATA "/models/stories260K-hf";
const std::filesystem::path kLlama2c = QS_TEST_DATA "/models/stories260K/stories260K.bin";

}  // namespace

class TestModelFiles : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() {
    temporary_ = std::make_unique<QTemporaryDir>();
    folder_ = std::filesystem::path(temporary_->path().toStdString()) / "tiny";
  }

  void aWholeModelLoadsWithoutATokenizer() {
    TinyModel().write(folder_);
    const auto model = qs::Model::load(folder_, {}, {});
    QCOMPARE(model->spec().layers, 2);
    QCOMPARE(QString::fromStdString(model->info().tokenizer), QStringLiteral("none"));
    QVERIFY(!model->has_tokenizer());
    expect([&] { (void)model->tokenizer(); }, ErrorCode::NotFound, {"tokenizer", "tiny"});
  }

  void shardsConfigPathsAndHubEntriesOpenTheSameModel() {
    TinyModel().write(folder_);
    const std::string single = qs::inspect_model(folder_ / "config.json").fingerprint;
    const auto sharded = folder_.parent_path() / "sharded";
    TinyModel().write_sharded(sharded);
    QCOMPARE(qs::inspect_model(sharded).fingerprint, single);
    const auto hub = folder_.parent_path() / "models--someone--tiny";
    TinyModel().write(hub / "snapshots" / "abc123");
    QCOMPARE(qs::inspect_model(hub).fingerprint, single);
    TinyModel().write(hub / "snapshots" / "def456");
    expect([&] { qs::inspect_model(hub); }, ErrorCode::NotFound, {"refs/main", "2 snapshots"});
    std::filesystem::create_directories(hub / "refs");
    write_all(hub / "refs" / "main", "def456\n");
    QCOMPARE(qs::inspect_model(hub).fingerprint, single);
    QVERIFY(qs::Model::load(sharded, {}, {})->info().parameters > 0);
  }

  void modelsOfOneLayoutHaveTheirOwnFingerprints() {
    TinyModel(7).write(folder_);
    TinyModel(8).write(folder_.parent_path() / "other");
    QVERIFY(qs::inspect_model(folder_).fingerprint != qs::inspect_model(folder_.parent_path() / "other").fingerprint);
  }

  void missingPartsAreNamed() {
    expect([&] { load(); }, ErrorCode::NotFound, {"does not exist"});
    std::filesystem::create_directories(folder_);
    expect([&] { load(); }, ErrorCode::NotFound, {"no config.json"});
    TinyModel tiny;
    tiny.write_config(folder_);
    expect([&] { load(); }, ErrorCode::NotFound, {"model.safetensors"});
    tiny.remove("model.layers.1.mlp.up_proj.weight");
    tiny.write(folder_);
    expect([&] { load(); }, ErrorCode::NotFound, {"model.layers.1.mlp.up_proj.weight", "model.safetensors"});
  }

  void filesThatAreNoModelAreRefused() {
    std::filesystem::create_directories(folder_);
    write_all(folder_ / "notes.txt", "hello");
    expect([&] { qs::Model::load(folder_ / "notes.txt", {}, {}); }, ErrorCode::Unsupported,
           {"notes.txt", "Hugging Face"});
    write_all(folder_ / "model.safetensors", "x");
    expect([&] { qs::Model::load(folder_ / "model.safetensors", {}, {}); }, ErrorCode::Unsupported,
           {"Open the folder"});
  }

  void configsThatAskForSomethingElseAreRefused_data() {
    QTest::addColumn<QString>("key");
    QTest::addColumn<QString>("value");
    QTest::addColumn<int>("code");
    QTest::addColumn<QString>("says");
    const auto row = [](const char* name, const char* key, const char* value, ErrorCode code, const char* says) {
      QTest::newRow(name) << key << value << static_cast<int>(code) << says;
    };
    row("unknown architecture", "architectures", R"(["MambaForCausalLM"])", ErrorCode::Unsupported, "LlamaForCausalLM");
    row("no architecture", "architectures", "null", ErrorCode::BadFormat, "names no architecture");
    row("rope scaling", "rope_scaling", R"({"rope_type":"novel","factor":8})", ErrorCode::Unsupported, "rope_scaling");
    row("rope parameters", "rope_parameters", R"({"rope_type":"novel"})", ErrorCode::Unsupported, "rope_parameters");
    row("biases that the file lacks", "attention_bias", "true", ErrorCode::NotFound, "q_proj.bias");
    row("mlp biases that the file lacks", "mlp_bias", "true", ErrorCode::NotFound, "gate_proj.bias");
    row("activation", "hidden_act", "\"mish\"", ErrorCode::Unsupported, "hidden_act");
    row("sliding window", "sliding_window", "4096", ErrorCode::Unsupported, "sliding_window");
    row("quantized checkpoint", "quantization_config", R"({"bits":4})", ErrorCode::Unsupported, "quantization_config");
    row("negative layers", "num_hidden_layers", "-2", ErrorCode::BadFormat, "num_hidden_layers is -2");
    row("absurd layers", "num_hidden_layers", "1000000000", ErrorCode::BadFormat, "num_hidden_layers");
    row("text for a number", "hidden_size", "\"16\"", ErrorCode::BadFormat, "hidden_size");
    row("missing number", "vocab_size", "null", ErrorCode::BadFormat, "vocab_size is missing");
    row("uneven heads", "num_key_value_heads", "3", ErrorCode::BadFormat, "does not divide");
    row("odd head_dim", "head_dim", "5", ErrorCode::BadFormat, "odd");
    row("another size than the file", "intermediate_size", "32", ErrorCode::BadFormat, "[24, 16]");
    row("fewer layers than the file", "num_hidden_layers", "1", ErrorCode::BadFormat, "does not know");
    row("more layers than the file", "num_hidden_layers", "3", ErrorCode::NotFound, "model.layers.2");
    row("zero rope_theta", "rope_theta", "0", ErrorCode::BadFormat, "rope_theta");
    row("flag of the wrong kind", "tie_word_embeddings", "\"yes\"", ErrorCode::BadFormat, "tie_word_embeddings");
  }
  void configsThatAskForSomethingElseAreRefused() {
    QFETCH(QString, key);
    QFETCH(QString, value);
    QFETCH(int, code);
    QFETCH(QString, says);
    TinyModel tiny;
    tiny.config[key.toStdString()] = nlohmann::json::parse(value.toStdString());
    tiny.write(folder_);
    expect([&] { load(); }, static_cast<ErrorCode>(code), {says});
  }

  void allThatIsNotUnderstoodIsSaidAtOnce() {
    TinyModel tiny;
    tiny.config["qk_norm"] = true;
    tiny.config["rope_scaling"] = {{"rope_type", "novel"}, {"factor", 2}};
    tiny.write(folder_);
    expect([&] { load(); }, ErrorCode::Unsupported, {"qk_norm", "rope_scaling", "config.json"});
  }

  void neutralSettingsAreAccepted() {
    TinyModel tiny;
    tiny.config["rope_scaling"] = {{"rope_type", "default"}};
    tiny.config["mlp_bias"] = false;
    tiny.config["pretraining_tp"] = 1;
    tiny.config.erase("num_key_value_heads");
    tiny.config["num_key_value_heads"] = 2;
    tiny.config["eos_token_id"] = {2, 5};
    tiny.write(folder_);
    const auto info = load()->info();
    QCOMPARE(info.eos_id, 2);
    QCOMPARE(info.eos_ids, (std::vector<std::int64_t>{2, 5}));
  }

  void damagedConfigsAreRefused() {
    TinyModel().write(folder_);
    const std::string whole = read_all(folder_ / "config.json");
    for (std::size_t size = 0; size + 1 < whole.size(); size += 17) {
      write_all(folder_ / "config.json", whole.substr(0, size));
      expect([&] { load(); }, ErrorCode::BadFormat, {"config.json"});
    }
    write_all(folder_ / "config.json", "[]");
    expect([&] { load(); }, ErrorCode::BadFormat, {"not a JSON object"});
  }

  void nanAndInfinityInWeightsAreCounted() {
    TinyModel tiny;
    tiny.at("model.layers.1.mlp.down_proj.weight").values[5] = std::nanf("");
    tiny.at("model.layers.1.mlp.down_proj.weight").values[6] = std::numeric_limits<float>::infinity();
    tiny.write(folder_);
    expect([&] { load(); }, ErrorCode::BadFormat, {"model.layers.1.mlp.down_proj.weight", "2 values of 384", "NaN"});
  }

  void valuesTooLargeForAHalfAreNamed() {
    TinyModel tiny;
    tiny.at("model.norm.weight").values[0] = 1e6f;
    tiny.write(folder_);
    QVERIFY(qs::Model::load(folder_, {.dtype = "bfloat16"}, {}) != nullptr);
    try {
      qs::Model::load(folder_, {.dtype = "float16"}, {});
    } catch (const qs::Error& e) {
      if (e.code() == ErrorCode::Unsupported) QSKIP(e.what());  // LibTorch 1.13 has no float16 on the CPU
    }
    expect([&] { qs::Model::load(folder_, {.dtype = "float16"}, {}); }, ErrorCode::InvalidArgument,
           {"model.norm.weight", "float16"});
  }

  void integerWeightsAreRefused() {
    TinyModel tiny;
    tiny.write_config(folder_);
    auto stored = tiny.stored(0, tiny.tensors.size());
    stored[3].type = qs::StoredType::I32;
    qs::write_safetensors(folder_ / "model.safetensors", stored);
    expect([&] { load(); }, ErrorCode::Unsupported, {"int32", "self_attn.q_proj"});
  }

  void unknownTypesAndDevicesAreRefused() {
    TinyModel().write(folder_);
    expect([&] { qs::Model::load(folder_, {.dtype = "int4"}, {}); }, ErrorCode::InvalidArgument, {"int4", "float32"});
    expect([&] { qs::Model::load(folder_, {.device = "tpu"}, {}); }, ErrorCode::Unsupported, {"tpu", "cpu"});
  }

  void aTokenizerOfAnotherModelIsRefused() {
    TinyModel().write(folder_);
    std::filesystem::copy(kStories / "tokenizer.json", folder_ / "tokenizer.json");
    expect([&] { load(); }, ErrorCode::BadFormat, {"512", "32"});
    write_all(folder_ / "tokenizer.json", "{");
    QVERIFY_EXCEPTION_THROWN(load(), qs::Error);
  }

  void llama2cFilesAreChecked() {
    const std::string whole = read_all(kLlama2c);
    const auto path = temporary("damaged.bin");
    const auto with = [&](std::size_t field, std::int32_t value) {
      std::string text = whole;
      std::memcpy(text.data() + 4 * field, &value, 4);
      write_all(path, text);
    };
    QCOMPARE(qs::read_llama2c_header(kLlama2c).vocab_size, 512);
    write_all(path, "");
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"truncated", "28 bytes"});
    write_all(path, whole.substr(0, whole.size() - 4));
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"truncated", QString::number(whole.size())});
    write_all(path, whole + "more");
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"the file has"});
    with(0, -64);
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"dim is -64"});
    with(2, 0x7fffffff);
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"n_layers"});
    with(3, 7);
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"n_heads 7"});
    with(5, -512);
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::BadFormat, {"truncated"});
    with(0, 0x616b3432);
    expect([&] { qs::Model::load(path, {}, {}); }, ErrorCode::Unsupported, {"version"});
  }

  void memoryIsEstimatedFromTheDescription() {
    const qs::ModelInfo info = qs::inspect_model(kStories);
    const qs::MemoryEstimate f32 = qs::estimate_memory(info, {}, 512);
    QCOMPARE(f32.weights, std::int64_t{260032 * 4});
    QCOMPARE(f32.kv, std::int64_t{2 * 5 * 4 * 8 * 512 * 4});
    QCOMPARE(qs::estimate_memory(info, {.dtype = "bfloat16"}, 512).kv * 2, f32.kv);
    QVERIFY(f32.scratch > 512 * 512 * 4);
    QVERIFY(qs::available_memory() > 0);
  }

  void aModelThatDoesNotFitIsRefusedBeforeItIsLoaded() {
    TinyModel().write(folder_);
    rlimit old = {};
    QVERIFY(getrlimit(RLIMIT_AS, &old) == 0);
    rlimit small = old;
    const std::int64_t pages = QString::fromStdString(read_all("/proc/self/statm")).split(' ').first().toLongLong();
    small.rlim_cur = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE));
    QVERIFY(setrlimit(RLIMIT_AS, &small) == 0);
    const std::int64_t available = qs::available_memory();
    setrlimit(RLIMIT_AS, &old);
    QVERIFY(available < 16 * 1024 * 1024);

    small.rlim_cur = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + 4 * 1024 * 1024);
    TinyModel large;
    large.config["max_position_embeddings"] = 2048;
    large.write(folder_);
    QVERIFY(setrlimit(RLIMIT_AS, &small) == 0);
    QString message;
    ErrorCode code = ErrorCode::Internal;
    try {
      load();
    } catch (const qs::Error& e) {
      code = e.code();
      message = e.what();
    }
    setrlimit(RLIMIT_AS, &old);
    QVERIFY2(code == ErrorCode::OutOfMemory, qPrintable(message));
    QVERIFY2(message.contains("needs about") && message.contains("available"), qPrintable(message));
    QVERIFY(load() != nullptr);
  }

  void loadingStopsWhenAsked() {
    TinyModel().write(folder_);
    std::stop_source stop;
    int steps = 0;
    const qs::JobContext job(stop.get_token(), [&](double, std::string_view) {
      if (++steps == 4) stop.request_stop();
    });
    QVERIFY_EXCEPTION_THROWN(qs::Model::load(folder_, {}, job), qs::Cancelled);
    QCOMPARE(steps, 4);
  }

 private:
  std::filesystem::path temporary(const char* name) const { return folder_.parent_path() / name; }
  std::shared_ptr<const qs::Model> load() const { return qs::Model::load(folder_, {}, {}); }

  template <typename Work>
  static void expect(Work work, ErrorCode code, const QStringList& says) {
    try {
      work();
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QVERIFY2(e.code() == code, e.what());
      for (const QString& part : says) QVERIFY2(QString(e.what()).contains(part), e.what());
    }
  }

  std::unique_ptr<QTemporaryDir> temporary_;
  std::filesystem::path folder_;
};

QTEST_GUILESS_MAIN(TestModelFiles)
#include "tst_model_files.moc"
