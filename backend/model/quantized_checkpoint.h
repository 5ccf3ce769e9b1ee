#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/model/code_layout.h"

namespace qs {

/// What "quantization_config" of config.json says about a checkpoint.
struct QuantizationScheme {
  CodeLayout layout = CodeLayout::Gptq;
  int bits = 4;
  std::int64_t group_size = -1;  ///< -1: one scale a row
  bool symmetric = false;
  bool activation_order = false;
  bool zero_minus_one = true;  ///< Gptq: format "gptq", not "gptq_v2"
  bool mixed = false;          ///< some linears have settings of their own

  std::string text() const;  ///< "GPTQ, 4 bits, groups of 128, activation order"
};

/// Read are quant_method gptq (checkpoint_format gptq and gptq_v2) and compressed-tensors (pack-quantized weights of 4
/// or 8 bits; int-quantized 8-bit weights with 8-bit inputs quantized token by token).
/// @return nothing when config.json has no quantization_config
/// @throws Error Unsupported naming the method or setting that is not read, and what is; BadFormat for impossible
/// values
std::optional<QuantizationScheme> read_quantization(const nlohmann::json& config, const std::string& path);

/// How the weight `weight_name` ("... .weight") lies; nothing when it is floating point.
/// @throws Error BadFormat when its width is not the one that the configuration names
std::optional<CodeFormat> format_of(const QuantizationScheme& scheme, const TensorTable& table,
                                    const std::string& weight_name, std::int64_t in_features);
/// `weight_name` without ".weight".
std::string stem_of(const std::string& weight_name);

/// One linear of a checkpoint that is to be described.
struct CodedLinear {
  std::string stem;
  CodeFormat format;
  std::int64_t group_size = 0;
  bool int8_inputs = false;
};
/// quantization_config for these linears. @param uncoded  stems of the linears that are left in floating point; those
/// of `uncoded_in_blocks` stand among coded ones
/// @throws Error InvalidArgument when `coded` is empty
nlohmann::ordered_json quantization_config(const std::vector<CodedLinear>& coded,
                                           const std::vector<std::string>& uncoded,
                                           const std::vector<std::string>& uncoded_in_blocks,
                                           const std::string& program);

}  // namespace qs
