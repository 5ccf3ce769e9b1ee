#include "backend/storage/hdf5_handle.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "backend/types/error.h"

namespace qs::hdf5 {
namespace {

herr_t add_line(unsigned, const H5E_error2_t* error, void* text) {
  auto& lines = *static_cast<std::string*>(text);
  lines.append(error->func_name ? error->func_name : "?")
      .append(": ")
      .append(error->desc ? error->desc : "")
      .append("\n");
  return 0;
}

std::vector<hsize_t> extents(const Shape& shape) { return {shape.begin(), shape.end()}; }

Type text_type() {
  Type type(H5Tcopy(H5T_C_S1));
  check(H5Tset_size(type, H5T_VARIABLE), "describe texts");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "describe texts");
  return type;
}

void write_attribute(hid_t object, const std::string& name, hid_t type, const void* value) {
  const std::string what = "write the attribute '" + name + "'";
  Attribute attribute;
  if (has_attribute(object, name)) {
    attribute = Attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), what);
  } else {
    const Space scalar(H5Screate(H5S_SCALAR));
    attribute = Attribute(H5Acreate2(object, name.c_str(), type, scalar, H5P_DEFAULT, H5P_DEFAULT), what);
  }
  check(H5Awrite(attribute, type, value), what);
}

template <typename Transfer>
void transfer_block(hid_t dataset, const Shape& offset, const Shape& count, const Transfer& transfer) {
  const Space file_space(H5Dget_space(dataset));
  const auto start = extents(offset), size = extents(count);
  check(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr),
        "select a part of a dataset");
  const Space memory(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr));
  transfer(memory, file_space);
}

}  // namespace

void check(std::int64_t status, const std::string& what) {
  if (status >= 0) return;
  std::string stack;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, add_line, &stack);
  H5Eclear2(H5E_DEFAULT);
  throw Error(ErrorCode::Io, "Could not " + what + ".", stack);
}

Type make_type(ElementType type) {
  switch (type) {
    case ElementType::Float16: {
      Type half(H5Tcopy(H5T_IEEE_F32LE));
      check(H5Tset_fields(half, 15, 10, 5, 0, 10), "describe float16");
      check(H5Tset_size(half, 2), "describe float16");
      check(H5Tset_ebias(half, 15), "describe float16");
      return half;
    }
    case ElementType::BFloat16:
      return Type(H5Tcopy(H5T_STD_U16LE));
    case ElementType::Float32:
      return Type(H5Tcopy(H5T_IEEE_F32LE));
    case ElementType::Float64:
      return Type(H5Tcopy(H5T_IEEE_F64LE));
    case ElementType::Int32:
      return Type(H5Tcopy(H5T_STD_I32LE));
  }
  throw Error(ErrorCode::Internal, "An element type is not known.");
}

std::size_t size_of(ElementType type) {
  switch (type) {
    case ElementType::Float16:
    case ElementType::BFloat16:
      return 2;
    case ElementType::Float64:
      return 8;
    default:
      return 4;
  }
}

Dataset create_dataset(hid_t file, const std::string& path, ElementType type, const Shape& shape, const Shape& chunk,
                       int growing_axis, const std::string& axes, const std::string& source_tap) {
  const std::string what = "create the dataset '" + path + "'";
  const Properties links(H5Pcreate(H5P_LINK_CREATE));
  check(H5Pset_create_intermediate_group(links, 1), what);
  const Properties layout(H5Pcreate(H5P_DATASET_CREATE));
  auto maximum = extents(shape);
  if (!chunk.empty()) {
    check(H5Pset_chunk(layout, static_cast<int>(chunk.size()), extents(chunk).data()), what);
    check(H5Pset_shuffle(layout), what);
    check(H5Pset_deflate(layout, 1), what);
    if (growing_axis >= 0) maximum[static_cast<std::size_t>(growing_axis)] = H5S_UNLIMITED;
  }
  const Space space(H5Screate_simple(static_cast<int>(shape.size()), extents(shape).data(), maximum.data()), what);
  Dataset dataset(H5Dcreate2(file, path.c_str(), make_type(type), space, links, layout, H5P_DEFAULT), what);
  set_attribute(dataset, "axes", axes);
  if (!source_tap.empty()) set_attribute(dataset, "source_tap", source_tap);
  if (type == ElementType::BFloat16) set_attribute(dataset, "dtype", std::string("bfloat16"));
  return dataset;
}

Dataset open_dataset(hid_t file, const std::string& path) {
  return Dataset(H5Dopen2(file, path.c_str(), H5P_DEFAULT), "open the dataset '" + path + "'");
}

bool exists(hid_t file, const std::string& path) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    if (H5Lexists(file, path.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
    if (slash == std::string::npos) return H5Oexists_by_name(file, path.c_str(), H5P_DEFAULT) > 0;
  }
}

Shape shape_of(hid_t dataset) {
  const Space space(H5Dget_space(dataset));
  const int rank = H5Sget_simple_extent_ndims(space);
  check(rank, "read the shape of a dataset");
  std::vector<hsize_t> size(static_cast<std::size_t>(rank));
  if (rank > 0) check(H5Sget_simple_extent_dims(space, size.data(), nullptr), "read the shape of a dataset");
  return {size.begin(), size.end()};
}

void write_block(hid_t dataset, ElementType type, const Shape& offset, const Shape& count, const void* data) {
  transfer_block(dataset, offset, count, [&](hid_t memory, hid_t file_space) {
    check(H5Dwrite(dataset, make_type(type), memory, file_space, H5P_DEFAULT, data), "write to a dataset");
  });
}

void read_block(hid_t dataset, ElementType type, const Shape& offset, const Shape& count, void* data) {
  transfer_block(dataset, offset, count, [&](hid_t memory, hid_t file_space) {
    check(H5Dread(dataset, make_type(type), memory, file_space, H5P_DEFAULT, data), "read from a dataset");
  });
}

void grow(hid_t dataset, int axis, std::int64_t extent) {
  Shape shape = shape_of(dataset);
  if (shape[static_cast<std::size_t>(axis)] >= extent) return;
  shape[static_cast<std::size_t>(axis)] = extent;
  check(H5Dset_extent(dataset, extents(shape).data()), "enlarge a dataset");
}

void set_attribute(hid_t object, const std::string& name, const std::string& value) {
  const char* text = value.c_str();
  write_attribute(object, name, text_type(), &text);
}

void set_attribute(hid_t object, const std::string& name, std::int64_t value) {
  write_attribute(object, name, H5T_NATIVE_INT64, &value);
}

void set_attribute(hid_t object, const std::string& name, double value) {
  write_attribute(object, name, H5T_NATIVE_DOUBLE, &value);
}

bool has_attribute(hid_t object, const std::string& name) { return H5Aexists(object, name.c_str()) > 0; }

std::string string_attribute(hid_t object, const std::string& name, const std::string& fallback) {
  if (!has_attribute(object, name)) return fallback;
  const std::string what = "read the attribute '" + name + "'";
  const Attribute attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), what);
  const Type stored(H5Aget_type(attribute));
  const Space space(H5Aget_space(attribute));
  if (H5Tget_class(stored) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) return fallback;
  if (H5Tis_variable_str(stored) > 0) {
    char* text = nullptr;
    check(H5Aread(attribute, stored, &text), what);
    std::string value = text ? text : "";
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(stored), '\0');
  check(H5Aread(attribute, stored, value.data()), what);
  return value.substr(0, std::strlen(value.c_str()));
}

namespace {

template <typename Number>
Number number_attribute(hid_t object, const std::string& name, hid_t type, Number fallback) {
  if (!has_attribute(object, name)) return fallback;
  const std::string what = "read the attribute '" + name + "'";
  const Attribute attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), what);
  const Space space(H5Aget_space(attribute));
  const Type stored(H5Aget_type(attribute));
  const auto kind = H5Tget_class(stored);
  if ((kind != H5T_INTEGER && kind != H5T_FLOAT) || H5Sget_simple_extent_npoints(space) != 1) return fallback;
  Number value{};
  check(H5Aread(attribute, type, &value), what);
  return value;
}

}  // namespace

std::int64_t int_attribute(hid_t object, const std::string& name, std::int64_t fallback) {
  return number_attribute(object, name, H5T_NATIVE_INT64, fallback);
}

double real_attribute(hid_t object, const std::string& name, double fallback) {
  return number_attribute(object, name, H5T_NATIVE_DOUBLE, fallback);
}

void append_texts(hid_t file, const std::string& path, const std::vector<std::string>& texts, const std::string& axes) {
  const std::string what = "write the texts '" + path + "'";
  const Type type = text_type();
  Dataset dataset;
  if (exists(file, path)) {
    dataset = open_dataset(file, path);
  } else {
    const Properties links(H5Pcreate(H5P_LINK_CREATE));
    check(H5Pset_create_intermediate_group(links, 1), what);
    const Properties layout(H5Pcreate(H5P_DATASET_CREATE));
    const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = 1024;
    check(H5Pset_chunk(layout, 1, &chunk), what);
    const Space space(H5Screate_simple(1, &none, &unlimited));
    dataset = Dataset(H5Dcreate2(file, path.c_str(), type, space, links, layout, H5P_DEFAULT), what);
    set_attribute(dataset, "axes", axes);
  }
  if (texts.empty()) return;
  const std::int64_t first = shape_of(dataset)[0];
  const auto count = static_cast<std::int64_t>(texts.size());
  grow(dataset, 0, first + count);
  std::vector<const char*> pointers;
  for (const auto& text : texts) pointers.push_back(text.c_str());
  transfer_block(dataset, {first}, {count}, [&](hid_t memory, hid_t file_space) {
    check(H5Dwrite(dataset, type, memory, file_space, H5P_DEFAULT, pointers.data()), what);
  });
}

std::vector<std::string> read_texts(hid_t file, const std::string& path) {
  const Dataset dataset = open_dataset(file, path);
  const Type stored(H5Dget_type(dataset));
  const Shape shape = shape_of(dataset);
  if (H5Tis_variable_str(stored) <= 0 || shape.size() != 1) {
    throw Error(ErrorCode::BadFormat, "The dataset '" + path + "' should be a list of variable-length texts.");
  }
  std::vector<char*> pointers(static_cast<std::size_t>(shape[0]));
  if (pointers.empty()) return {};
  const Type type = text_type();
  check(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()), "read the texts '" + path + "'");
  std::vector<std::string> texts;
  for (const char* text : pointers) texts.emplace_back(text ? text : "");
  const Space space(H5Dget_space(dataset));
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
  return texts;
}

void refuse_if_hdf5_crashes(const std::filesystem::path& path, const std::function<void()>& probe) {
  const pid_t child = ::fork();
  if (child < 0) return;  // no process to spare: as without the probe
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM}) ::signal(signal, SIG_DFL);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::alarm(60);
    try {
      probe();
    } catch (...) {
      ::_exit(0);
    }
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFSIGNALED(status)) {
    throw Error(
        ErrorCode::BadFormat,
        "'" + path.string() + "' is a damaged HDF5 file: reading it crashes the HDF5 library. Fetch or make it again.",
        "signal " + std::to_string(WTERMSIG(status)));
  }
}

}  // namespace qs::hdf5
