#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/float_formats.h"
#include "kernels/lut_gemm.h"

/// Random bit planes with their dense weight, for kernel tests and benches.
struct BitPlanes {
  std::vector<std::uint32_t> planes;
  std::vector<float> alpha, offset;  ///< exact in f16 and bf16
  std::vector<std::uint16_t> alpha_half, offset_half, alpha_brain, offset_brain;
  qs::kernels::BitPlaneWeight weight;

  BitPlanes(int bits, std::int64_t rows, std::int64_t columns, std::int64_t group, bool with_offset, unsigned seed) {
    using namespace qs::kernels;
    std::mt19937 random(seed);
    const std::int64_t groups = columns / group;
    planes.resize(static_cast<std::size_t>(plane_words(columns) * bits * rows));
    for (std::uint32_t& word : planes) word = static_cast<std::uint32_t>(random());
    alpha.resize(static_cast<std::size_t>(groups * bits * rows));
    for (float& a : alpha) a = bf16_to_f32(f32_to_bf16(0.01F + 0.001F * static_cast<float>(random() % 100)));
    if (with_offset) offset.resize(static_cast<std::size_t>(groups * rows));
    for (float& o : offset) o = bf16_to_f32(f32_to_bf16(0.002F * static_cast<float>(random() % 100) - 0.1F));
    const auto convert = [](const std::vector<float>& from, std::uint16_t (*to)(float)) {
      std::vector<std::uint16_t> bits16;
      for (const float value : from) bits16.push_back(to(value));
      return bits16;
    };
    alpha_half = convert(alpha, f32_to_f16), offset_half = convert(offset, f32_to_f16);
    alpha_brain = convert(alpha, f32_to_bf16), offset_brain = convert(offset, f32_to_bf16);
    weight = {bits,          rows,           columns,           group,
              planes.data(), DenseType::F16, alpha_half.data(), with_offset ? offset_half.data() : nullptr};
  }
  BitPlanes(const BitPlanes&) = delete;
  BitPlanes& operator=(const BitPlanes&) = delete;

  qs::kernels::BitPlaneWeight stored_as(qs::kernels::DenseType type) const {
    using qs::kernels::DenseType;
    qs::kernels::BitPlaneWeight typed = weight;
    typed.scale_type = type;
    if (type == DenseType::F32) typed.alpha = alpha.data();
    if (type == DenseType::BF16) typed.alpha = alpha_brain.data();
    if (typed.offset != nullptr && type == DenseType::F32) typed.offset = offset.data();
    if (typed.offset != nullptr && type == DenseType::BF16) typed.offset = offset_brain.data();
    return typed;
  }

  /// Element of the dense weight, by the definition.
  double at(std::int64_t row, std::int64_t column) const {
    const std::int64_t group = column / weight.group_size, rows = weight.out_features;
    double value = offset.empty() ? 0.0 : static_cast<double>(offset[static_cast<std::size_t>(group * rows + row)]);
    for (int plane = 0; plane < weight.bits; ++plane) {
      const std::int64_t word = (column / 32 * weight.bits + plane) * rows + row;
      const bool plus = (planes[static_cast<std::size_t>(word)] >> (column % 32) & 1U) != 0;
      const double a = static_cast<double>(alpha[static_cast<std::size_t>((group * weight.bits + plane) * rows + row)]);
      value += plus ? a : -a;
    }
    return value;
  }
};
