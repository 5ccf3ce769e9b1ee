#include <hdf5.h>
#include <signal.h>
#include <sys/resource.h>

#include <QTemporaryDir>
#include <QtTest>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>

#include "backend/model/model.h"
#include "backend/storage/capture.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/hdf5_handle.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/storage/results_file.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void spill(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

void with_file(const fs::path& path, const std::function<void(hid_t)>& change) {
  Hdf5Thread::instance().run([&] {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    change(file);
    H5Fclose(file);
  });
}

void set_int(hid_t file, const char* name, std::int64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
}

void set_text(hid_t file, const char* name, const std::string& value) {
  H5Adelete(file, name);
  hdf5::set_attribute(file, name, value);
}

/// Files may not grow beyond `bytes` while this lives: what a full disk looks like to the writer.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace

class TstCaptureFiles : public QObject {
  Q_OBJECT

  QTemporaryDir dir_;
  std::shared_ptr<const Model> model_;
  std::string whole_;
  fs::path at(const char* name) const { return fs::path(dir_.path().toStdString()) / name; }

  static CaptureRequest request(std::int64_t tokens) {
    CaptureRequest r;
    for (std::int64_t i = 0; i < tokens; ++i) r.ids.push_back(3 + (i * 7919) % 500);
    r.window = 64;
    return r;
  }

  static void expect(const std::function<void()>& work, ErrorCode code, const std::string& words) {
    try {
      work();
    } catch (const Error& e) {
      QVERIFY2(std::string(e.what()).find(words) != std::string::npos, e.what());
      QVERIFY2(e.code() == code, e.what());
      return;
    }
    QFAIL("nothing was thrown");
  }

  void expectOpen(const fs::path& path, ErrorCode code, const std::string& words) const {
    expect([&] { CaptureReader::open(path); }, code, words);
    expect([&] { CaptureReader::open(path); }, code, path.filename().string());
  }

  fs::path changed(const std::function<void(hid_t)>& change) const {
    spill(at("changed.h5"), whole_);
    with_file(at("changed.h5"), change);
    return at("changed.h5");
  }

 private Q_SLOTS:
  void initTestCase() {
    model_ = Model::load(fs::path(QS_TEST_DATA) / "models/stories260K-hf", {}, {});
    capture(*model_, request(128), at("whole.h5"), false, {});
    whole_ = slurp(at("whole.h5"));
  }

  void missingEmptyAndForeignFilesAreNamed() {
    expectOpen(at("missing.h5"), ErrorCode::NotFound, "does not exist");
    expectOpen(fs::path(dir_.path().toStdString()), ErrorCode::BadFormat, "not a file");
    spill(at("empty.h5"), "");
    expectOpen(at("empty.h5"), ErrorCode::BadFormat, "empty");
    spill(at("text.h5"), "This is a text and no HDF5 file. It is long enough to hold a signature, but holds none.");
    expectOpen(at("text.h5"), ErrorCode::BadFormat, "not an HDF5 file");
    write_results(at("results.h5"), {});
    expectOpen(at("results.h5"), ErrorCode::BadFormat, "no capture");
    expect([&] { read_results(at("whole.h5")); }, ErrorCode::BadFormat, "no results file");
    expect([&] { read_results(at("text.h5")); }, ErrorCode::BadFormat, "text.h5");
    expect([&] { read_results(at("missing.h5")); }, ErrorCode::NotFound, "missing.h5");
  }

  void theAttentionOfTheLayersIsOptionalButChecked() {
    // Files of earlier versions have a base frequency only.
    const CaptureInfo old = CaptureReader::open(changed([](hid_t f) { H5Adelete(f, "attention"); }))->info();
    QVERIFY(old.layer_ropes.empty());
    QCOMPARE(old.rope_of(1).theta, model_->spec().rope.theta);
    for (const char* text : {"{", "[]", R"({"kinds":[],"layers":[0,0,0,0,0]})",
                             R"({"kinds":[{"rope":{"scaling":"none","rotary_dim":4096}}],"layers":[0,0,0,0,0]})",
                             R"({"kinds":[{"rope":{"scaling":"novel"}}],"layers":[0,0,0,0,0]})",
                             R"({"kinds":[{"rope":{"scaling":"longrope","original_context":8}}],"layers":[0,0,0,0,0]})",
                             R"({"kinds":[{"rope":{"scaling":"none","theta":"big"}}],"layers":[0,0,0,0,0]})",
                             R"({"kinds":[{"rope":{"scaling":"none"}}],"layers":[0]})"})
      expectOpen(changed([text](hid_t f) { set_text(f, "attention", text); }), ErrorCode::BadFormat, "attention");
  }

  void truncatedFilesAreRefused() {
    for (const double part : {0.0005, 0.01, 0.3, 0.7, 0.99}) {
      spill(at("cut.h5"), whole_.substr(0, static_cast<std::size_t>(static_cast<double>(whole_.size()) * part)));
      expectOpen(at("cut.h5"), ErrorCode::BadFormat, "cut.h5");
    }
    spill(at("cut_results.h5"), slurp(at("results.h5")).substr(0, 600));
    expect([&] { read_results(at("cut_results.h5")); }, ErrorCode::BadFormat, "cut_results.h5");
  }

  void anotherVersionIsNamed() {
    expectOpen(changed([](hid_t f) { set_int(f, "version", 99); }), ErrorCode::BadFormat, "version 99");
  }

  void missingPartsAreNamed() {
    expectOpen(changed([](hid_t f) { H5Ldelete(f, "/tokens/ids", H5P_DEFAULT); }), ErrorCode::BadFormat, "/tokens/ids");
    expectOpen(changed([](hid_t f) { H5Ldelete(f, "/layers/002/value", H5P_DEFAULT); }), ErrorCode::BadFormat,
               "/layers/002/value");
    expectOpen(changed([](hid_t f) { H5Adelete(f, "layers"); }), ErrorCode::BadFormat, "layers");
    expectOpen(changed([](hid_t f) { set_int(f, "heads", -3); }), ErrorCode::BadFormat, "heads");
    expectOpen(changed([](hid_t f) { set_int(f, "head_dim", 9); }), ErrorCode::BadFormat, "shape");
    const auto reader = CaptureReader::open(at("whole.h5"));
    expect([&] { reader->read("/layers/000/nothing"); }, ErrorCode::NotFound, "/layers/000/key");
    expect([&] { reader->activation_stats("layers.0.nothing"); }, ErrorCode::NotFound, "layers.0.nothing");
    expect([&] { reader->read("/tokens/text"); }, ErrorCode::InvalidArgument, "no numbers");
  }

  void flippedBytesNeverCrash() {
    std::mt19937 random(21);
    int opened = 0;
    for (int i = 0; i < 60; ++i) {
      std::string bytes = whole_;
      for (int flips = 0; flips < 4; ++flips) {
        bytes[std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random)] = static_cast<char>(random());
      }
      spill(at("flipped.h5"), bytes);
      try {
        const auto reader = CaptureReader::open(at("flipped.h5"));
        ++opened;
        for (std::int64_t layer = 0; layer < reader->info().layers; ++layer) reader->read_layer(layer, "key");
      } catch (const Error& e) {
        QVERIFY(std::string(e.what()).find("flipped.h5") != std::string::npos);
      }
    }
    QVERIFY(opened > 0);
  }

  void notANumberIsReportedAndNotHidden() {
    const auto path = changed([](hid_t file) {
      const hid_t dataset = H5Dopen2(file, "/layers/001/key", H5P_DEFAULT);
      const hid_t space = H5Dget_space(dataset);
      const hsize_t at[3] = {1, 7, 3}, one[3] = {1, 1, 1};
      H5Sselect_hyperslab(space, H5S_SELECT_SET, at, nullptr, one, nullptr);
      const hid_t memory = H5Screate_simple(3, one, nullptr);
      const float nan = std::numeric_limits<float>::quiet_NaN();
      H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, &nan);
      H5Sclose(memory);
      H5Sclose(space);
      H5Dclose(dataset);
    });
    const auto reader = CaptureReader::open(path);
    QVERIFY(std::isnan(reader->read_layer(1, "key", {{1, 2}, {7, 8}, {3, 4}}).data[0]));
    // A model that computes NaN gives a capture that says so.
    ModelInfo info = model_->info();
    ArchitectureSpec spec = model_->spec();
    spec.norm_eps = std::numeric_limits<double>::quiet_NaN();
    const Model broken(info, spec, model_->shared_weights(), nullptr, model_->options());
    const CaptureInfo captured = capture(broken, request(64), at("nan.h5"), false, {});
    std::int64_t found = 0;
    for (const DatasetInfo& dataset : captured.datasets) {
      if (dataset.path == "/layers/000/key") found = dataset.non_finite;
    }
    QCOMPARE(found, 64 * info.kv_heads * info.head_dim);
    QVERIFY(std::isnan(CaptureReader::open(at("nan.h5"))->read_pyramid(0, "key", Pool::Max, 2).data[0]));
  }

  void aFullDiskLeavesNothingOrWhatWasFlushed() {
    {
      const SizeLimit limit(4096);
      expect([&] { capture(*model_, request(64), at("full.h5"), false, {}); }, ErrorCode::Io, "full.h5");
    }
    QVERIFY(!fs::exists(at("full.h5")));
    QVERIFY(!fs::exists(at("full.h5.part")));
    {
      const SizeLimit limit(whole_.size() / 2);
      expect([&] { capture(*model_, request(128), at("full.h5"), false, {}); }, ErrorCode::Io, "the disk is full");
    }
    const auto reader = CaptureReader::open(at("full.h5"));
    QVERIFY(!reader->info().complete);
    for (const DatasetInfo& dataset : reader->info().datasets) {
      if (dataset.dtype != "utf-8") reader->read(dataset.path);
    }
    QVERIFY(!fs::exists(at("full.h5.journal")));
    {
      const SizeLimit limit(1024);
      expect([&] { write_results(at("results.h5"), {EvalReport{}}); }, ErrorCode::Io, "disk is full");
    }
    QCOMPARE(read_results(at("results.h5")).size(), std::size_t{0});  // the old file
  }

  void aWholeJournalIsAppliedAndAPartialOneDropped() {
    // As if the writer was killed after its journal was whole and while it was writing pages 0 and 2 of the file.
    const std::string pages = whole_.substr(0, 4096) + whole_.substr(8192, 4096);
    const auto number = [](std::uint64_t value) {
      return std::string(reinterpret_cast<const char*>(&value), sizeof value);
    };
    std::string journal = "QSJRNL01" + number(2) + number(0) + number(4096) + pages.substr(0, 4096) + number(8192) +
                          number(4096) + pages.substr(4096);
    std::uint64_t hash = 14695981039346656037ull;
    for (const char c : journal) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
    journal += number(hash);
    std::string torn = whole_;
    std::fill_n(torn.begin() + 100, 3000, '\0');
    std::fill_n(torn.begin() + 8192, 4096, '\0');
    spill(at("torn.h5"), torn);
    spill(at("torn.h5.journal"), journal);
    CaptureReader::open(at("torn.h5"));
    QVERIFY(slurp(at("torn.h5")) == whole_);
    QVERIFY(!fs::exists(at("torn.h5.journal")));
    for (const std::string& partial : {journal.substr(0, journal.size() - 1), journal.substr(0, 20), std::string(),
                                       std::string(journal.size(), 'x')}) {
      spill(at("torn.h5.journal"), partial);
      CaptureReader::open(at("torn.h5"));
      QVERIFY(slurp(at("torn.h5")) == whole_);
      QVERIFY(!fs::exists(at("torn.h5.journal")));
    }
  }

  void aTargetThatCannotBeWrittenIsNamed() {
    expect([&] { capture(*model_, request(64), at("no/such/folder/x.h5"), false, {}); }, ErrorCode::NotFound,
           "no/such/folder");
    fs::create_directory(at("folder.h5"));
    expect([&] { capture(*model_, request(64), at("folder.h5"), false, {}); }, ErrorCode::InvalidArgument, "folder.h5");
  }

  void requestsThatMakeNoSenseAreRefused() {
    auto nothing = request(0);
    expect([&] { capture(*model_, nothing, at("x.h5"), false, {}); }, ErrorCode::InvalidArgument, "no tokens");
    auto window = request(64);
    window.window = 100000;
    expect([&] { capture(*model_, window, at("x.h5"), false, {}); }, ErrorCode::InvalidArgument, "context");
    auto tap = request(64);
    tap.taps = {"keys"};
    expect([&] { capture(*model_, tap, at("x.h5"), false, {}); }, ErrorCode::InvalidArgument, "\"keys\"");
    auto outside = request(64);
    outside.ids[5] = 100000;
    expect([&] { capture(*model_, outside, at("x.h5"), false, {}); }, ErrorCode::InvalidArgument, "100000");
    QVERIFY(!fs::exists(at("x.h5")));
  }

  void aCutOffCaptureIsNotAppendedTo() {
    const auto path = changed([](hid_t f) { set_int(f, "complete", 0); });
    expect([&] { capture(*model_, request(64), path, true, {}); }, ErrorCode::InvalidArgument, "cut off");
  }
};

QTEST_GUILESS_MAIN(TstCaptureFiles)
#include "tst_capture_files.moc"
