#include <ATen/ATen.h>

#include "backend/methods/golden_kv_support.h"
#include "kernels/pack_bits.h"

namespace qs {

std::vector<GoldenRunner> golden_kv_runners() {
  return {golden_decoquant(), golden_kivi(), golden_kvquant(), golden_rtn(),
          golden_scope(),     golden_skvq(), golden_fp8(),     golden_qaq()};
}

at::Tensor pack_words(const at::Tensor& codes, int bits) {
  const at::Tensor rows = codes.to(at::kByte).contiguous();
  const std::int64_t length = codes.size(-1), count = length > 0 ? codes.numel() / length : 0;
  const std::int64_t words = bits == 3 ? kernels::i32_3bit_words(length) : kernels::i32_lsb_words(length, bits);
  std::vector<std::int64_t> shape = codes.sizes().vec();
  shape.back() = words;
  at::Tensor packed = at::empty(shape, at::kInt);
  for (std::int64_t row = 0; row < count; ++row) {
    const std::uint8_t* const from = rows.data_ptr<std::uint8_t>() + row * length;
    auto* const to = reinterpret_cast<std::uint32_t*>(packed.data_ptr<std::int32_t>() + row * words);
    if (bits == 3) {
      kernels::pack_i32_3bit(from, length, to);
    } else {
      kernels::pack_i32_lsb(from, length, bits, to);
    }
  }
  return packed;
}

at::Tensor heads_of(const at::Tensor& x) { return x.reshape({-1, x.size(-2), x.size(-1)}).to(at::kFloat); }

ParamSet precision_params(const nlohmann::json& params) {
  return {{"compute", params.value("compute_dtype", "f32")}, {"store", params.value("store_dtype", "f16")}};
}

}  // namespace qs
