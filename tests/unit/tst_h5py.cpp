#include <QFileInfo>
#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include "backend/model/model.h"
#include "backend/storage/capture.h"
#include "backend/storage/results_file.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

constexpr const char* kReadCapture = R"(
import sys, h5py
f = h5py.File(sys.argv[1], "r")
count = 0
def visit(name, item):
    global count
    if isinstance(item, h5py.Dataset):
        values = item[()]
        assert values.shape == item.shape
        assert isinstance(item.attrs["axes"], str) and item.attrs["axes"].count(",") == item.ndim - 1, name
        count += 1
f.visititems(visit)
assert f.attrs["format"] == "quantoscope-capture" and f.attrs["complete"] == 1
assert f["layers/000/key"].dtype == "float16" and f["layers/000/key"].attrs["source_tap"] == "key"
assert f["tokens/text"].asstr()[0] == "<s>"
assert abs(float(f["layers/000/key"][0, 0, 0])) > 0
print(count)
)";

constexpr const char* kReadResults = R"(
import sys, h5py, json
f = h5py.File(sys.argv[1], "r")
run = f["runs/000"]
assert json.loads(run.attrs["report"])["tasks"][0]["metric"] == "perplexity"
print(list(run["per_item/0_perplexity"][()]))
)";

}  // namespace

class TstH5py : public QObject {
  Q_OBJECT

  QTemporaryDir dir_;
  QString python_ = "/usr/bin/python3";

  QString run(const char* script, const fs::path& file) const {
    QProcess process;
    process.start(python_, {"-c", script, QString::fromStdString(file.string())});
    if (!process.waitForFinished(60000)) return "timeout";
    return QString::fromUtf8(process.exitCode() == 0 ? process.readAllStandardOutput() : process.readAllStandardError())
        .trimmed();
  }

 private Q_SLOTS:
  void initTestCase() {
    QProcess process;
    if (!QFileInfo::exists(python_)) QSKIP("python3 is not installed");
    process.start(python_, {"-c", "import h5py"});
    if (!process.waitForFinished(60000) || process.exitCode() != 0) QSKIP("python3-h5py is not installed");
  }

  void everyDatasetOfACaptureIsRead() {
    const auto stories = Model::load(fs::path(QS_TEST_DATA) / "models/stories260K-hf", {}, {});
    ModelInfo info = stories->info();
    info.dtype = "float16";
    const Model model(info, stories->spec(), stories->shared_weights(),
                      load_tokenizer(fs::path(QS_TEST_DATA) / "models/stories260K-hf"), stories->options());
    CaptureRequest request;
    request.ids.assign(300, 1);
    request.weights = true;
    const fs::path path = fs::path(dir_.path().toStdString()) / "capture.h5";
    const CaptureInfo captured = capture(model, request, path, false, {});
    QCOMPARE(run(kReadCapture, path), QString::number(captured.datasets.size()));
  }

  void resultsAreRead() {
    EvalReport report;
    report.tasks = {{"ppl", "perplexity", 2.0, 0.1, 2, 1.0, {1.5, 2.5}}};
    const fs::path path = fs::path(dir_.path().toStdString()) / "results.h5";
    write_results(path, {report});
    QCOMPARE(run(kReadResults, path), QString("[1.5, 2.5]"));
  }
};

QTEST_GUILESS_MAIN(TstH5py)
#include "tst_h5py.moc"
