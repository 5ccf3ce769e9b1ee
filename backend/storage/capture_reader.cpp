#include "backend/storage/capture_reader.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "backend/formats/half.h"
#include "backend/model/model.h"
#include "backend/storage/capture_layout.h"
#include "backend/storage/hdf5_commit_file.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;
using hdf5::ElementType;
using hdf5::Shape;

constexpr int kMaxDepth = 8;
constexpr std::size_t kMaxDatasets = 200000;

std::string dtype_name(hid_t dataset) {
  const hdf5::Type type(H5Dget_type(dataset));
  const std::size_t size = H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return "float" + std::to_string(size * 8);
    case H5T_INTEGER:
      if (size == 2 && hdf5::string_attribute(dataset, "dtype") == "bfloat16") return "bfloat16";
      return (H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int") + std::to_string(size * 8);
    case H5T_STRING:
      return "utf-8";
    default:
      return "other";
  }
}

void list_datasets(hid_t file, const std::string& group_path, int depth, std::vector<DatasetInfo>& datasets) {
  if (depth > kMaxDepth || datasets.size() > kMaxDatasets) return;
  const hdf5::Group group(H5Gopen2(file, group_path.c_str(), H5P_DEFAULT), "open the group '" + group_path + "'");
  H5G_info_t info{};
  hdf5::check(H5Gget_info(group, &info), "list the group '" + group_path + "'");
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT);
    hdf5::check(length, "list the group '" + group_path + "'");
    std::string name(static_cast<std::size_t>(length), '\0');
    H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size() + 1, H5P_DEFAULT);
    H5L_info_t link{};
    hdf5::check(H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT), "list the group '" + group_path + "'");
    if (link.type != H5L_TYPE_HARD) continue;  // links into other files are not followed
    const std::string path = (group_path == "/" ? "" : group_path) + "/" + name;
    const hid_t object = H5Oopen(group, name.c_str(), H5P_DEFAULT);
    hdf5::check(object, "open '" + path + "'");
    const H5I_type_t kind = H5Iget_type(object);
    if (kind == H5I_DATASET) {
      const hdf5::Dataset dataset(object);
      datasets.push_back({path, dtype_name(dataset), hdf5::shape_of(dataset), hdf5::string_attribute(dataset, "axes"),
                          static_cast<std::int64_t>(H5Dget_storage_size(dataset)),
                          hdf5::int_attribute(dataset, "non_finite")});
    } else {
      H5Oclose(object);
      if (kind == H5I_GROUP) list_datasets(file, path, depth + 1, datasets);
    }
  }
}

/// Only files that are complete stay open; a growing one is opened anew, because HDF5 would answer from what it has
/// cached.
class Reader final : public CaptureReader {
 public:
  explicit Reader(const fs::path& path) : path_(path) {
    std::error_code failure;
    if (!fs::exists(path, failure)) throw Error(ErrorCode::NotFound, "'" + path.string() + "' does not exist.");
    if (!fs::is_regular_file(path, failure))
      throw Error(ErrorCode::BadFormat, "'" + path.string() + "' is not a file; expected a capture (.h5).");
    const auto size = fs::file_size(path, failure);
    if (size == 0) throw Error(ErrorCode::BadFormat, "'" + path.string() + "' is empty; expected a capture (HDF5).");
    Hdf5Thread::instance().run([&] {
      hdf5::recover(path_);
      hdf5::refuse_if_hdf5_crashes(path_, [&] {
        const hdf5::File file = open_file();
        info_ = read_header(file, path_).info;
        read_contents(file);
        for (const DatasetInfo& dataset : info_.datasets) read_corner(file, dataset);
        hdf5::read_texts(file, "/tokens/text");
      });
      hdf5::File file = open_file();
      info_ = read_header(file, path_).info;
      with_context([&] { read_contents(file); });
      if (info_.complete) file_ = std::move(file);
    });
  }

  ~Reader() override {
    Hdf5Thread::instance().run([this] { file_.reset(); });
  }

  const CaptureInfo& info() const override { return info_; }

  std::vector<std::int64_t> token_ids() override {
    return on_file([&](hid_t file) {
      const hdf5::Dataset dataset = hdf5::open_dataset(file, "/tokens/ids");
      const std::int64_t count = hdf5::shape_of(dataset)[0];
      std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
      if (count > 0) hdf5::read_block(dataset, ElementType::Int32, {0}, {count}, ids.data());
      return std::vector<std::int64_t>(ids.begin(), ids.end());
    });
  }

  std::vector<std::string> token_texts() override {
    return on_file([&](hid_t file) { return hdf5::read_texts(file, "/tokens/text"); });
  }

  bool has(const std::string& dataset) const override { return find(dataset) != nullptr; }

  TensorView read(const std::string& dataset, const std::vector<Slice>& slices) override {
    if (!find(dataset)) {
      std::string there;
      const std::string folder = dataset.substr(0, dataset.rfind('/') + 1);
      for (const DatasetInfo& other : info_.datasets) {
        if (other.path.rfind(folder, 0) == 0 && there.size() < 200) there += (there.empty() ? "" : ", ") + other.path;
      }
      throw Error(ErrorCode::NotFound, "'" + info_.path + "' has no dataset '" + dataset + "'. " +
                                           (there.empty() ? "It has nothing there" : "There is " + there) +
                                           (info_.complete ? "." : "; the capture was cut off."));
    }
    return on_file([&](hid_t file) { return read_values(file, dataset, slices); });
  }

  TensorView read_pyramid(std::int64_t layer, const std::string& tap, Pool pool, std::int64_t factor) override {
    const std::string path = pyramid_dataset(layer, tap,
                                             pool == Pool::Min   ? "min"
                                             : pool == Pool::Max ? "max"
                                                                 : "mean",
                                             factor);
    return has(path) ? read(path, {}) : TensorView{};
  }

  ActivationStats activation_stats(const std::string& linear) override {
    const std::string group = activation_group(linear);
    const auto values = [&](const char* name) {
      const TensorView view = read(group + "/" + name, {});
      return std::vector<float>(view.values().begin(), view.values().end());
    };
    ActivationStats stats{linear, values("absmax"), values("mean"), values("second_moment")};
    stats.tokens =
        on_file([&](hid_t file) { return hdf5::int_attribute(hdf5::open_dataset(file, group + "/absmax"), "tokens"); });
    if (stats.mean.size() != stats.absmax.size() || stats.second_moment.size() != stats.absmax.size()) {
      throw Error(ErrorCode::BadFormat,
                  "'" + info_.path + "': the statistics of '" + linear + "' have unequal lengths. Capture again.");
    }
    return stats;
  }

 private:
  hdf5::File open_file() const {
    const hid_t id = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (id < 0) {
      const std::string what =
          H5Fis_hdf5(path_.c_str()) > 0 ? "is a damaged or truncated HDF5 file" : "is not an HDF5 file";
      try {
        hdf5::check(id, "open '" + path_.string() + "'");
      } catch (const Error& e) {
        throw Error(ErrorCode::BadFormat,
                    "'" + path_.string() + "' " + what + " (" + std::to_string(fs::file_size(path_)) +
                        " bytes); expected a capture. Capture again or fetch the file again.",
                    e.detail());
      }
    }
    return hdf5::File(id);
  }

  /// Turns "could not read" into a message that names the file.
  template <typename Work>
  auto with_context(const Work& work) const -> decltype(work()) {
    try {
      return work();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::Io) throw;
      throw Error(ErrorCode::BadFormat, "'" + path_.string() + "' is damaged or truncated. " + e.what(), e.detail());
    }
  }

  template <typename Work>
  auto on_file(const Work& work) -> decltype(work(hid_t{})) {
    return Hdf5Thread::instance().run([&] {
      return with_context([&] {
        if (file_.valid()) return work(static_cast<hid_t>(file_));
        const hdf5::File file = open_file();
        return work(static_cast<hid_t>(file));
      });
    });
  }

  void read_contents(hid_t file) {
    if (!hdf5::exists(file, "/tokens/ids")) {
      throw Error(ErrorCode::BadFormat,
                  "'" + info_.path + "' is a damaged capture: the dataset '/tokens/ids' is missing.");
    }
    list_datasets(file, "/", 0, info_.datasets);
    std::sort(info_.datasets.begin(), info_.datasets.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    const DatasetInfo* ids = find("/tokens/ids");
    if (!ids || ids->shape.size() != 1)
      throw Error(ErrorCode::BadFormat, "'" + info_.path + "': '/tokens/ids' should be a list of numbers.");
    info_.tokens = ids->shape[0];
    check_layers();
    std::vector<std::pair<std::int64_t, std::string>> linears;
    const std::string prefix = "/activations/", suffix = "/absmax";
    for (const DatasetInfo& dataset : info_.datasets) {
      const std::string& path = dataset.path;
      if (path.rfind(prefix, 0) != 0 || path.size() < prefix.size() + suffix.size() || !path.ends_with(suffix))
        continue;
      linears.emplace_back(hdf5::int_attribute(hdf5::open_dataset(file, path), "order"),
                           path.substr(prefix.size(), path.size() - prefix.size() - suffix.size()));
    }
    std::sort(linears.begin(), linears.end());
    for (auto& linear : linears) info_.linears.push_back(std::move(linear.second));
  }

  /// A complete capture holds every tap of layer 0 in all layers, in the shape that the header says.
  void check_layers() const {
    for (const auto& [tap, heads] : {std::pair{"key", info_.kv_heads},
                                     {"key_pre_rope", info_.kv_heads},
                                     {"value", info_.kv_heads},
                                     {"query", info_.heads}}) {
      const bool expected = has(layer_dataset(0, tap));
      for (std::int64_t layer = 0; layer < info_.layers; ++layer) {
        const std::string path = layer_dataset(layer, tap);
        const DatasetInfo* dataset = find(path);
        if (!dataset) {
          if (!info_.complete || !expected) break;
          throw Error(ErrorCode::BadFormat,
                      "'" + info_.path + "' is a damaged capture: the dataset '" + path + "' is missing.");
        }
        const Shape& shape = dataset->shape;
        const bool fits = shape.size() == 3 && shape[0] == heads && shape[2] == info_.head_dim &&
                          (info_.complete ? shape[1] == info_.tokens : shape[1] <= info_.tokens);
        if (!fits) {
          std::string found;
          for (const std::int64_t extent : shape) found += (found.empty() ? "" : ", ") + std::to_string(extent);
          throw Error(ErrorCode::BadFormat, "'" + info_.path + "' is a damaged capture: '" + path +
                                                "' has the shape [" + found + "], expected [" + std::to_string(heads) +
                                                ", " + std::to_string(info_.tokens) + ", " +
                                                std::to_string(info_.head_dim) + "].");
        }
      }
    }
  }

  /// The last element: its chunk is looked up through the whole index.
  static void read_corner(hid_t file, const DatasetInfo& info) {
    if (info.shape.empty() || info.dtype == "utf-8" || info.dtype == "other") return;
    Shape offset = info.shape;
    for (std::int64_t& extent : offset) {
      if (extent == 0) return;
      --extent;
    }
    float value = 0.0f;
    hdf5::read_block(hdf5::open_dataset(file, info.path), ElementType::Float32, offset, Shape(offset.size(), 1),
                     &value);
  }

  const DatasetInfo* find(const std::string& path) const {
    const auto it =
        std::lower_bound(info_.datasets.begin(), info_.datasets.end(), path,
                         [](const DatasetInfo& dataset, const std::string& wanted) { return dataset.path < wanted; });
    return it != info_.datasets.end() && it->path == path ? &*it : nullptr;
  }

  TensorView read_values(hid_t file, const std::string& path, const std::vector<Slice>& slices) const {
    const hdf5::Dataset dataset = hdf5::open_dataset(file, path);
    const Shape shape = hdf5::shape_of(dataset);
    const std::string dtype = dtype_name(dataset);
    if (dtype == "utf-8" || dtype == "other") {
      throw Error(ErrorCode::InvalidArgument,
                  "'" + path + "' of '" + info_.path + "' holds no numbers (" + dtype + ").");
    }
    if (slices.size() > shape.size()) {
      throw Error(ErrorCode::InvalidArgument, "'" + path + "' has " + std::to_string(shape.size()) + " axes; " +
                                                  std::to_string(slices.size()) + " ranges were asked for.");
    }
    Shape offset(shape.size(), 0), count = shape;
    std::int64_t total = 1;
    const std::int64_t limit = available_memory() / 8;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (i < slices.size()) {
        const std::int64_t end = slices[i].end < 0 ? shape[i] : slices[i].end;
        if (slices[i].begin < 0 || slices[i].begin > end || end > shape[i]) {
          throw Error(ErrorCode::InvalidArgument,
                      "'" + path + "': the range " + std::to_string(slices[i].begin) + " to " + std::to_string(end) +
                          " lies outside axis " + std::to_string(i) + ", which has " + std::to_string(shape[i]) + ".");
        }
        offset[i] = slices[i].begin;
        count[i] = end - slices[i].begin;
      }
      if (count[i] != 0 && total > limit / count[i]) {
        throw Error(ErrorCode::OutOfMemory,
                    "'" + path + "' of '" + info_.path + "' is too large to be read at once. Read a part of it.");
      }
      total *= count[i];
    }
    std::vector<float> values(static_cast<std::size_t>(total));
    if (total == 0) return TensorView::own(std::move(values), count);
    const auto read_as = [&](ElementType type) { hdf5::read_block(dataset, type, offset, count, values.data()); };
    if (dtype == "float16" || dtype == "bfloat16") {
      // The 16-bit values are read into the upper half of the buffer and widened from its front.
      auto* halves = reinterpret_cast<unsigned char*>(values.data()) + values.size() * 2;
      hdf5::read_block(dataset, dtype == "float16" ? ElementType::Float16 : ElementType::BFloat16, offset, count,
                       halves);
      for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, halves + 2 * i, sizeof bits);
        values[i] = dtype == "float16" ? f16_to_f32(bits) : bf16_to_f32(bits);
      }
    } else {
      read_as(ElementType::Float32);
    }
    return TensorView::own(std::move(values), count);
  }

  fs::path path_;
  CaptureInfo info_;
  hdf5::File file_;
};

}  // namespace

std::shared_ptr<CaptureReader> CaptureReader::open(const fs::path& path) { return std::make_shared<Reader>(path); }

TensorView CaptureReader::read_layer(std::int64_t layer, const std::string& tap, const std::vector<Slice>& slices) {
  return read(layer_dataset(layer, tap), slices);
}

}  // namespace qs
