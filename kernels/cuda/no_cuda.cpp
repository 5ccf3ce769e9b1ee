#include "kernels/cuda/cuda_kernels.h"

namespace qs::kernels::cuda {
namespace {

const char* const kProblem =
    "Quantoscope was built without CUDA. Install the CUDA toolkit and build again to use a GPU.";

}  // namespace

bool cuda_available() noexcept { return false; }
std::string cuda_problem() { return kProblem; }
std::string cuda_device_name() { return {}; }
std::string synchronize(void*) { return kProblem; }

DeviceBuffer::~DeviceBuffer() = default;
DeviceBuffer::DeviceBuffer(DeviceBuffer&&) noexcept {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&&) noexcept { return *this; }
bool DeviceBuffer::allocate(std::size_t) noexcept { return false; }
bool DeviceBuffer::upload(const void*, std::size_t, void*) noexcept { return false; }
bool DeviceBuffer::download(void*, std::size_t, void*) const noexcept { return false; }

std::string quantize_keys(const KeyQuantization&, void*) { return kProblem; }
std::string quantize_values(const ValueQuantization&, void*) { return kProblem; }
std::size_t attention_scratch_bytes(std::int64_t, std::int64_t, std::int64_t) noexcept { return 0; }
std::string decode_attention(const DecodeAttention&, void*) { return kProblem; }
std::size_t row_attention_scratch_bytes(std::int64_t, std::int64_t, std::int64_t) noexcept { return 0; }
std::string row_attention(const RowAttention&, void*) { return kProblem; }
std::string low_bit_gemv(const LowBitGemv&, void*) { return kProblem; }
std::size_t lut_scratch_bytes(std::int64_t, std::int64_t, std::int64_t) noexcept { return 0; }
std::string lut_gemm(const LutProduct&, void*) { return kProblem; }
std::string spqr_product(const SpqrProduct&, void*) { return kProblem; }
std::string int8_gemm(const Int8Product&, void*) { return kProblem; }

}  // namespace qs::kernels::cuda
