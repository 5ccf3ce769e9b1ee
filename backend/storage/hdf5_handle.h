#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qs::hdf5 {

/// Throws Error Io "Could not <what>." with the HDF5 stack in its detail when `status` is negative.
void check(std::int64_t status, const std::string& what);

/// An HDF5 id that closes itself. Only on the HDF5 thread.
template <herr_t (*close)(hid_t)>
class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, const std::string& what) : id_(id) { check(id, what); }
  explicit Handle(hid_t id) : id_(id) { check(id, "create an HDF5 object"); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() { reset(); }
  void reset() {
    if (id_ >= 0) close(id_);
    id_ = -1;
  }
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Space = Handle<H5Sclose>;
using Type = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using Properties = Handle<H5Pclose>;

/// How the elements of a dataset are stored. BFloat16 is uint16 with an attribute dtype = "bfloat16".
enum class ElementType { Float16, BFloat16, Float32, Float64, Int32 };
Type make_type(ElementType type);  ///< little endian, as in the file and in memory
std::size_t size_of(ElementType type);

using Shape = std::vector<std::int64_t>;

/// Creates `path` with its parent groups.
/// @param chunk  empty: contiguous and of fixed size; else chunked, shuffled, deflated, and growing along
/// `growing_axis`
/// @param growing_axis  -1: none
Dataset create_dataset(hid_t file, const std::string& path, ElementType type, const Shape& shape, const Shape& chunk,
                       int growing_axis, const std::string& axes, const std::string& source_tap);
Dataset open_dataset(hid_t file, const std::string& path);
bool exists(hid_t file, const std::string& path);  ///< every link on the way resolves
Shape shape_of(hid_t dataset);

void write_block(hid_t dataset, ElementType type, const Shape& offset, const Shape& count, const void* data);
void read_block(hid_t dataset, ElementType type, const Shape& offset, const Shape& count, void* data);
void grow(hid_t dataset, int axis, std::int64_t extent);  ///< never shrinks

void set_attribute(hid_t object, const std::string& name, const std::string& value);
void set_attribute(hid_t object, const std::string& name, std::int64_t value);
void set_attribute(hid_t object, const std::string& name, double value);
bool has_attribute(hid_t object, const std::string& name);
std::string string_attribute(hid_t object, const std::string& name, const std::string& fallback = {});
std::int64_t int_attribute(hid_t object, const std::string& name, std::int64_t fallback = 0);
double real_attribute(hid_t object, const std::string& name, double fallback = 0.0);

/// Variable-length UTF-8 texts, one-dimensional and growing.
void append_texts(hid_t file, const std::string& path, const std::vector<std::string>& texts, const std::string& axes);
std::vector<std::string> read_texts(hid_t file, const std::string& path);

/// Runs `probe` in a forked child first. libhdf5 checks little of what it reads, and a damaged file can crash it: then
/// the child dies instead of the program. Errors that the probe throws are not reported; the caller meets them again.
/// On the HDF5 thread.
/// @throws Error BadFormat when the child crashed or did not end within a minute
void refuse_if_hdf5_crashes(const std::filesystem::path& path, const std::function<void()>& probe);

}  // namespace qs::hdf5
