#include <QTemporaryDir>
#include <QTest>
#include <fstream>
#include <random>

#include "backend/formats/safetensors.h"
#include "tests/support/run_cli.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kHidden = 1024, kInner = 2816, kVocab = 512;

/// A Llama of random f16 weights. All tensors share one run of values; only sizes matter here.
class WideModel {
 public:
  WideModel(const fs::path& folder, std::int64_t layers) : folder_(folder) {
    fs::create_directories(folder);
    std::ofstream(folder / "config.json")
        << R"({"architectures":["LlamaForCausalLM"],"hidden_size":1024,"intermediate_size":2816,"num_hidden_layers":)"
        << layers
        << R"(,"num_attention_heads":16,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":512,)"
        << R"("rms_norm_eps":1e-5,"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2})";
    fs::copy_file(QS_TEST_DATA "/models/stories260K-hf/tokenizer.json", folder / "tokenizer.json");
    std::mt19937 generator(3);
    values_.resize(static_cast<std::size_t>(kHidden * kInner));
    for (std::uint16_t& value : values_)
      value = static_cast<std::uint16_t>(0x2000u | (generator() & 0x83ffu));  // +-0.01
    add("model.embed_tokens.weight", {kVocab, kHidden});
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {kHidden});
      add(prefix + "post_attention_layernorm.weight", {kHidden});
      add(prefix + "self_attn.q_proj.weight", {kHidden, kHidden});
      add(prefix + "self_attn.k_proj.weight", {kHidden / 4, kHidden});
      add(prefix + "self_attn.v_proj.weight", {kHidden / 4, kHidden});
      add(prefix + "self_attn.o_proj.weight", {kHidden, kHidden});
      add(prefix + "mlp.gate_proj.weight", {kInner, kHidden});
      add(prefix + "mlp.up_proj.weight", {kInner, kHidden});
      add(prefix + "mlp.down_proj.weight", {kHidden, kInner});
    }
    add("model.norm.weight", {kHidden});
    add("lm_head.weight", {kVocab, kHidden});
    write_safetensors(folder / "model.safetensors", tensors_);
  }
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const StoredTensor& tensor : tensors_) sum += static_cast<std::int64_t>(tensor.bytes.size());
    return sum;
  }
  QString path() const { return QString::fromStdString(folder_.string()); }

 private:
  void add(const std::string& name, std::vector<std::int64_t> shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    const auto bytes = std::as_bytes(std::span(values_)).first(static_cast<std::size_t>(2 * count));
    tensors_.push_back({name, StoredType::F16, std::move(shape), bytes});
  }
  fs::path folder_;
  std::vector<std::uint16_t> values_;
  std::vector<StoredTensor> tensors_;
};

QStringList generate(const WideModel& model) {
  return {QStringLiteral("generate"),     model.path(),
          QStringLiteral("--prompt"),     QStringLiteral("Once upon a time there was a little girl who liked to"),
          QStringLiteral("--max-tokens"), QStringLiteral("3"),
          QStringLiteral("--ignore-eos"), QStringLiteral("--json")};
}

std::int64_t peak_of(const CliResult& run) {
  return run.json().object()[QStringLiteral("memory")].toObject()[QStringLiteral("peak_rss")].toInteger();
}

/// A memory control group of the first or second version that this process may make; its folder is removed again.
class ControlGroup {
 public:
  explicit ControlGroup(std::int64_t bytes) {
    for (const auto& [root, file] :
         {std::pair{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, std::pair{"/sys/fs/cgroup", "memory.max"}}) {
      const fs::path folder =
          fs::path(root) / ("quantoscope-test-" + std::to_string(QCoreApplication::applicationPid()));
      std::error_code failed;
      if (!fs::create_directory(folder, failed) || failed) continue;
      std::ofstream limit(folder / file);
      limit << bytes;
      limit.close();
      std::ifstream check(folder / file);
      std::int64_t set = 0;
      if (limit && check >> set && set > 0 && set <= bytes) {
        folder_ = folder;
        return;
      }
      fs::remove(folder, failed);
    }
  }
  ~ControlGroup() {
    std::error_code ignored;
    if (works()) fs::remove(folder_, ignored);
  }
  bool works() const { return !folder_.empty(); }
  QString enter() const {
    return QStringLiteral("echo $$ > '%1/cgroup.procs'").arg(QString::fromStdString(folder_.string()));
  }

 private:
  fs::path folder_;
};

}  // namespace

class TestMemory : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() {
    QVERIFY(folder_.isValid());
    const fs::path root = folder_.path().toStdString();
    small_ = std::make_unique<WideModel>(root / "small", 1);
    large_ = std::make_unique<WideModel>(root / "large", 6);
    const CliResult run = run_cli(generate(*small_));
    QVERIFY2(run.status == 0, run.error);
    small_peak_ = peak_of(run);
    QVERIFY(small_peak_ > 0);
  }

  void residentMemoryStaysNearTheStoredWeights() {
    const CliResult run = run_cli(generate(*large_));
    QVERIFY2(run.status == 0, run.error);
    const std::int64_t added = large_->bytes() - small_->bytes();
    const std::int64_t grown = peak_of(run) - small_peak_;
    QVERIFY2(static_cast<double>(grown) <= 1.15 * static_cast<double>(added),
             qPrintable(QStringLiteral("%1 bytes of weights more took %2 bytes").arg(added).arg(grown)));
  }

  void largerThanMemoryStillRuns_data() {
    QTest::addColumn<QStringList>("verb");
    const QString out = folder_.filePath(QStringLiteral("capture.h5")),
                  text = folder_.filePath(QStringLiteral("text.txt"));
    QFile file(text);
    QVERIFY(file.open(QIODevice::WriteOnly) && file.write(QByteArray("The girl went to the park. ").repeated(40)) > 0);
    file.close();
    QTest::newRow("generate") << generate(*large_);
    QTest::newRow("capture") << QStringList{
        QStringLiteral("capture"),  large_->path(),       QStringLiteral("--text"), text,
        QStringLiteral("--tokens"), QStringLiteral("64"), QStringLiteral("-o"),     out};
    QTest::newRow("evaluate") << QStringList{
        QStringLiteral("eval"),      large_->path(),
        QStringLiteral("--text"),    text,
        QStringLiteral("--task"),    QStringLiteral("ppl"),
        QStringLiteral("--kv"),      QStringLiteral("kivi:k_bits=4,v_bits=4,residual_length=32"),
        QStringLiteral("--window"),  QStringLiteral("64"),
        QStringLiteral("--windows"), QStringLiteral("2")};
  }
  void largerThanMemoryStillRuns() {
    QFETCH(const QStringList, verb);
    // Room for the program and the small model, but not for half of what the large one adds.
    const ControlGroup group(small_peak_ + (large_->bytes() - small_->bytes()) / 3);
    if (!group.works()) QSKIP("This process may make no memory control group; run as root to test the limit.");
    const CliResult run = run_cli(verb, group.enter());
    QVERIFY2(run.status == 0, run.error);
  }

 private:
  QTemporaryDir folder_;
  std::unique_ptr<WideModel> small_, large_;
  std::int64_t small_peak_ = 0;
};

QTEST_GUILESS_MAIN(TestMemory)
#include "tst_memory.moc"
