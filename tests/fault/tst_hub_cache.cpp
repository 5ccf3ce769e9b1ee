#include <QJsonArray>
#include <QtTest>

#include "backend/model/hub_cache.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "tests/support/model_files.h"
#include "tests/support/run_cli.h"

namespace fs = std::filesystem;
using qs::test::TinyModel;
using qs::test::write_all;

class TestHubCache : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void init() {
    folder_ = std::make_unique<QTemporaryDir>();
    cache_ = fs::path(folder_->path().toStdString()) / "hub";
    fs::create_directories(cache_);
  }
  void cleanup() {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) qunsetenv(name);
  }

  void theFolderFollowsTheEnvironment() {
    const QByteArray home = qgetenv("HOME");
    qputenv("HOME", "/h");
    QCOMPARE(qs::hub_cache_folder(), fs::path("/h/.cache/huggingface/hub"));
    qputenv("XDG_CACHE_HOME", "/x");
    QCOMPARE(qs::hub_cache_folder(), fs::path("/x/huggingface/hub"));
    qputenv("HF_HOME", "/hf");
    QCOMPARE(qs::hub_cache_folder(), fs::path("/hf/hub"));
    qputenv("HF_HUB_CACHE", "/cache");
    QCOMPARE(qs::hub_cache_folder(), fs::path("/cache"));
    qputenv("HOME", home);
  }

  void aCacheThatIsNotThereIsEmpty() { QVERIFY(qs::hub_models(cache_ / "none").empty()); }

  void modelsAreListedWithTheirNameAndSize() {
    TinyModel().write(snapshot("models--org--tiny", "abc"));
    write_all(cache_ / "models--org--tiny" / "refs" / "main", "abc\n");
    TinyModel().write_sharded(snapshot("models--gpt", "1"));
    write_all(snapshot("models--org--quantized", "1") / "a-Q4_K.gguf", "GGUF");
    write_all(snapshot("models--org--quantized", "1") / "b-Q8_0.gguf", "GGUF!");
    snapshot("datasets--org--text", "1");
    const auto models = qs::hub_models(cache_);
    QCOMPARE(names(models),
             QStringList({"gpt", "org/quantized: a-Q4_K.gguf", "org/quantized: b-Q8_0.gguf", "org/tiny"}));
    for (const qs::HubModel& model : models) QVERIFY2(model.can_open, model.why_not.c_str());
    QCOMPARE(models[3].bytes, static_cast<std::int64_t>(fs::file_size(models[3].path / "model.safetensors")));
    QCOMPARE(models[2].bytes, 5);
    QCOMPARE(qs::inspect_model(models[3].path).layers, 2);
    QCOMPARE(qs::inspect_model(cache_ / "models--org--tiny").path, models[3].path.string());
    QCOMPARE(qs::inspect_model(models[0].path).layers, 2);
  }

  void theCommandLineListsThem() {
    TinyModel().write(snapshot("models--org--tiny", "1"));
    snapshot("models--org--empty", "1");
    const QString cache = QString::fromStdString(cache_.string());
    const CliResult listed = run_cli({"models", "--cache", cache, "--json"});
    QVERIFY2(listed.status == 0, listed.error);
    const QJsonArray models = listed.json()["models"].toArray();
    QCOMPARE(models.size(), 2);
    QCOMPARE(models[0]["name"].toString(), QStringLiteral("org/empty"));
    QVERIFY(!models[0]["can_open"].toBool() && !models[0]["why_not"].toString().isEmpty());
    QVERIFY(models[1]["can_open"].toBool());
    QVERIFY(run_cli({"models", "--cache", cache}).out.contains("org/tiny"));
    QCOMPARE(run_cli({"models", "--cache", cache + "/none"}).status, 1);
  }

  void theListFollowsLinksAsTheHubMakesThem() {
    const fs::path blobs = cache_ / "models--a--b" / "blobs";
    TinyModel().write(blobs);
    const fs::path links = snapshot("models--a--b", "1");
    for (const char* name : {"config.json", "model.safetensors"})
      fs::create_symlink(fs::path("../../blobs") / name, links / name);
    const auto models = qs::hub_models(cache_);
    QVERIFY2(models.at(0).can_open, models.at(0).why_not.c_str());
    fs::remove(blobs / "model.safetensors");
    QVERIFY(!qs::hub_models(cache_).at(0).can_open);
  }

  void whatCannotBeOpenedSaysWhy_data() {
    QTest::addColumn<QString>("says");
    for (const char* row : {"no config", "no weights", "half of the shards", "no index", "pickled", "unknown family",
                            "damaged config", "two snapshots", "nothing", "deep config"})
      QTest::newRow(row);
  }
  void whatCannotBeOpenedSaysWhy() {
    const std::string row = QTest::currentDataTag();
    const fs::path folder = snapshot("models--x--y", "1");
    TinyModel tiny;
    QString says;
    if (row == "no config") {
      tiny.write(folder);
      fs::remove(folder / "config.json");
      says = "no config.json";
    } else if (row == "no weights") {
      tiny.write_config(folder);
      says = "no weights";
    } else if (row == "half of the shards") {
      tiny.write_sharded(folder);
      fs::remove(folder / "model-00002-of-00002.safetensors");
      says = "1 of 2 files";
    } else if (row == "no index") {
      tiny.write_sharded(folder);
      fs::remove(folder / "model.safetensors.index.json");
      says = "index.json is not";
    } else if (row == "pickled") {
      tiny.write_config(folder);
      write_all(folder / "pytorch_model.bin", std::string("PK\x03\x04zip", 7));
      says = "python3 -c";
    } else if (row == "unknown family") {
      tiny.config["architectures"] = {"Fancy"};
      tiny.write(folder);
      says = "'Fancy'";
    } else if (row == "damaged config") {
      tiny.write(folder);
      write_all(folder / "config.json", "{");
      says = "not JSON";
    } else if (row == "two snapshots") {
      snapshot("models--x--y", "2");
      says = "2 snapshots";
    } else if (row == "nothing") {
      fs::remove_all(cache_ / "models--x--y" / "snapshots");
      says = "without snapshots";
    } else {
      tiny.write(folder);
      write_all(folder / "config.json", std::string(100000, '['));
      says = "nested";
    }
    TinyModel().write(snapshot("models--z--good", "1"));
    const auto models = qs::hub_models(cache_);
    QCOMPARE(names(models), QStringList({"x/y", "z/good"}));
    QVERIFY(!models[0].can_open);
    QVERIFY2(QString::fromStdString(models[0].why_not).contains(says), models[0].why_not.c_str());
    QVERIFY(models[1].can_open);
  }

 private:
  fs::path snapshot(const std::string& entry, const std::string& commit) {
    fs::create_directories(cache_ / entry / "refs");
    fs::create_directories(cache_ / entry / "snapshots" / commit);
    return cache_ / entry / "snapshots" / commit;
  }
  static QStringList names(const std::vector<qs::HubModel>& models) {
    QStringList all;
    for (const qs::HubModel& model : models) all << QString::fromStdString(model.name);
    return all;
  }

  std::unique_ptr<QTemporaryDir> folder_;
  fs::path cache_;
};

QTEST_GUILESS_MAIN(TestHubCache)
#include "tst_hub_cache.moc"
