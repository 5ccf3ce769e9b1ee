#include <ATen/ATen.h>

#include "backend/methods/golden_kv_support.h"
#include "kernels/float_formats.h"

namespace qs {
namespace {

GoldenOutput run_fp8(const GoldenCase& golden, const JobContext&) {
  GoldenOutput output;
  if (golden.inputs.count("x") == 0) {
    at::Tensor bytes = at::arange(256, at::kInt).to(at::kByte);
    output.tensors["e4m3"] = at::empty({256}, at::kFloat);
    output.tensors["e5m2"] = at::empty({256}, at::kFloat);
    kernels::e4m3_to_f32(bytes.data_ptr<std::uint8_t>(), output.tensors["e4m3"].data_ptr<float>(), 256);
    kernels::e5m2_to_f32(bytes.data_ptr<std::uint8_t>(), output.tensors["e5m2"].data_ptr<float>(), 256);
    return output;
  }
  const at::Tensor x = golden.inputs.at("x").to(at::kFloat).contiguous();
  const std::int64_t count = x.numel();
  at::Tensor e4m3 = at::empty({count}, at::kByte), e5m2 = at::empty({count}, at::kByte);
  kernels::f32_to_e4m3(x.data_ptr<float>(), e4m3.data_ptr<std::uint8_t>(), count);
  kernels::f32_to_e5m2(x.data_ptr<float>(), e5m2.data_ptr<std::uint8_t>(), count);
  at::Tensor e4m3_value = at::empty({count}, at::kFloat), e5m2_value = at::empty({count}, at::kFloat);
  kernels::e4m3_to_f32(e4m3.data_ptr<std::uint8_t>(), e4m3_value.data_ptr<float>(), count);
  kernels::e5m2_to_f32(e5m2.data_ptr<std::uint8_t>(), e5m2_value.data_ptr<float>(), count);
  output.tensors = {{"e4m3_code", e4m3}, {"e4m3_value", e4m3_value}, {"e5m2_code", e5m2}, {"e5m2_value", e5m2_value}};
  return output;
}

}  // namespace

GoldenRunner golden_fp8() { return {"fp8", run_fp8}; }

}  // namespace qs
