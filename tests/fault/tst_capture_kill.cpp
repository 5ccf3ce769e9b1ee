#include <hdf5.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <QTemporaryDir>
#include <QtTest>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "backend/model/model.h"
#include "backend/storage/capture.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kTokens = 512, kWindow = 32;

int run_capture(const fs::path& path) {
  const auto model = Model::load(fs::path(QS_TEST_DATA) / "models/stories260K-hf", {}, {});
  CaptureRequest request;
  for (std::int64_t i = 0; i < kTokens; ++i) request.ids.push_back(3 + (i * 7919) % 500);
  request.window = kWindow;
  capture(*model, request, path, false, {});
  return 0;
}

pid_t start_child(const fs::path& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::execl("/proc/self/exe", "tst_capture_kill", "--capture", path.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  return child;
}

/// Whether stock HDF5, which knows no journal, opens the file and finds its layers.
bool opens_without_us(const fs::path& path) {
  return Hdf5Thread::instance().run([&] {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) return false;
    const bool found = H5Lexists(file, "/tokens/ids", H5P_DEFAULT) > 0;
    H5Fclose(file);
    return found;
  });
}

}  // namespace

class TstCaptureKill : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void whatWasFlushedSurvivesAKillAtAnyMoment() {
    QTemporaryDir dir;
    const fs::path folder = dir.path().toStdString(), whole = folder / "whole.h5";
    const auto begin = std::chrono::steady_clock::now();
    int status = 0;
    ::waitpid(start_child(whole), &status, 0);
    QCOMPARE(status, 0);
    const auto duration = std::chrono::steady_clock::now() - begin;
    const auto reference = CaptureReader::open(whole);
    QVERIFY(reference->info().complete);

    std::mt19937 random(13);
    int cut_off = 0, with_layers = 0, journals = 0, complete = 0;
    for (int kill = 0; kill < 15; ++kill) {
      const fs::path path = folder / ("killed" + std::to_string(kill) + ".h5");
      const pid_t child = start_child(path);
      std::this_thread::sleep_for(duration * std::uniform_real_distribution<>(0.05, 1.0)(random));
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      if (!fs::exists(path)) continue;  // killed before the file had its header
      const bool journal = fs::exists(path.string() + ".journal");
      journals += journal;
      if (!journal) QVERIFY(opens_without_us(path));
      const auto reader = CaptureReader::open(path);
      QVERIFY(!fs::exists(path.string() + ".journal"));
      (reader->info().complete ? complete : cut_off) += 1;
      QCOMPARE(reader->info().tokens % kWindow, 0);
      const auto ids = reader->token_ids(), all_ids = reference->token_ids();
      QVERIFY(std::equal(ids.begin(), ids.end(), all_ids.begin()));
      QCOMPARE(reader->token_texts().size(), ids.size());
      for (const DatasetInfo& dataset : reader->info().datasets) {
        if (dataset.dtype == "utf-8") continue;
        const TensorView values = reader->read(dataset.path);
        if (dataset.path.rfind("/layers/", 0) != 0 || dataset.path.find("/attention/") != std::string::npos) continue;
        with_layers += dataset.path == "/layers/000/key";
        // A prefix of the whole capture, number by number, and of all taps of the layer alike.
        QCOMPARE(dataset.shape[1] % kWindow, 0);
        std::vector<Slice> part;
        for (const std::int64_t extent : values.shape) part.push_back({0, extent});
        const TensorView expected = reference->read(dataset.path, part);
        QVERIFY2(std::equal(values.values().begin(), values.values().end(), expected.values().begin()),
                 dataset.path.c_str());
        const std::string key = dataset.path.substr(0, dataset.path.rfind('/')) + "/key";
        QCOMPARE(reader->read(key, {{0, 1}}).shape[1], dataset.shape[1]);
      }
      fs::remove(path);
    }
    qInfo("%d captures cut off, %d complete, %d with layers, %d journals replayed or dropped", cut_off, complete,
          with_layers, journals);
    QVERIFY(cut_off >= 5);
    QVERIFY(with_layers >= 5);
  }
};

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--capture") return run_capture(argv[2]);
  QCoreApplication application(argc, argv);
  TstCaptureKill test;
  return QTest::qExec(&test, argc, argv);
}
#include "tst_capture_kill.moc"
