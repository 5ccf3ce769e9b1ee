#include <ATen/ATen.h>
#include <sys/resource.h>

#include <QTemporaryDir>
#include <QtTest>
#include <csignal>
#include <stop_token>

#include "backend/formats/safetensors_writer.h"
#include "backend/model/quantized_checkpoint.h"
#include "backend/types/error.h"
#include "tests/support/exported_model.h"
#include "tests/support/family_cases.h"
#include "tests/support/model_files.h"

using namespace qs;
using namespace qs::test;
namespace fs = std::filesystem;

namespace {

/// The tiny Llama, exported once a format.
fs::path exported(ExportFormat format) {
  static const QTemporaryDir outside;
  const fs::path folder = fs::path(outside.path().toStdString()) / export_format_id(format);
  if (fs::exists(folder)) return folder;
  const std::string setup =
      format == ExportFormat::CompressedTensors ? "rtn:bits=4,group_size=16" : "rtn:bits=4,group_size=16,sym=true";
  export_checkpoint(*packed_variant(family_case("llama").model, setup), {.folder = folder, .format = format}, {});
  return folder;
}

/// A copy of an export whose tensors can be changed.
class Damaged {
 public:
  explicit Damaged(ExportFormat format) : folder_(fs::path(outside_.path().toStdString()) / "model") {
    fs::copy(exported(format), folder_);
    table_ = read_safetensors(folder_ / "model.safetensors");
    for (const StoredTensor& tensor : table_.tensors)
      bytes_[tensor.name] = std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }

  StoredTensor& at(const std::string& name) {
    for (StoredTensor& tensor : table_.tensors)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  std::string& bytes(const std::string& name) { return bytes_.at(name); }
  void remove(const std::string& name) {
    std::erase_if(table_.tensors, [&](const StoredTensor& tensor) { return tensor.name == name; });
  }
  void set_config(const std::string& key, const nlohmann::json& value) {
    nlohmann::json config = config_of(folder_);
    config["quantization_config"][key] = value;
    write_all(folder_ / "config.json", config.dump());
  }
  void rename(const std::string& from, const std::string& to) {
    at(from).name = to;
    bytes_[to] = bytes_.at(from);
  }
  const fs::path& folder() const { return folder_; }

  /// What loading says; empty when it loads.
  QString load() {
    for (StoredTensor& tensor : table_.tensors) {
      const std::string& bytes = bytes_.at(tensor.name);
      tensor.bytes = std::as_bytes(std::span(bytes))
                         .first(static_cast<std::size_t>(tensor.size() * stored_type_bytes(tensor.type)));
    }
    const fs::path changed = folder_ / "changed.safetensors";
    write_safetensors(changed, table_.tensors);
    fs::rename(changed, folder_ / "model.safetensors");
    try {
      load_model(folder_);
    } catch (const Error& e) {
      code = e.code();
      return e.what();
    }
    return {};
  }
  ErrorCode code = ErrorCode::Internal;

 private:
  QTemporaryDir outside_;
  fs::path folder_;
  TensorTable table_;
  std::map<std::string, std::string> bytes_;
};

template <typename T>
void put(std::string& bytes, std::size_t index, T value) {
  std::memcpy(bytes.data() + index * sizeof value, &value, sizeof value);
}

const std::string kUp = "model.layers.1.mlp.up_proj.";

/// Names of everything in a folder.
QStringList entries(const QString& folder) {
  return QDir(folder).entryList(QDir::AllEntries | QDir::Hidden | QDir::NoDotAndDotDot);
}

QString refusal_of(const Variant& variant, const ExportRequest& request) {
  try {
    export_checkpoint(variant, request, {});
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

}  // namespace

class TestExportFiles : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() { load_codes_as_packed_linears(); }

  void anUndamagedCopyLoads() {
    for (const ExportFormat format : {ExportFormat::Gptq, ExportFormat::CompressedTensors}) {
      Damaged model(format);
      const QString problem = model.load();
      QVERIFY2(problem.isEmpty(), qPrintable(problem));
    }
  }

  void brokenPartsAreNamed_data() {
    QTest::addColumn<int>("damage");
    QTest::addColumn<QString>("message");
    int i = 0;
    for (const char* message :
         {"has no tensor 'model.layers.1.mlp.up_proj.qzeros'", "group 7", "columns and group 0", "NaN or infinite",
          "up_proj.qzeros' is", "no width", "8 bits, quantization_config says 4", "does not know"})
      QTest::newRow(message) << i++ << message;
  }
  void brokenPartsAreNamed() {
    QFETCH(int, damage);
    QFETCH(QString, message);
    Damaged model(ExportFormat::Gptq);
    if (damage == 0) model.remove(kUp + "qzeros");
    if (damage == 1) put(model.bytes(kUp + "g_idx"), 3, std::int32_t{7});
    if (damage == 2) put(model.bytes(kUp + "g_idx"), 3, std::int32_t{1});
    if (damage == 3) put(model.bytes(kUp + "scales"), 5, std::uint16_t{0x7e00});
    if (damage == 4) model.at(kUp + "qzeros").shape = {2, 3};
    if (damage == 5) model.at(kUp + "qweight").shape = {1, 48};
    if (damage == 6) {
      model.bytes(kUp + "qweight").resize(2 * model.bytes(kUp + "qweight").size());
      model.at(kUp + "qweight").shape = {8, 48};
    }
    if (damage == 7) model.rename(kUp + "g_idx", kUp + "wrong");
    const QString found = model.load();
    if (damage == 0 || damage == 7) {
      QVERIFY2(found.contains(damage == 0 ? "qzeros" : "g_idx"), qPrintable(found));
    } else {
      QVERIFY2(found.contains(message), qPrintable(found));
    }
    QVERIFY(model.code == ErrorCode::BadFormat || model.code == ErrorCode::NotFound);
  }

  void compressedTensorsAreCheckedToo_data() {
    QTest::addColumn<int>("damage");
    QTest::addColumn<QString>("message");
    QTest::newRow("shape") << 0 << "weight_shape' is not [48, 32]";
    QTest::newRow("scale is gone") << 1 << "weight_scale";
    QTest::newRow("scale of another type") << 2 << "expected a matrix of 16 or 32-bit floats";
    QTest::newRow("zero points cut") << 3 << "weight_zero_point' is";
  }
  void compressedTensorsAreCheckedToo() {
    QFETCH(int, damage);
    QFETCH(QString, message);
    Damaged model(ExportFormat::CompressedTensors);
    if (damage == 0) put(model.bytes(kUp + "weight_shape"), 0, std::int64_t{47});
    if (damage == 1) model.remove(kUp + "weight_scale");
    if (damage == 2) model.at(kUp + "weight_scale").type = StoredType::I16;
    if (damage == 3) model.at(kUp + "weight_zero_point").shape = {5, 2};
    const QString found = model.load();
    QVERIFY2(found.contains(message), qPrintable(found));
  }

  void settingsThatAreNotReadAreNamed_data() {
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("key");
    QTest::addColumn<QString>("value");
    QTest::addColumn<QString>("message");
    const auto row = [](const char* format, const char* key, const char* value, const char* message) {
      QTest::addRow("%s %s", key, value) << format << key << value << message;
    };
    row("gptq", "quant_method", R"("awq")", "quant_method 'awq'");
    row("gptq", "quant_method", "null", "names no quant_method");
    row("gptq", "bits", "5", "5 bits");
    row("gptq", "bits", R"("four")", "bits = \"four\"");
    row("gptq", "bits", "18446744073709551615", "bits = 18446744073709551615");
    row("gptq", "checkpoint_format", R"("marlin")", "checkpoint_format 'marlin'");
    row("gptq", "pack_dtype", R"("int64")", "'int64'");
    row("compressed-tensors", "format", R"("float-quantized")", "'float-quantized'");
    row("compressed-tensors", "kv_cache_scheme", R"({"num_bits":8})", "kv_cache_scheme");
    row("compressed-tensors", "config_groups", "{}", "no config_groups");
    row("compressed-tensors", "config_groups", R"({"group_0":{"weights":{"num_bits":4,"type":"float"}}})", "'float'");
    row("compressed-tensors", "config_groups",
        R"({"g":{"weights":{"num_bits":4,"strategy":"group"},"input_activations":{"num_bits":8,"strategy":"tensor"}}})",
        "quantizes inputs otherwise");
  }
  void settingsThatAreNotReadAreNamed() {
    QFETCH(QString, format);
    QFETCH(QString, key);
    QFETCH(QString, value);
    QFETCH(QString, message);
    Damaged model(parse_export_format(format.toStdString()));
    model.set_config(key.toStdString(), nlohmann::json::parse(value.toStdString()));
    const QString found = model.load();
    QVERIFY2(found.contains(message), qPrintable(found));
    if (model.code == ErrorCode::Unsupported)
      QVERIFY2(found.contains("Read are 'gptq'") && found.contains("compressed-tensors"), qPrintable(found));
  }

  void codesWithoutADescriptionAreRefused() {
    Damaged model(ExportFormat::Gptq);
    nlohmann::json config = config_of(model.folder());
    config.erase("quantization_config");
    write_all(model.folder() / "config.json", config.dump());
    const QString found = model.load();
    QVERIFY2(found.contains("already quantized"), qPrintable(found));
  }

  void aBiasOfZerosIsNoBias() {
    for (const float value : {0.0f, 0.5f}) {
      TinyModel::Tensor bias{kUp + "bias", {48}, std::vector<float>(48, value)};
      const fs::path source = exported(ExportFormat::Gptq);
      const QTemporaryDir outside;
      const fs::path folder = fs::path(outside.path().toStdString()) / "model";
      fs::copy(source, folder);
      const TensorTable table = read_safetensors(source / "model.safetensors");
      std::vector<StoredTensor> tensors = table.tensors;
      tensors.push_back({bias.name, StoredType::F32, bias.shape, std::as_bytes(std::span(bias.values))});
      write_safetensors(folder / "model.safetensors", tensors);
      bool loaded = true;
      try {
        load_model(folder);
      } catch (const Error& e) {
        loaded = false;
        QVERIFY(QString(e.what()).contains("up_proj.bias"));
      }
      QCOMPARE(loaded, value == 0.0f);
    }
  }

  void aTruncatedFileIsRefused() {
    Damaged model(ExportFormat::Gptq);
    const fs::path file = model.folder() / "model.safetensors";
    fs::resize_file(file, fs::file_size(file) - 100);
    bool refused = false;
    try {
      load_model(model.folder());
    } catch (const Error&) {
      refused = true;
    }
    QVERIFY(refused);
  }

  void whatALayoutCannotHoldIsRefused_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("setup");
    QTest::addColumn<QString>("format");
    QTest::addColumn<QStringList>("message");
    const auto row = [](const char* name, const char* setup, const char* format, const QStringList& message) {
      QTest::addRow("%s as %s", setup, format) << name << setup << format << message;
    };
    const char* const spqr = "spqr:bits=3,group_size=16,nsamples=6,seqlen=32";
    row("llama", spqr, "gptq", {"more than uniform codes", "Choose 'dense'"});
    row("llama", spqr, "compressed-tensors", {"more than uniform codes", "Choose 'dense'"});
    row("llama", "smoothquant", "compressed-tensors", {"inputs are quantized in a way", "Choose 'dense'"});
    row("llama", "smoothquant:quantizer=absmax", "gptq", {"for weights alone", "'compressed-tensors' or 'dense'"});
    row("llama", "rtn:bits=3", "gptq", {"do not fill whole 32-bit words", "Choose 'dense'"});
    row("llama", "rtn:bits=6", "gptq", {"6 bits", "2, 3, 4 or 8"});
    row("llama", "rtn:bits=2", "compressed-tensors", {"2 bits", "'gptq' or 'dense'"});
    row("gpt2", "rtn:bits=4", "compressed-tensors", {"Conv1D", "'gptq' or 'dense'"});
    row("llama", "none", "gptq", {"none of its linears computes from codes"});
  }
  void whatALayoutCannotHoldIsRefused() {
    QFETCH(QString, name);
    QFETCH(QString, setup);
    QFETCH(QString, format);
    QFETCH(QStringList, message);
    const QTemporaryDir outside;
    const auto variant = packed_variant(family_case(name.toStdString()).model, setup.toStdString());
    const QString found = refusal_of(*variant, {.folder = outside.path().toStdString() + "/out",
                                                .format = parse_export_format(format.toStdString())});
    for (const QString& part : message) QVERIFY2(found.contains(part), qPrintable(found));
    QVERIFY(entries(outside.path()).isEmpty());
  }

  void anExistingFolderIsKept() {
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    fs::create_directory(folder);
    write_all(folder / "mine.txt", "mine");
    const auto variant = packed_variant(family_case("llama").model, "rtn:bits=4,group_size=16");
    const QString found = refusal_of(*variant, {.folder = folder});
    QVERIFY2(found.contains("is there already"), qPrintable(found));
    QCOMPARE(read_all(folder / "mine.txt"), std::string("mine"));
    export_checkpoint(*variant, {.folder = folder, .replace = true}, {});
    QVERIFY(!fs::exists(folder / "mine.txt") && fs::exists(folder / "model.safetensors"));
    QCOMPARE(entries(outside.path()), QStringList{"out"});
  }

  void cancelLeavesNothing() {
    const QTemporaryDir outside;
    const auto variant = packed_variant(family_case("llama").model, "rtn:bits=4,group_size=16");
    for (const int step : {1, 20, 60}) {
      std::stop_source stop;
      int seen = 0;
      const JobContext job(stop.get_token(), [&](double, std::string_view) {
        if (++seen == step) stop.request_stop();
      });
      bool cancelled = false;
      try {
        export_checkpoint(*variant, {.folder = outside.path().toStdString() + "/out"}, job);
      } catch (const Cancelled&) {
        cancelled = true;
      }
      QVERIFY2(cancelled, qPrintable(QString::number(seen)));
      QVERIFY2(entries(outside.path()).isEmpty(), qPrintable(entries(outside.path()).join(' ')));
    }
  }

  void aFullDiskLeavesNothing() {
    // A limit on file sizes makes write() fail in the middle, as a full disk does.
    const QTemporaryDir outside;
    const auto variant = packed_variant(family_case("llama").model, "rtn:bits=4,group_size=16");
    rlimit old = {};
    QVERIFY(getrlimit(RLIMIT_FSIZE, &old) == 0);
    const auto previous = std::signal(SIGXFSZ, SIG_IGN);
    rlimit small = old;
    small.rlim_cur = 8192;
    setrlimit(RLIMIT_FSIZE, &small);
    const QString found = refusal_of(*variant, {.folder = outside.path().toStdString() + "/out"});
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, previous);
    QVERIFY2(found.contains("could not be written after"), qPrintable(found));
    QVERIFY(entries(outside.path()).isEmpty());
  }

  void aFolderThatCannotBeMadeIsSaid() {
    const auto variant = packed_variant(family_case("llama").model, "rtn:bits=4,group_size=16");
    const QString found = refusal_of(*variant, {.folder = "/proc/there/is/none"});
    QVERIFY2(found.contains("/proc/there/is/none") && found.contains("cannot be made"), qPrintable(found));
  }

  void aQuantizedModelIsNotQuantizedAgain() {
    const auto loaded = load_model(exported(ExportFormat::Gptq));
    for (const char* setup : {"rtn:bits=4", "gptq:bits=4,nsamples=6,seqlen=32"}) {
      QString found;
      try {
        packed_variant(loaded, setup);
      } catch (const Error& e) {
        found = e.what();
      }
      QVERIFY2(found.contains("quantized already"), qPrintable(found));
    }
  }

  void writersWithoutAllBytesLeaveNothing() {
    const QTemporaryDir outside;
    const fs::path path = fs::path(outside.path().toStdString()) / "a.safetensors";
    const std::vector<float> values(4, 1.0f);
    for (const int pieces : {0, 1, 3}) {
      bool refused = false;
      try {
        SafetensorsWriter writer(path, {{"a", StoredType::F32, {8}}});
        for (int i = 0; i < pieces; ++i) writer.write(std::as_bytes(std::span(values)));
        writer.commit();
      } catch (const Error& e) {
        refused = e.code() == ErrorCode::InvalidArgument;
      }
      QVERIFY(refused);
      QVERIFY(entries(outside.path()).isEmpty());
    }
  }
};

QTEST_GUILESS_MAIN(TestExportFiles)
#include "tst_export_files.moc"
