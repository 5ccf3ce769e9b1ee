#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

std::string find_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return std::string("No usable CUDA driver: ") + cudaGetErrorString(status) + ".";
  if (count == 0) return "No CUDA device was found.";
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return "The CUDA device does not answer.";
  if (properties.major < 8)
    return std::string("The CUDA device '") + properties.name + "' has compute capability " +
           std::to_string(properties.major) + "." + std::to_string(properties.minor) + "; 8.0 or later is needed.";
  return {};
}

const std::string& problem() {
  static const std::string text = find_problem();
  return text;
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

bool cuda_available() noexcept { return problem().empty(); }

std::string cuda_problem() { return problem(); }

std::string cuda_device_name() {
  cudaDeviceProp properties{};
  if (!cuda_available() || cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return {};
  return properties.name;
}

std::string synchronize(void* stream) {
  if (!cuda_available()) return problem();
  return error_text(cudaStreamSynchronize(stream_of(stream)));
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept : data_(other.data_), size_(other.size_) {
  other.data_ = nullptr;
  other.size_ = 0;
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this == &other) return *this;
  if (data_ != nullptr) cudaFree(data_);
  data_ = other.data_;
  size_ = other.size_;
  other.data_ = nullptr;
  other.size_ = 0;
  return *this;
}

bool DeviceBuffer::allocate(std::size_t bytes) noexcept {
  if (!cuda_available()) return false;
  if (data_ != nullptr) cudaFree(data_);
  data_ = nullptr;
  size_ = 0;
  if (cudaMalloc(&data_, bytes) != cudaSuccess) {
    data_ = nullptr;
    cudaGetLastError();
    return false;
  }
  size_ = bytes;
  return true;
}

bool DeviceBuffer::upload(const void* host, std::size_t bytes, void* stream) noexcept {
  if (data_ == nullptr || bytes > size_) return false;
  return cudaMemcpyAsync(data_, host, bytes, cudaMemcpyHostToDevice, stream_of(stream)) == cudaSuccess;
}

bool DeviceBuffer::download(void* host, std::size_t bytes, void* stream) const noexcept {
  if (data_ == nullptr || bytes > size_) return false;
  return cudaMemcpyAsync(host, data_, bytes, cudaMemcpyDeviceToHost, stream_of(stream)) == cudaSuccess &&
         cudaStreamSynchronize(stream_of(stream)) == cudaSuccess;
}

}  // namespace qs::kernels::cuda
