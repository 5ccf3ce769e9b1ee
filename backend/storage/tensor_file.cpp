#include "backend/storage/tensor_file.h"

#include "backend/storage/hdf5_handle.h"
#include "backend/storage/hdf5_thread.h"

namespace qs {

void write_tensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                   const std::map<std::string, std::string>& attributes) {
  std::filesystem::path part = path;
  part += ".part";
  const auto write = [&] {
    const hdf5::File file(H5Fcreate(part.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                          "create '" + part.string() + "'");
    for (const auto& [name, value] : attributes) hdf5::set_attribute(file, name, value);
    for (const NamedTensor& tensor : tensors) {
      const hdf5::Dataset dataset = hdf5::create_dataset(file, tensor.path, hdf5::ElementType::Float32,
                                                         tensor.values.shape, tensor.values.shape, -1, tensor.axes, "");
      hdf5::write_block(dataset, hdf5::ElementType::Float32, hdf5::Shape(tensor.values.shape.size(), 0),
                        tensor.values.shape, tensor.values.data);
    }
    hdf5::check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write '" + path.string() + "'");
  };
  try {
    Hdf5Thread::instance().run(write);
    std::filesystem::rename(part, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
}

}  // namespace qs
