#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest>

#include "backend/formats/sha256.h"
#include "backend/methods/packed_linear.h"
#include "backend/model/code_layout.h"
#include "backend/types/error.h"
#include "tests/support/exported_model.h"
#include "tests/support/family_cases.h"
#include "tests/support/run_cli.h"

using namespace qs;
using namespace qs::test;
namespace fs = std::filesystem;

namespace {

std::shared_ptr<const Model> model_named(const std::string& name) {
  if (name == "sample-hf") return load_model(QS_RESOURCES "/sample/sample-hf");
  if (name == "llama2.c") return load_model(QS_TEST_DATA "/models/stories260K/stories260K.bin");
  if (name.ends_with(".gguf")) return load_model(QS_TEST_DATA "/gguf/families/" + name);
  return family_case(name).model;
}

/// Every linear of the blocks of both, by name.
void compare_linears(const DecoderWeights& expected, const DecoderWeights& actual, bool packed) {
  DecoderWeights a = expected, b = actual;
  const std::vector<LinearSlot> wanted = linear_slots(a), found = linear_slots(b);
  QCOMPARE(found.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    QCOMPARE((*found[i].op)->packed(), packed);
    QVERIFY2(at::equal((*found[i].op)->weight(), (*wanted[i].op)->weight()), wanted[i].name.c_str());
  }
}

/// 5 codes of 3 bits a word boundary apart: what the layout's comment says, bit by bit.
std::vector<std::uint8_t> codes_of_stream(const at::Tensor& words, std::int64_t row, int bits, std::int64_t count) {
  std::vector<std::uint8_t> codes;
  const at::Tensor bytes = words[row].contiguous();
  const auto* const word = reinterpret_cast<const std::uint32_t*>(bytes.data_ptr<std::int32_t>());
  for (std::int64_t k = 0; k < count; ++k) {
    unsigned code = 0;
    for (int bit = 0; bit < bits; ++bit) {
      const std::int64_t at = k * bits + bit;
      code |= ((word[at / 32] >> (at % 32)) & 1u) << bit;
    }
    codes.push_back(static_cast<std::uint8_t>(code));
  }
  return codes;
}

LinearCodes random_codes(int bits, std::int64_t out_features, std::int64_t in_features, std::int64_t group_size) {
  LinearCodes codes;
  codes.bits = bits;
  codes.group_size = group_size;
  const std::int64_t groups = (in_features + group_size - 1) / group_size, levels = std::int64_t{1} << bits;
  const auto spread = [](std::int64_t count, std::int64_t factor, std::int64_t modulus) {
    return at::remainder(at::arange(count, at::kLong) * factor + 5, modulus);
  };
  codes.codes = spread(out_features * in_features, 7919, levels).to(at::kByte).view({out_features, in_features});
  codes.zero_point = spread(out_features * groups, 31, levels).to(at::kByte).view({out_features, groups});
  codes.scale = (spread(out_features * groups, 17, 97).to(at::kFloat) * 0.01 + 0.01).to(at::kHalf).view({-1, groups});
  codes.group_index = at::floor_divide(at::arange(in_features, at::kInt), group_size).to(at::kInt);
  return codes;
}

}  // namespace

class TestExport : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() { load_codes_as_packed_linears(); }

  void everyLayoutStoresTheBitsThatItSays_data() {
    QTest::addColumn<int>("bits");
    for (const int bits : {2, 3, 4, 8}) QTest::addRow("%d bits", bits) << bits;
  }
  void everyLayoutStoresTheBitsThatItSays() {
    QFETCH(int, bits);
    const LinearCodes codes = random_codes(bits, 64, 96, 32);
    CodeFormat format = code_format(CodeLayout::Gptq, codes, true);
    const at::Tensor words = encode_part(format, "qweight", codes);
    QCOMPARE(words.size(0), std::int64_t{96 * bits / 32});
    QCOMPARE(words.size(1), std::int64_t{64});
    const auto column = codes_of_stream(words.t().contiguous(), 37, bits, 96);
    for (std::int64_t i = 0; i < 96; ++i)
      QCOMPARE(int(column[static_cast<std::size_t>(i)]), codes.codes[37][i].item<int>());
    const at::Tensor zeros = encode_part(format, "qzeros", codes);
    const auto stored = codes_of_stream(zeros, 2, bits, 64);
    for (std::int64_t o = 0; o < 64; ++o) {
      const int expected = (codes.zero_point[o][2].item<int>() + (1 << bits) - 1) % (1 << bits);
      QCOMPARE(int(stored[static_cast<std::size_t>(o)]), expected);
    }
    if (bits != 4 && bits != 8) return;
    format = code_format(CodeLayout::PackQuantized, codes, true);
    const auto row = codes_of_stream(encode_part(format, "weight_packed", codes), 11, bits, 96);
    for (std::int64_t i = 0; i < 96; ++i)
      QCOMPARE(int(row[static_cast<std::size_t>(i)]), codes.codes[11][i].item<int>());
    const at::Tensor zero = encode_part(format, "weight_zero_point", codes);
    QCOMPARE(zero.size(0), std::int64_t{64 * bits / 32});
    const auto group = codes_of_stream(zero.t().contiguous(), 1, bits, 64);
    for (std::int64_t o = 0; o < 64; ++o)
      QCOMPARE(int(group[static_cast<std::size_t>(o)]), codes.zero_point[o][1].item<int>());
  }

  void threeBitCodesStraddleWords() {
    LinearCodes codes = random_codes(3, 32, 32, 32);
    codes.codes.zero_();
    codes.codes[0][10] = 5;  // 101: two bits end word 0, one begins word 1
    codes.codes[0][21] = 6;  // 110: one bit ends word 1, two begin word 2
    const at::Tensor words = encode_part(code_format(CodeLayout::Gptq, codes, true), "qweight", codes);
    QCOMPARE(static_cast<std::uint32_t>(words[0][0].item<std::int32_t>()), 0x40000000u);
    QCOMPARE(static_cast<std::uint32_t>(words[1][0].item<std::int32_t>()), 0x00000001u);
    QCOMPARE(static_cast<std::uint32_t>(words[2][0].item<std::int32_t>()), 0x00000003u);
  }

  void everyFormatComesBack_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("setup");
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("description");
    const auto row = [](const char* name, const char* setup, const char* format, const char* description) {
      QTest::addRow("%s %s %s", name, setup, format) << name << setup << format << description;
    };
    const char* const g16 = "rtn:bits=4,group_size=16";
    const char* const ordered = "gptq:bits=4,group_size=16,act_order=true,nsamples=6,seqlen=32";
    const char* const w8a8 = "smoothquant:quantizer=absmax";
    row("llama", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("llama", g16, "gptq_v2", "GPTQ, 4 bits, groups of 16");
    row("llama", "rtn:bits=4,group_size=16,sym=true", "gptq", "GPTQ, 4 bits, groups of 16, symmetric");
    row("llama", "rtn:bits=2,group_size=16", "gptq", "GPTQ, 2 bits, groups of 16");
    row("llama", "rtn:bits=8", "gptq", "GPTQ, 8 bits, one scale a row");
    row("sample-hf", "rtn:bits=3,group_size=64", "gptq", "GPTQ, 3 bits, groups of 64");
    row("llama", ordered, "gptq", "GPTQ, 4 bits, groups of 16, activation order");
    row("llama", "gptq:bits=4,group_size=16,act_order=true,static_groups=true", "gptq", "GPTQ, 4 bits, groups of 16");
    row("llama", "gptq:bits=4,group_size=16,act_order=false,sym=true", "gptq", "GPTQ, 4 bits, groups of 16, symmetric");
    row("llama", "gptq:bits=4,act_order=true", "gptq", "GPTQ, 4 bits, one scale a row");
    row("qwen2", ordered, "gptq", "GPTQ, 4 bits, groups of 16, activation order");
    row("phi3", ordered, "gptq", "GPTQ, 4 bits, groups of 16, activation order");
    row("gpt2", ordered, "gptq", "GPTQ, 4 bits, groups of 16, activation order");
    row("gpt_neox", ordered, "gptq", "GPTQ, 4 bits, groups of 16, activation order");
    row("opt", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("opt_350m", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("mixtral", "rtn:bits=4,group_size=8", "gptq", "GPTQ, 4 bits, groups of 8");  // the router stays as it is
    row("falcon_40b", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("gemma2", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("llama", g16, "compressed-tensors", "compressed-tensors W4A16, groups of 16");
    row("llama", "rtn:bits=4,group_size=16,sym=true", "compressed-tensors",
        "compressed-tensors W4A16, groups of 16, symmetric");
    row("llama", "rtn:bits=8,group_size=16", "compressed-tensors", "compressed-tensors W8A16, groups of 16");
    row("llama", ordered, "compressed-tensors", "compressed-tensors W4A16, groups of 16, activation order");
    row("qwen2", ordered, "compressed-tensors", "compressed-tensors W4A16, groups of 16, activation order");
    row("phi3", g16, "compressed-tensors", "compressed-tensors W4A16, groups of 16");
    row("mixtral", "rtn:bits=4,group_size=8", "compressed-tensors", "compressed-tensors W4A16, groups of 8");
    row("opt", g16, "compressed-tensors", "compressed-tensors W4A16, groups of 16");
    row("llama", "rtn:bits=4,group_size=16,scale_dtype=bf16", "compressed-tensors",
        "compressed-tensors W4A16, groups of 16");
    row("llama", w8a8, "compressed-tensors", "compressed-tensors W8A8");
    row("qwen2", w8a8, "compressed-tensors", "compressed-tensors W8A8");
    row("opt", w8a8, "compressed-tensors", "compressed-tensors W8A8");
    row("phi3", "smoothquant:quantizer=absmax,level=O1", "compressed-tensors", "compressed-tensors W8A8");
    row("llama2.c", "rtn:bits=4,group_size=4", "compressed-tensors", "compressed-tensors W4A16, groups of 4");
    row("qwen2.gguf", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("gpt_neox.gguf", g16, "gptq", "GPTQ, 4 bits, groups of 16");
    row("gpt2.gguf", g16, "gptq", "GPTQ, 4 bits, groups of 16");
  }

  /// Export, load: the same weights bit for bit, the same logits, and they say what they are.
  void everyFormatComesBack() {
    QFETCH(QString, name);
    QFETCH(QString, setup);
    QFETCH(QString, format);
    QFETCH(QString, description);
    const auto model = model_named(name.toStdString());
    const auto variant = packed_variant(model, setup.toStdString());
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    const ExportResult result = export_checkpoint(
        *variant, {.folder = folder, .format = parse_export_format(format.toStdString()), .dtype = "auto"}, {});
    QVERIFY(result.format == parse_export_format(format.toStdString()) || result.format == ExportFormat::GptqV2);
    const auto loaded = load_model(folder);
    QVERIFY2(QString::fromStdString(loaded->info().format).contains(description), loaded->info().format.c_str());
    QCOMPARE(loaded->info().parameters, model->info().parameters);
    compare_linears(variant->weights(), loaded->weights(), true);

    const std::vector<std::int64_t> ids = some_ids(24);
    const at::Tensor expected = logits_of(*model, variant->weights(), ids);
    const at::Tensor actual = logits_of(*loaded, loaded->weights(), ids);
    // Within a group the columns of an activation order may be summed in another order, and scales that f16 holds too
    // are computed with by another kernel.
    const double tolerance = setup.contains("act_order=true") || setup.contains("bf16") ? 1e-5 : 0.0;
    const double difference = largest_difference(actual, expected), largest = expected.abs().max().item<double>();
    QVERIFY2(difference <= tolerance * largest, qPrintable(QString::number(difference)));

    const auto again = make_variant(loaded, std::nullopt, std::nullopt, nullptr, WeightExecution::Simulated, {});
    QVERIFY2(QString::fromStdString(again->label().weights).startsWith("as stored: "), again->label().weights.c_str());
    if (!setup.contains("O1") && !setup.contains("bf16")) {
      QVERIFY2(std::abs(again->weight_bits() - variant->weight_bits()) < 0.15,
               qPrintable(QString::number(again->weight_bits())));
    }
  }

  void denseHoldsEveryMethod_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("setup");
    QTest::addColumn<bool>("activations");
    QTest::newRow("spqr") << "llama"
                          << "spqr:bits=3,group_size=16,nsamples=6,seqlen=32" << false;
    QTest::newRow("rtn") << "gpt2"
                         << "rtn:bits=5,group_size=16" << false;
    QTest::newRow("fused") << "gpt_neox"
                           << "rtn:bits=4" << false;
    QTest::newRow("smoothquant") << "llama"
                                 << "smoothquant" << true;
    QTest::newRow("llama2.c") << "llama2.c"
                              << "rtn:bits=4" << false;
  }
  void denseHoldsEveryMethod() {
    QFETCH(QString, name);
    QFETCH(QString, setup);
    QFETCH(bool, activations);
    const auto variant = packed_variant(model_named(name.toStdString()), setup.toStdString());
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    const ExportResult result =
        export_checkpoint(*variant, {.folder = folder, .format = ExportFormat::Dense, .dtype = "float32"}, {});
    const bool noted = std::any_of(result.notes.begin(), result.notes.end(), [](const std::string& note) {
      return note.find("quantizes activations") != std::string::npos;
    });
    QCOMPARE(noted, activations);
    QVERIFY(!config_of(folder).contains("quantization_config"));
    const auto loaded = load_model(folder);
    QCOMPARE(QString::fromStdString(loaded->info().dtype), QStringLiteral("float32"));
    compare_linears(variant->weights(), loaded->weights(), false);
  }

  void denseKeepsTheModelsTypeWhenNoneIsAsked() {
    const auto variant = packed_variant(model_named("llama"), "rtn:bits=4,group_size=16");
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    export_checkpoint(*variant, {.folder = folder, .format = ExportFormat::Dense}, {});
    for (const StoredTensor& tensor : read_safetensors(folder / "model.safetensors").tensors)
      QCOMPARE(stored_type_id(tensor.type), "F16");
  }

  void autoTakesWhatHoldsTheSetup_data() {
    QTest::addColumn<QString>("setup");
    QTest::addColumn<QString>("format");
    QTest::newRow("codes") << "rtn:bits=4,group_size=16"
                           << "gptq";
    QTest::newRow("integers") << "smoothquant:quantizer=absmax"
                              << "compressed-tensors";
    QTest::newRow("an odd width") << "rtn:bits=5"
                                  << "dense";
    QTest::newRow("outliers") << "spqr:bits=3,group_size=16,nsamples=6,seqlen=32"
                              << "dense";
  }
  void autoTakesWhatHoldsTheSetup() {
    QFETCH(QString, setup);
    QFETCH(QString, format);
    const auto variant = packed_variant(model_named("llama"), setup.toStdString());
    const QTemporaryDir outside;
    const ExportResult result = export_checkpoint(*variant, {.folder = outside.path().toStdString() + "/out"}, {});
    const QString found = export_format_id(result.format);
    QVERIFY2(found == format || (format == "gptq" && found == "gptq_v2"), qPrintable(found));
    if (format == "dense") QVERIFY(QString::fromStdString(result.notes.front()).contains("No layout"));
  }

  void aZeroPointOfZeroNeedsTheSecondFormat() {
    // All weights of a row above 0: its range begins at 0, and so does its zero point.
    const auto model = model_named("llama");
    DecoderWeights weights = model->weights();
    auto& op = weights.blocks[1].linear_slot(LinearKind::Up);
    op = std::make_shared<DenseLinear>(op->weight().abs() + 0.01);
    const auto positive = std::make_shared<const Model>(
        model->info(), model->spec(), std::make_shared<const DecoderWeights>(weights), nullptr, model->options());
    const auto variant = packed_variant(positive, "rtn:bits=4,group_size=16");
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    const ExportResult result = export_checkpoint(*variant, {.folder = folder, .format = ExportFormat::Gptq}, {});
    QVERIFY(result.format == ExportFormat::GptqV2);
    QCOMPARE(config_of(folder)["quantization_config"]["checkpoint_format"].get<std::string>(), std::string("gptq_v2"));
    compare_linears(variant->weights(), load_model(folder)->weights(), true);
  }

  void linearsMayDiffer_data() {
    QTest::addColumn<QString>("format");
    QTest::newRow("gptq") << "gptq";
    QTest::newRow("compressed-tensors") << "compressed-tensors";
  }
  /// A block of other settings, as after redoing it, and a linear that is not quantized.
  void linearsMayDiffer() {
    QFETCH(QString, format);
    const auto model = model_named("llama");
    const auto four = packed_variant(model, "rtn:bits=4,group_size=16"), eight = packed_variant(model, "rtn:bits=8");
    DecoderWeights mixed = four->weights();
    mixed.blocks[1] = eight->weights().blocks[1];
    mixed.blocks[1].linear_slot(LinearKind::Down) = model->weights().blocks[1].linears.back();
    const Variant variant(model, std::make_shared<const DecoderWeights>(mixed), four->weight_setup(), nullptr, {});
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    export_checkpoint(variant, {.folder = folder, .format = parse_export_format(format.toStdString())}, {});
    const auto loaded = load_model(folder);
    QVERIFY2(loaded->info().format.find("mixed") != std::string::npos, loaded->info().format.c_str());
    const std::vector<std::int64_t> ids = some_ids(20);
    QVERIFY(at::equal(logits_of(*loaded, loaded->weights(), ids), logits_of(*model, mixed, ids)));
    const nlohmann::json config = config_of(folder)["quantization_config"];
    if (format == "gptq") {
      QCOMPARE(config["dynamic"]["-:^model\\.layers\\.1\\.mlp\\.down_proj$"].size(), std::size_t{0});
      QCOMPARE(config["dynamic"]["+:^model\\.layers\\.1\\.mlp\\.up_proj$"]["bits"].get<int>(), 8);
    } else {
      QCOMPARE(config["config_groups"]["group_1"]["weights"]["num_bits"].get<int>(), 8);
      const auto ignored = config["ignore"].get<std::vector<std::string>>();
      QVERIFY(std::count(ignored.begin(), ignored.end(), "model.layers.1.mlp.down_proj") == 1);
      QVERIFY(std::count(ignored.begin(), ignored.end(), "lm_head") == 1);
    }
  }

  void aLoadedCheckpointCanBeExportedInAnotherFormat() {
    const auto variant = packed_variant(model_named("llama"), "rtn:bits=4,group_size=16,sym=true");
    const QTemporaryDir outside;
    const fs::path first = fs::path(outside.path().toStdString()) / "gptq";
    const fs::path second = fs::path(outside.path().toStdString()) / "ct";
    export_checkpoint(*variant, {.folder = first, .format = ExportFormat::Gptq}, {});
    const auto plain =
        make_variant(load_model(first), std::nullopt, std::nullopt, nullptr, WeightExecution::Packed, {});
    export_checkpoint(*plain, {.folder = second, .format = ExportFormat::CompressedTensors}, {});
    compare_linears(variant->weights(), load_model(second)->weights(), true);
  }

  void theReportSaysHowItWasMade() {
    const auto model = model_named("llama");
    const auto variant = packed_variant(model, "rtn:bits=4,group_size=16");
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    LayerProgress progress;
    progress.linear = "layers.1.mlp.up_proj";
    progress.loss = 0.25;
    export_checkpoint(*variant,
                      {.folder = folder,
                       .linears = {progress},
                       .calibration = ExportCalibration{.text = "a.txt", .sha256 = "ab", .tokens = 7},
                       .program = "test 1"},
                      {});
    std::ifstream file(folder / "quantization_report.json");
    const nlohmann::json report = nlohmann::json::parse(file);
    QCOMPARE(report["setup"].get<std::string>(), std::string("rtn:group_size=16"));
    QCOMPARE(report["model_fingerprint"].get<std::string>(), model->info().fingerprint);
    QCOMPARE(report["calibration"]["tokens"].get<int>(), 7);
    QCOMPARE(report["linears"].size(), std::size_t{14});
    for (const auto& linear : report["linears"])
      QCOMPARE(linear.contains("loss"), linear["linear"] == "layers.1.mlp.up_proj");
  }

  void codesSurviveEveryLayout_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("layout");
    for (const int bits : {2, 3, 4, 8}) QTest::addRow("gptq %d", bits) << bits << static_cast<int>(CodeLayout::Gptq);
    for (const int bits : {4, 8})
      QTest::addRow("pack-quantized %d", bits) << bits << static_cast<int>(CodeLayout::PackQuantized);
  }
  /// Orders, groups that end short, and both conventions of zero points.
  void codesSurviveEveryLayout() {
    QFETCH(int, bits);
    QFETCH(int, layout);
    for (const bool ordered : {false, true}) {
      for (const bool minus_one : {false, true}) {
        const std::int64_t group_size = layout == static_cast<int>(CodeLayout::Gptq) ? 40 : 32;
        LinearCodes codes = random_codes(bits, 32, 96, group_size);
        if (ordered) codes.group_index = codes.group_index.flip({0}).contiguous();
        const CodeFormat format = code_format(static_cast<CodeLayout>(layout), codes, minus_one);
        TensorTable table;
        std::vector<at::Tensor> kept;
        for (const CodedPart& part : coded_parts(format, 32, 96)) {
          kept.push_back(encode_part(format, part.name, codes));
          QCOMPARE(kept.back().sizes().vec(), part.shape);
          table.tensors.push_back({std::string("m.") + part.name,
                                   part.type,
                                   part.shape,
                                   {static_cast<const std::byte*>(kept.back().data_ptr()), kept.back().nbytes()}});
        }
        std::sort(table.tensors.begin(), table.tensors.end(),
                  [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
        const auto found = find_format(format.layout, minus_one, table, "m", 96);
        QVERIFY(found && found->bits == bits);
        const LinearCodes read = decode_parts(*found, table, "m", 32, 96);
        QVERIFY(at::equal(read.codes, codes.codes) && at::equal(read.zero_point, codes.zero_point));
        QVERIFY(at::equal(read.scale, codes.scale) && at::equal(read.group_index, codes.group_index));
        QCOMPARE(read.group_size, group_size);
        QVERIFY(at::equal(packed_from_codes(read, {})->weight(), codes.values()));
      }
    }
  }

  /// Folders written by this program, with the logits that transformers computes from what an independent reader makes
  /// of them: tests/data/export/README.md.
  void independentReadersComputeTheSame_data() {
    QTest::addColumn<QString>("name");
    for (const char* name : {"gptq_rtn", "gptq_act_order", "w4a16", "w8a8"}) QTest::newRow(name) << name;
  }
  void independentReadersComputeTheSame() {
    QFETCH(QString, name);
    const fs::path folder = fs::path(QS_TEST_DATA "/export") / name.toStdString();
    const auto model = load_model(folder);
    const TensorTable expected = read_safetensors(folder / "expected.safetensors");
    const auto read = [&](const char* tensor, at::ScalarType type) {
      const StoredTensor& stored = expected.at(tensor);
      at::Tensor values = at::empty(stored.shape, type);
      std::memcpy(values.data_ptr(), stored.bytes.data(), stored.bytes.size());
      return values;
    };
    const at::Tensor ids = read("ids", at::kLong), logits = read("logits", at::kFloat);
    const at::Tensor actual =
        logits_of(*model, model->weights(), {ids.data_ptr<std::int64_t>(), ids.data_ptr<std::int64_t>() + ids.numel()});
    const double difference = largest_difference(actual, logits);
    qDebug("%s: largest logit difference %.1e of %.1f", qPrintable(name), difference,
           logits.abs().max().item<double>());
    QVERIFY2(difference < 1e-4, qPrintable(QString::number(difference)));
    const at::Tensor weight = read("weight", at::kFloat);  // of layers.1.mlp.up_proj, as the other reader has it
    QVERIFY(at::equal(model->weights().blocks[1].linear(LinearKind::Up).weight(), weight));
  }

  /// The bytes themselves: rounding to nearest depends on no text and no library.
  void exportedBytesArePinned() {
    const auto variant = packed_variant(model_named("llama"), "rtn:bits=4,group_size=16");
    const QTemporaryDir outside;
    const fs::path folder = fs::path(outside.path().toStdString()) / "out";
    export_checkpoint(*variant, {.folder = folder, .format = ExportFormat::Gptq}, {});
    QCOMPARE(sha256_file(folder / "model.safetensors"),
             sha256_file(fs::path(QS_TEST_DATA "/export/gptq_rtn/model.safetensors")));
  }

  void theCommandLineQuantizes() {
    const QTemporaryDir outside;
    const QString folder = outside.path() + "/out";
    const QStringList arguments = {"quantize",  QStringLiteral(QS_TEST_DATA "/models/stories260K-hf"),
                                   "--weights", "rtn:bits=4,group_size=4",
                                   "-o",        folder,
                                   "--format",  "compressed-tensors",
                                   "--json"};
    const CliResult made = run_cli(arguments);
    QVERIFY2(made.status == 0, made.error.constData());
    QCOMPARE(made.json()["format"].toString(), QStringLiteral("compressed-tensors"));
    QCOMPARE(made.json()["coded_tensors"].toInt(), 35);
    for (const char* file :
         {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "quantization_report.json"})
      QVERIFY2(QFile::exists(folder + "/" + file), file);
    const CliResult inspected = run_cli({"inspect", folder, "--json"});
    QCOMPARE(inspected.json()["quantization"].toString(), QStringLiteral("compressed-tensors W4A16, groups of 4"));
    const CliResult said = run_cli({"generate", folder, "--prompt", "Once", "--max-tokens", "8", "--json"});
    QVERIFY2(said.status == 0, said.error.constData());
    const CliResult packed = run_cli({"generate", QStringLiteral(QS_TEST_DATA "/models/stories260K-hf"), "--weights",
                                      "rtn:bits=4,group_size=4", "--execution", "packed", "--prompt", "Once",
                                      "--max-tokens", "8", "--json"});
    QCOMPARE(said.json()["ids"], packed.json()["ids"]);
    const CliResult again = run_cli(arguments);
    QCOMPARE(again.status, 1);
    QVERIFY2(again.error.contains("is there already"), again.error.constData());
    QCOMPARE(run_cli(arguments + QStringList{"--force"}).status, 0);
    const CliResult twice = run_cli({"quantize", folder, "--weights", "rtn", "-o", outside.path() + "/twice"});
    QCOMPARE(twice.status, 1);
    QVERIFY2(twice.error.contains("quantized already"), twice.error.constData());
    QVERIFY(!QFile::exists(outside.path() + "/twice"));
  }

  void aLayerIsRedone() {
    const QTemporaryDir outside;
    const QString checkpoint = outside.path() + "/blocks";
    const auto quantize = [&](const QString& setup, const QStringList& more) {
      return run_cli(QStringList{"quantize", QStringLiteral(QS_TEST_DATA "/models/stories260K-hf"), "--weights", setup,
                                 "--calibration", QStringLiteral(QS_RESOURCES "/texts/sample-valid.txt"),
                                 "--checkpoint", checkpoint, "--json"} +
                     more);
    };
    const QString run = "gptq:bits=4,group_size=4,nsamples=4,seqlen=64", other = run + ",percdamp=0.1";
    const CliResult first = quantize(run, {"-o", outside.path() + "/first"});
    QVERIFY2(first.status == 0, first.error.constData());
    QVERIFY2(first.error.contains("layers.4.mlp.down_proj: loss"), first.error.constData());
    const CliResult redone = quantize(other, {"--redo-layer", "3", "-o", outside.path() + "/second"});
    QVERIFY2(redone.status == 0, redone.error.constData());
    const auto before = load_model((outside.path() + "/first").toStdString());
    const auto after = load_model((outside.path() + "/second").toStdString());
    for (std::size_t layer = 0; layer < 5; ++layer) {
      const bool same = at::equal(before->weights().blocks[layer].linear(LinearKind::Up).weight(),
                                  after->weights().blocks[layer].linear(LinearKind::Up).weight());
      QCOMPARE(same, layer != 3);
    }
    QCOMPARE(quantize("rtn", {"--redo-layer", "3"}).status, 1);
  }
};

QTEST_GUILESS_MAIN(TestExport)
#include "tst_export.moc"
