#include "backend/storage/kv_artifact.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <sstream>

#include "backend/storage/capture_layout.h"
#include "backend/storage/hdf5_commit_file.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "quantoscope-kv-calibration";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMaxLayers = 4096, kMaxTensors = 256, kMaxTensorBytes = std::int64_t{1} << 31;

struct StoredType {
  const char* name;
  hdf5::ElementType file;
  at::ScalarType memory;
};
constexpr StoredType kTypes[] = {{"float16", hdf5::ElementType::Float16, at::kHalf},
                                 {"float32", hdf5::ElementType::Float32, at::kFloat},
                                 {"float64", hdf5::ElementType::Float64, at::kDouble},
                                 {"int32", hdf5::ElementType::Int32, at::kInt}};

std::string layer_group(std::size_t layer) {
  char name[32];
  std::snprintf(name, sizeof name, "/layers/%03zu", layer);
  return name;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

void write_tensor(hid_t file, const std::string& path, const at::Tensor& tensor) {
  for (const StoredType& type : kTypes) {
    if (tensor.scalar_type() != type.memory || tensor.dim() < 1 || tensor.dim() > 4) continue;
    const at::Tensor whole = tensor.contiguous();
    const hdf5::Shape shape = whole.sizes().vec();
    const hdf5::Dataset dataset = hdf5::create_dataset(file, path, type.file, shape, {}, -1, "", "");
    hdf5::set_attribute(dataset, "dtype", std::string(type.name));
    if (whole.numel() > 0) hdf5::write_block(dataset, type.file, hdf5::Shape(shape.size(), 0), shape, whole.data_ptr());
    return;
  }
  throw Error(ErrorCode::InvalidArgument, "The calibration tensor '" + path + "' has " + std::to_string(tensor.dim()) +
                                              " axes of type " + c10::toString(tensor.scalar_type()) +
                                              "; files hold 1 to 4 axes of float16, float32, float64 or int32.");
}

void write_artifact(hid_t file, const KvArtifact& artifact) {
  hdf5::set_attribute(file, "format", std::string(kFormat));
  hdf5::set_attribute(file, "version", kVersion);
  hdf5::set_attribute(file, "created_utc", utc_now());
  hdf5::set_attribute(file, "program_version", std::string(QUANTOSCOPE_VERSION));
  hdf5::set_attribute(file, "method", artifact.method);
  hdf5::set_attribute(file, "setup", artifact.setup);
  hdf5::set_attribute(file, "model_fingerprint", artifact.model_fingerprint);
  hdf5::set_attribute(file, "model_name", artifact.model_name);
  hdf5::set_attribute(file, "source", artifact.source);
  hdf5::set_attribute(file, "source_sha256", artifact.source_sha256);
  hdf5::set_attribute(file, "kv_heads", artifact.kv_heads);
  hdf5::set_attribute(file, "head_dim", artifact.head_dim);
  hdf5::set_attribute(file, "tokens", artifact.tokens);
  hdf5::set_attribute(file, "seed", static_cast<std::int64_t>(artifact.seed));
  hdf5::set_attribute(file, "windows", artifact.windows);
  hdf5::set_attribute(file, "window", artifact.window);
  hdf5::set_attribute(file, "layers", static_cast<std::int64_t>(artifact.layers.size()));
  const hdf5::Properties links(H5Pcreate(H5P_LINK_CREATE));
  hdf5::check(H5Pset_create_intermediate_group(links, 1), "prepare groups");
  for (std::size_t layer = 0; layer < artifact.layers.size(); ++layer) {
    const std::string name = layer_group(layer);
    const hdf5::Group group(H5Gcreate2(file, name.c_str(), links, H5P_DEFAULT, H5P_DEFAULT), "create '" + name + "'");
    std::string tensors;
    for (const auto& [tensor_name, tensor] : artifact.layers[layer]) {
      tensors += (tensors.empty() ? "" : ",") + tensor_name;
      write_tensor(file, name + "/" + tensor_name, tensor);
    }
    hdf5::set_attribute(group, "tensors", tensors);
  }
}

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::BadFormat, where + " " + what + " Calibrate again or fetch the file again.");
}

at::Tensor read_tensor(hid_t file, const std::string& path, const std::string& where, std::int64_t file_bytes) {
  const hdf5::Dataset dataset = hdf5::open_dataset(file, path);
  const hdf5::Shape shape = hdf5::shape_of(dataset);
  const std::string dtype = hdf5::string_attribute(dataset, "dtype");
  for (const StoredType& type : kTypes) {
    if (dtype != type.name) continue;
    if (shape.empty() || shape.size() > 4) refuse(where, "has a tensor '" + path + "' that is not of 1 to 4 axes.");
    std::int64_t bytes = static_cast<std::int64_t>(hdf5::size_of(type.file));
    for (const std::int64_t extent : shape) {
      if (extent < 0 || (bytes > 0 && extent > kMaxTensorBytes / bytes))
        refuse(where, "has a tensor '" + path + "' of unlikely size.");
      bytes *= extent;
    }
    // Tensors are stored as they are: a larger one than the file is none.
    if (bytes > file_bytes) refuse(where, "has a tensor '" + path + "' that is larger than the file.");
    at::Tensor tensor = at::empty(shape, type.memory);
    if (bytes > 0) hdf5::read_block(dataset, type.file, hdf5::Shape(shape.size(), 0), shape, tensor.data_ptr());
    return tensor;
  }
  refuse(where,
         "has a tensor '" + path + "' of the type '" + dtype + "'; float16, float32, float64 or int32 was expected.");
}

KvArtifact read_artifact(hid_t file, const std::string& where, std::int64_t file_bytes) {
  const std::string format = hdf5::string_attribute(file, "format");
  if (format != kFormat) {
    throw Error(ErrorCode::BadFormat, where + " is no KV calibration: its attribute \"format\" is \"" + format +
                                          "\", expected \"" + kFormat + "\".");
  }
  if (const std::int64_t version = hdf5::int_attribute(file, "version"); version != kVersion) {
    throw Error(ErrorCode::BadFormat, where + " is a KV calibration of version " + std::to_string(version) +
                                          "; this program reads version 1.");
  }
  KvArtifact artifact;
  artifact.method = hdf5::string_attribute(file, "method");
  artifact.setup = hdf5::string_attribute(file, "setup");
  artifact.model_fingerprint = hdf5::string_attribute(file, "model_fingerprint");
  artifact.model_name = hdf5::string_attribute(file, "model_name");
  artifact.source = hdf5::string_attribute(file, "source");
  artifact.source_sha256 = hdf5::string_attribute(file, "source_sha256");
  artifact.kv_heads = hdf5::int_attribute(file, "kv_heads");
  artifact.head_dim = hdf5::int_attribute(file, "head_dim");
  artifact.tokens = hdf5::int_attribute(file, "tokens");
  artifact.seed = static_cast<std::uint64_t>(hdf5::int_attribute(file, "seed"));
  artifact.windows = hdf5::int_attribute(file, "windows");
  artifact.window = hdf5::int_attribute(file, "window");
  if (artifact.method.empty() || artifact.model_fingerprint.empty())
    refuse(where, "does not name its method and model.");
  if (artifact.kv_heads < 1 || artifact.kv_heads > 65536 || artifact.head_dim < 1 || artifact.head_dim > 65536)
    refuse(where, "does not say how many KV heads of which size it is for.");
  const std::int64_t layers = hdf5::int_attribute(file, "layers", -1);
  if (layers < 1 || layers > kMaxLayers) refuse(where, "does not say how many layers it holds.");
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::string name = layer_group(static_cast<std::size_t>(layer));
    const hdf5::Group group(H5Gopen2(file, name.c_str(), H5P_DEFAULT), "open '" + name + "'");
    std::istringstream names(hdf5::string_attribute(group, "tensors"));
    KvLayerArtifact tensors;
    for (std::string tensor; std::getline(names, tensor, ',');) {
      if (!is_plain_name(tensor) || static_cast<std::int64_t>(tensors.size()) >= kMaxTensors)
        refuse(where, "names a tensor in '" + name + "' that cannot be one.");
      tensors[tensor] = read_tensor(file, name + "/" + tensor, where, file_bytes);
    }
    artifact.layers.push_back(std::move(tensors));
  }
  return artifact;
}

}  // namespace

void write_kv_artifact(const fs::path& path, const KvArtifact& artifact) {
  hdf5::write_whole_file(path, [&](hid_t file) { write_artifact(file, artifact); });
}

KvArtifact read_kv_artifact(const fs::path& path) {
  const std::string where = "'" + path.string() + "'";
  std::error_code failure;
  if (!fs::exists(path, failure)) throw Error(ErrorCode::NotFound, "The calibration " + where + " does not exist.");
  if (!fs::is_regular_file(path, failure))
    throw Error(ErrorCode::BadFormat, where + " is not a file; a KV calibration was expected.");
  const auto bytes = static_cast<std::int64_t>(fs::file_size(path, failure));
  return Hdf5Thread::instance().run([&] {
    const auto read = [&] {
      const hdf5::File file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), "open " + where);
      return read_artifact(file, where, bytes);
    };
    try {
      hdf5::refuse_if_hdf5_crashes(path, [&] { read(); });
      return read();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::Io) throw;
      throw Error(ErrorCode::BadFormat,
                  where + " is damaged, truncated or no HDF5 file; expected a KV calibration. " + e.what(), e.detail());
    }
  });
}

}  // namespace qs
