#include "backend/methods/channel_groups.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

constexpr float kSmallestScale = 1e-5f;

at::Tensor rounded_to_f16(const at::Tensor& x) { return x.to(at::kHalf).to(at::kFloat); }

at::Tensor stored(const at::Tensor& x, ParameterType type) {
  at::Tensor kept = x.clone().contiguous();
  store_and_read(type, kept.data_ptr<float>(), kept.numel());
  return kept;
}

at::Tensor index_of(const std::int32_t* first, std::int64_t count) {
  std::vector<std::int64_t> index(first, first + count);
  return at::tensor(index, at::kLong);
}

}  // namespace

std::int64_t bytes_of(ParameterType type) {
  return type == ParameterType::F32 ? 4 : type == ParameterType::F16 ? 2 : 1;
}

void store_parameters(ParameterType type, const float* values, std::int64_t count, void* to) {
  switch (type) {
    case ParameterType::F16:
      return kernels::kernel_set().f32_to_f16(values, static_cast<std::uint16_t*>(to), count);
    case ParameterType::F32:
      std::memcpy(to, values, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case ParameterType::E4M3:
      kernels::f32_to_e4m3(values, static_cast<std::uint8_t*>(to), count);
      return;
    case ParameterType::E5M2:
      kernels::f32_to_e5m2(values, static_cast<std::uint8_t*>(to), count);
      return;
  }
}

void read_parameters(ParameterType type, const void* from, std::int64_t count, float* values) {
  switch (type) {
    case ParameterType::F16:
      return kernels::kernel_set().f16_to_f32(static_cast<const std::uint16_t*>(from), values, count);
    case ParameterType::F32:
      std::memcpy(values, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case ParameterType::E4M3:
      return kernels::e4m3_to_f32(static_cast<const std::uint8_t*>(from), values, count);
    case ParameterType::E5M2:
      return kernels::e5m2_to_f32(static_cast<const std::uint8_t*>(from), values, count);
  }
}

void store_and_read(ParameterType type, float* values, std::int64_t count) {
  if (type == ParameterType::F32) return;
  std::vector<std::uint16_t> place(static_cast<std::size_t>(count));
  store_parameters(type, values, count, place.data());
  read_parameters(type, place.data(), count, values);
  if (type == ParameterType::F16 && kernels::first_not_finite(values, count) >= 0) {
    throw Error(ErrorCode::InvalidArgument,
                "A group's scale or minimum does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
}

std::vector<std::int32_t> ChannelGroups::group_of_channel() const {
  std::vector<std::int32_t> group(order.size());
  for (std::int64_t i = 0; i < groups(); ++i) {
    for (std::int32_t place = start[i]; place < start[i + 1]; ++place)
      group[static_cast<std::size_t>(order[place])] = static_cast<std::int32_t>(i);
  }
  return group;
}

ChannelGroups ChannelGroups::blocks(std::int64_t width, std::int64_t group) {
  ChannelGroups result;
  result.order.resize(static_cast<std::size_t>(width));
  std::iota(result.order.begin(), result.order.end(), 0);
  for (std::int64_t begin = 0; begin <= width; begin += group) result.start.push_back(static_cast<std::int32_t>(begin));
  return result;
}

ChannelGroups ChannelGroups::from(const at::Tensor& order, const at::Tensor& start, const std::string& what) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::InvalidArgument,
                "The channel order of the " + what + " in the calibration " + why + ". Calibrate again.");
  };
  if (!order.defined() || !start.defined() || order.dim() != 1 || start.dim() != 1 ||
      !at::isIntegralType(order.scalar_type(), false) || !at::isIntegralType(start.scalar_type(), false))
    refuse("is missing or no list of whole numbers");
  const at::Tensor places = order.to(at::kLong).contiguous(), begins = start.to(at::kLong).contiguous();
  const std::int64_t* const place = places.data_ptr<std::int64_t>();
  const std::int64_t* const begin = begins.data_ptr<std::int64_t>();
  const std::int64_t width = places.numel();
  if (width == 0 || width > (std::int64_t{1} << 30) || begins.numel() < 2) refuse("is empty");
  std::vector<bool> seen(static_cast<std::size_t>(width), false);
  ChannelGroups result;
  for (std::int64_t i = 0; i < width; ++i) {
    if (place[i] < 0 || place[i] >= width || seen[static_cast<std::size_t>(place[i])])
      refuse("is no permutation: entry " + std::to_string(i) + " is " + std::to_string(place[i]));
    seen[static_cast<std::size_t>(place[i])] = true;
    result.order.push_back(static_cast<std::int32_t>(place[i]));
  }
  for (std::int64_t i = 0; i < begins.numel(); ++i) {
    const std::int64_t least = i == 0 ? 0 : result.start.back();
    if (begin[i] < least || begin[i] > width) refuse("has a group that begins at " + std::to_string(begin[i]));
    result.start.push_back(static_cast<std::int32_t>(begin[i]));
  }
  if (result.start.front() != 0 || result.start.back() != width) refuse("has groups that do not cover all channels");
  return result;
}

TokenCodes quantize_channel_groups(const at::Tensor& x, const SkvqQuantizer& quantizer) {
  const ChannelGroups& groups = quantizer.groups;
  const bool half = quantizer.compute == GroupCompute::F16;
  const auto step = [half](const at::Tensor& t) { return half ? rounded_to_f16(t) : t; };
  const double top = quantizer.top;
  at::Tensor smooth;
  if (!quantizer.smooth.empty()) smooth = at::tensor(quantizer.smooth, at::kFloat);
  const at::Tensor input = step(smooth.defined() ? step(x) * smooth : x);
  TokenCodes result;
  result.codes = at::zeros(x.sizes(), at::kByte);
  result.values = at::empty(x.sizes(), at::kFloat);
  result.scale = at::zeros({x.size(0), groups.groups()}, at::kFloat);
  result.group_min = at::zeros_like(result.scale);
  double saturated = 0.0;
  for (std::int64_t i = 0; i < groups.groups() && x.size(0) > 0; ++i) {
    const std::int64_t count = groups.start[i + 1] - groups.start[i];
    if (count == 0) continue;
    const at::Tensor index = index_of(groups.order.data() + groups.start[i], count);
    const at::Tensor y = input.index_select(1, index);
    const at::Tensor least = y.amin(1, true), most = y.amax(1, true);
    const at::Tensor constant = least == most;
    const at::Tensor alpha = at::full({1}, quantizer.clip_of(i), at::kFloat);
    at::Tensor low, high;
    if (quantizer.centre_clip) {
      const at::Tensor middle = step(step(least + most) * 0.5), reach = step(step(step(most - least) * 0.5) * alpha);
      low = step(middle - reach);
      high = step(middle + reach);
    } else {
      low = step(least * alpha);
      high = step(most * alpha);
    }
    at::Tensor scale = step(step(high - low) / at::full({1}, top, at::kFloat)).clamp_min(kSmallestScale);
    scale = at::where(constant, at::zeros_like(scale), step(scale));
    low = at::where(constant, least, low);
    const at::Tensor kept_scale = stored(scale, quantizer.store), kept_low = stored(low, quantizer.store);
    const at::Tensor& code_scale = quantizer.rounded_codes ? kept_scale : scale;
    const at::Tensor& code_low = quantizer.rounded_codes ? kept_low : low;
    const at::Tensor place = step(step(y - code_low) / code_scale);
    const at::Tensor code = at::round(place.clamp(0.0, top)).masked_fill((code_scale == 0).expand(y.sizes()), 0.0);
    const at::Tensor beyond = at::logical_or(y<low, y> high).logical_and(constant.logical_not());
    saturated += beyond.sum().item<double>();
    result.codes.index_copy_(1, index, code.to(at::kByte));
    result.values.index_copy_(1, index, step(step(code * kept_scale) + kept_low));
    result.scale.select(1, i).copy_(kept_scale.squeeze(1));
    result.group_min.select(1, i).copy_(kept_low.squeeze(1));
  }
  if (smooth.defined()) result.values = step(result.values / smooth);
  if (x.numel() > 0) result.saturated = saturated / static_cast<double>(x.numel());
  return result;
}

void encode_token(const float* x, const SkvqQuantizer& quantizer, std::uint8_t* codes, float* scale, float* group_min,
                  float* scratch) {
  const ChannelGroups& groups = quantizer.groups;
  const bool half = quantizer.compute == GroupCompute::F16;
  const auto step = [half](float v) { return half ? kernels::round_to_f16(v) : v; };
  const auto top = static_cast<float>(quantizer.top);
  const std::int64_t width = groups.width();
  float* const y = scratch;
  float* const code = scratch + width;
  for (std::int64_t p = 0; p < width; ++p) {
    const std::int32_t channel = groups.order[p];
    y[p] = quantizer.smooth.empty() ? step(x[channel]) : step(step(x[channel]) * quantizer.smooth[channel]);
  }
  for (std::int64_t i = 0; i < groups.groups(); ++i) {
    const std::int32_t begin = groups.start[i], end = groups.start[i + 1];
    scale[i] = group_min[i] = 0.0f;
    if (begin == end) continue;
    const auto [least_at, most_at] = std::minmax_element(y + begin, y + end);
    const float least = *least_at, most = *most_at, alpha = quantizer.clip_of(i);
    if (least == most) {
      group_min[i] = least;
      std::fill(code + begin, code + end, 0.0f);
      continue;
    }
    float low = step(least * alpha), high = step(most * alpha);
    if (quantizer.centre_clip) {
      const float middle = step(step(least + most) * 0.5f), reach = step(step(step(most - least) * 0.5f) * alpha);
      low = step(middle - reach);
      high = step(middle + reach);
    }
    scale[i] = step(std::max(step(step(high - low) / top), kSmallestScale));
    group_min[i] = low;
    float parameters[2] = {scale[i], low};
    if (quantizer.rounded_codes) store_and_read(quantizer.store, parameters, 2);
    if (parameters[0] == 0.0f) {
      std::fill(code + begin, code + end, 0.0f);
    } else if (half) {
      for (std::int32_t p = begin; p < end; ++p)
        code[p] = std::nearbyint(std::clamp(step(step(y[p] - parameters[1]) / parameters[0]), 0.0f, top));
    } else {
      for (std::int32_t p = begin; p < end; ++p)
        code[p] = std::nearbyint(std::clamp((y[p] - parameters[1]) / parameters[0], 0.0f, top));
    }
  }
  for (std::int64_t p = 0; p < width; ++p) codes[groups.order[p]] = static_cast<std::uint8_t>(code[p]);
}

}  // namespace qs
