#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/formats/tensor_table.h"
#include "backend/model/linear_codes.h"

namespace qs {

/// How a checkpoint holds the codes of a linear layer of O outputs, I inputs and G groups. Words are little-endian, and
/// "packed along an axis" is one bit stream along it, code k at the bits bits * k to bits * k + bits - 1, so that 32
/// codes of 3 bits fill 3 words.
///
/// Gptq (AutoGPTQ, GPTQModel, vLLM, transformers):
///   qweight i32 [I * bits / 32, O]   packed along I
///   qzeros  i32 [G, O * bits / 32]   packed along O; zero point - 1 (format "gptq") or the zero point ("gptq_v2")
///   scales  f16 [G, O];  g_idx i32 [I]
/// PackQuantized (compressed-tensors, weights alone; 4 or 8 bits):
///   weight_packed i32 [O, I * bits / 32]   packed along I
///   weight_scale [O, G];  weight_shape i64 [2];  weight_g_idx i32 [I] when groups follow an activation order
///   weight_zero_point i32 [O * bits / 32, G]   packed along O; only when the zero point is not 2^(bits - 1) everywhere
/// IntQuantized (compressed-tensors, weights and inputs; 8 bits, one scale a row, symmetric):
///   weight i8 [O, I]: code - 128;  weight_scale [O, 1]
enum class CodeLayout { Gptq, PackQuantized, IntQuantized };

/// How one linear lies in a checkpoint.
struct CodeFormat {
  CodeLayout layout = CodeLayout::Gptq;
  int bits = 4;
  std::int64_t groups = 1;
  StoredType scale_type = StoredType::F16;
  bool zero_points = true;     ///< PackQuantized: stored
  bool group_index = true;     ///< PackQuantized: stored
  bool zero_minus_one = true;  ///< Gptq: format "gptq"
};

/// A tensor that the layout stores for a linear: its name behind the stem and what it is.
struct CodedPart {
  const char* name;
  StoredType type;
  std::vector<std::int64_t> shape;
};
std::vector<CodedPart> coded_parts(const CodeFormat& format, std::int64_t out_features, std::int64_t in_features);

/// The codes' name in a layout: "qweight", "weight_packed", "weight".
const char* codes_name(CodeLayout layout);

/// Why the layout cannot hold these codes; empty when it can. Looks at the description only.
std::string layout_refusal(CodeLayout layout, const LinearCodes& codes);
/// @param codes  a description
CodeFormat code_format(CodeLayout layout, const LinearCodes& codes, bool zero_minus_one);

/// One part as it is stored, contiguous. `codes` may be a description for every part but the codes themselves.
at::Tensor encode_part(const CodeFormat& format, const std::string& part, const LinearCodes& codes);

/// The linear `stem` of a checkpoint.
/// @throws Error NotFound or BadFormat naming the tensor: missing, of another type or shape, scales that are not
///         finite, groups that do not fit
LinearCodes decode_parts(const CodeFormat& format, const TensorTable& table, const std::string& stem,
                         std::int64_t out_features, std::int64_t in_features);
/// How `stem` lies in the checkpoint, from the tensors that are there; nothing when its weight is no codes.
/// @throws Error BadFormat when their shapes fit no width of 2, 3, 4 or 8 bits
std::optional<CodeFormat> find_format(CodeLayout layout, bool zero_minus_one, const TensorTable& table,
                                      const std::string& stem, std::int64_t in_features);
/// Checks names, types and shapes of all parts. @throws Error as decode_parts
void check_parts(const CodeFormat& format, const TensorTable& table, const std::string& stem, std::int64_t out_features,
                 std::int64_t in_features);

}  // namespace qs
