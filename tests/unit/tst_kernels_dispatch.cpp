#include <QProcess>
#include <QtTest>
#include <cstdio>
#include <cstring>

#include "kernels/copy_bandwidth.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/dispatch.h"

using namespace qs::kernels;

namespace {

/// Runs this program again with QUANTOSCOPE_KERNELS set; it prints the set in use and the problem, one a line.
QStringList chosen_with(const QString& name) {
  QProcess process;
  QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
  environment.insert("QUANTOSCOPE_KERNELS", name);
  process.setProcessEnvironment(environment);
  process.start(QCoreApplication::applicationFilePath(), {"--print-kernel-set"});
  process.waitForFinished();
  return QString::fromUtf8(process.readAllStandardOutput()).split('\n');
}

}  // namespace

class TestKernelsDispatch : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everySetTheProcessorHasCanBeForced() {
    for (const SetName id : {SetName::Scalar, SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(id);
      if (set == nullptr) continue;
      QCOMPARE(set->id, id);
      const QStringList lines = chosen_with(set->name);
      QCOMPARE(lines.value(0), QString(set->name));
      QVERIFY(lines.value(1).isEmpty());
    }
  }

  void theScalarSetIsAlwaysThere() { QVERIFY(kernel_set(SetName::Scalar) != nullptr); }

  void anUnknownNameIsRefused() {
    const QStringList lines = chosen_with("sse9");
    QCOMPARE(lines.value(0), QString("scalar"));
    QVERIFY(lines.value(1).contains("QUANTOSCOPE_KERNELS"));
    QVERIFY(lines.value(1).contains("'sse9'"));
    QVERIFY(lines.value(1).contains("scalar"));
  }

  void theSetInUseIsTheBestOne() {
    const QStringList lines = chosen_with("");
    QVERIFY(lines.value(1).isEmpty());
    for (const SetName id : {SetName::Avx512, SetName::Avx2, SetName::Scalar})
      if (const KernelSet* const set = kernel_set(id)) {
        QCOMPARE(lines.value(0), QString(set->name));
        return;
      }
  }

  void copyBandwidthIsMeasured() {
    QVERIFY(measure_copy_bandwidth(1, 1 << 24) > 1e8);
    QVERIFY(measure_copy_bandwidth(2, 1 << 24) > 1e8);
    QCOMPARE(measure_copy_bandwidth(0), 0.0);
  }

  void askingForCudaIsSafeWithoutADriver() {
    if (cuda::cuda_available()) QSKIP("This machine has a CUDA device.");
    QVERIFY(!cuda::cuda_problem().empty());
    cuda::DeviceBuffer buffer;
    QVERIFY(!buffer.allocate(16));
    QVERIFY(buffer.data() == nullptr);
  }
};

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--print-kernel-set") == 0) {
    std::printf("%s\n%s\n", kernel_set_name(), kernel_set_problem().c_str());
    return 0;
  }
  QCoreApplication application(argc, argv);
  TestKernelsDispatch test;
  return QTest::qExec(&test, argc, argv);
}

#include "tst_kernels_dispatch.moc"
