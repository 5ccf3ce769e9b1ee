#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest>
#include <filesystem>
#include <fstream>
#include <random>

#include "backend/storage/kv_artifact.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

KvArtifact example() {
  KvArtifact artifact{.method = "skvq",
                      .setup = "skvq:group_size=32",
                      .model_fingerprint = "abc",
                      .model_name = "tiny",
                      .source = "text.txt",
                      .source_sha256 = "00ff",
                      .kv_heads = 2,
                      .head_dim = 16,
                      .tokens = 4096,
                      .seed = 0xFFFFFFFFFFFFFFFFu,
                      .windows = 2,
                      .window = 2048};
  for (int layer = 0; layer < 3; ++layer) {
    artifact.layers.push_back({{"order", at::arange(32, at::kInt)},
                               {"clip", at::full({1}, 0.9, at::kHalf)},
                               {"levels", at::arange(24, at::kFloat).view({2, 3, 4}) + layer},
                               {"wide", at::arange(3, at::kDouble) / 7},
                               {"nothing", at::empty({0}, at::kFloat)}});
  }
  return artifact;
}

std::string message_of(const fs::path& path) {
  try {
    read_kv_artifact(path);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

class TestKvArtifact : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everythingComesBack() {
    QTemporaryDir folder;
    const fs::path path = fs::path(folder.path().toStdString()) / "a.h5";
    const KvArtifact written = example();
    write_kv_artifact(path, written);
    write_kv_artifact(path, written);  // over the old one
    const KvArtifact read = read_kv_artifact(path);
    QCOMPARE(read.method, written.method);
    QCOMPARE(read.setup, written.setup);
    QCOMPARE(read.model_fingerprint, written.model_fingerprint);
    QCOMPARE(read.model_name, written.model_name);
    QCOMPARE(read.source, written.source);
    QCOMPARE(read.source_sha256, written.source_sha256);
    QCOMPARE(read.kv_heads, written.kv_heads);
    QCOMPARE(read.head_dim, written.head_dim);
    QCOMPARE(read.tokens, written.tokens);
    QCOMPARE(read.seed, written.seed);
    QCOMPARE(read.windows, written.windows);
    QCOMPARE(read.window, written.window);
    QCOMPARE(read.layers.size(), written.layers.size());
    for (std::size_t layer = 0; layer < 3; ++layer) {
      QCOMPARE(read.layers[layer].size(), written.layers[layer].size());
      for (const auto& [name, tensor] : written.layers[layer]) {
        QVERIFY(read.layers[layer].at(name).scalar_type() == tensor.scalar_type());
        QVERIFY(read.layers[layer].at(name).equal(tensor));
      }
    }
    QCOMPARE(std::distance(fs::directory_iterator(path.parent_path()), fs::directory_iterator()), 1);
  }

  void otherTypesAreRefusedAndLeaveNothing() {
    QTemporaryDir folder;
    const fs::path path = fs::path(folder.path().toStdString()) / "a.h5";
    KvArtifact artifact = example();
    artifact.layers[1]["mask"] = at::zeros({4}, at::kBool);
    QVERIFY_EXCEPTION_THROWN(write_kv_artifact(path, artifact), Error);
    QVERIFY(fs::is_empty(path.parent_path()));
  }

  void otherFilesAreNamed() {
    QTemporaryDir folder;
    const fs::path base = folder.path().toStdString();
    QVERIFY(message_of(base / "none.h5").find("does not exist") != std::string::npos);
    std::ofstream(base / "text.h5") << "no HDF5 at all";
    QVERIFY(message_of(base / "text.h5").find("text.h5") != std::string::npos);
    std::ofstream(base / "empty.h5").flush();
    QVERIFY(!message_of(base / "empty.h5").empty());
    QVERIFY(!message_of(base).empty());
  }

  /// Cut anywhere or with bytes changed anywhere, the file is read or refused with its name, never more.
  void damageIsRefused() {
    QTemporaryDir folder;
    const fs::path base = folder.path().toStdString(), path = base / "a.h5", hurt = base / "hurt.h5";
    write_kv_artifact(path, example());
    std::ifstream in(path, std::ios::binary);
    const std::string whole((std::istreambuf_iterator<char>(in)), {});
    const auto attempt = [&](const std::string& bytes) {
      std::ofstream(hurt, std::ios::binary | std::ios::trunc) << bytes;
      try {
        read_kv_artifact(hurt);
      } catch (const Error& error) {
        QVERIFY2(std::string(error.what()).find("hurt.h5") != std::string::npos, error.what());
      }
    };
    for (std::size_t part = 0; part < 12; ++part) attempt(whole.substr(0, whole.size() * part / 12));
    std::mt19937_64 generator(1);
    for (int trial = 0; trial < 40; ++trial) {
      std::string bytes = whole;
      for (int i = 0; i < 6; ++i) bytes[generator() % bytes.size()] = static_cast<char>(generator());
      attempt(bytes);
    }
  }
};

QTEST_GUILESS_MAIN(TestKvArtifact)
#include "tst_kv_artifact.moc"
