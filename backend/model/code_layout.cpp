#include "backend/model/code_layout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <vector>

#include "backend/types/error.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

constexpr std::int64_t kWordBits = 32;
constexpr std::int64_t kRowsPerThread = 16;

std::int64_t words_of(std::int64_t count, int bits) { return (count * bits + kWordBits - 1) / kWordBits; }

/// uint8 [rows, count] to int32 [rows, words], a bit stream a row.
at::Tensor pack_rows(const at::Tensor& codes, int bits) {
  const at::Tensor bytes = codes.contiguous();
  const std::int64_t rows = bytes.size(0), count = bytes.size(1), words = words_of(count, bits);
  at::Tensor packed = at::zeros({rows, words}, at::kInt);
  const auto* const from = bytes.data_ptr<std::uint8_t>();
  auto* const to = reinterpret_cast<std::uint8_t*>(packed.data_ptr<std::int32_t>());
  at::parallel_for(0, rows, kRowsPerThread, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      kernels::pack_bit_stream(from + row * count, count, bits, to + row * words * 4);
  });
  return packed;
}

/// The first `count` codes of every row.
at::Tensor unpack_rows(const at::Tensor& packed, std::int64_t count, int bits) {
  const at::Tensor words = packed.contiguous();
  const std::int64_t rows = words.size(0), width = words.size(1);
  at::Tensor codes = at::empty({rows, count}, at::kByte);
  const auto* const from = reinterpret_cast<const std::uint8_t*>(words.data_ptr<std::int32_t>());
  auto* const to = codes.data_ptr<std::uint8_t>();
  at::parallel_for(0, rows, kRowsPerThread, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      kernels::unpack_bit_stream(from + row * width * 4, count, bits, to + row * count);
  });
  return codes;
}

/// Zero points as the layout counts them, modulo 2^bits.
at::Tensor shifted(const at::Tensor& zero_point, std::int64_t by, int bits) {
  return at::remainder(zero_point.to(at::kInt) + by, std::int64_t{1} << bits).to(at::kByte);
}

at::ScalarType torch_type(StoredType type) {
  switch (type) {
    case StoredType::I64:
      return at::kLong;
    case StoredType::I32:
      return at::kInt;
    case StoredType::I8:
      return at::kChar;
    case StoredType::F16:
      return at::kHalf;
    case StoredType::BF16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

/// Copies, because a file need not align its tensors.
at::Tensor read(const StoredTensor& stored) {
  at::Tensor tensor = at::empty(stored.shape, torch_type(stored.type));
  std::memcpy(tensor.data_ptr(), stored.bytes.data(), stored.bytes.size());
  return tensor;
}

std::string names_of(const StoredTensor& tensor) {
  return std::string(stored_type_name(tensor.type)) + " " + shape_text(tensor.shape);
}

[[noreturn]] void broken(const TensorTable& table, const std::string& name, const std::string& what) {
  throw Error(ErrorCode::BadFormat, "'" + table.path + "': tensor '" + name + "' " + what);
}

bool is_scale_type(StoredType type) {
  return type == StoredType::F16 || type == StoredType::BF16 || type == StoredType::F32;
}

/// Group sizes from what every column says; groups other than the last must be equally large.
std::int64_t group_size_of(const at::Tensor& group_index, std::int64_t groups, const TensorTable& table,
                           const std::string& name) {
  const std::int64_t in_features = group_index.size(0);
  std::vector<std::int64_t> columns(static_cast<std::size_t>(groups));
  const auto* const group = group_index.data_ptr<std::int32_t>();
  for (std::int64_t i = 0; i < in_features; ++i) {
    if (group[i] < 0 || group[i] >= groups) {
      broken(table, name,
             "puts column " + std::to_string(i) + " into group " + std::to_string(group[i]) + " of " +
                 std::to_string(groups) + ".");
    }
    ++columns[static_cast<std::size_t>(group[i])];
  }
  const std::int64_t size = columns.front();
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const bool last = i + 1 == columns.size();
    if (columns[i] == size || (last && columns[i] > 0 && columns[i] < size)) continue;
    broken(table, name,
           "gives group " + std::to_string(i) + " " + std::to_string(columns[i]) + " columns and group 0 " +
               std::to_string(size) + "; all but the last must be equally large.");
  }
  return size;
}

/// Runs of equally many columns, the last may be shorter.
at::Tensor runs(std::int64_t in_features, std::int64_t groups, const TensorTable& table, const std::string& name,
                std::int64_t& group_size) {
  group_size = (in_features + groups - 1) / groups;
  if ((in_features + group_size - 1) / group_size != groups) {
    broken(table, name,
           "has " + std::to_string(groups) + " groups, into which " + std::to_string(in_features) +
               " columns do not fall.");
  }
  return at::floor_divide(at::arange(in_features, at::kInt), group_size).to(at::kInt);
}

at::Tensor checked_scale(const TensorTable& table, const std::string& name) {
  const at::Tensor scale = read(table.at(name));
  const at::Tensor bad = at::isfinite(scale.to(at::kFloat)).logical_not();
  if (bad.any().item<bool>())
    broken(table, name, "has " + std::to_string(bad.sum().item<std::int64_t>()) + " scales that are NaN or infinite.");
  return scale;
}

}  // namespace

const char* codes_name(CodeLayout layout) {
  switch (layout) {
    case CodeLayout::Gptq:
      return "qweight";
    case CodeLayout::PackQuantized:
      return "weight_packed";
    case CodeLayout::IntQuantized:
      break;
  }
  return "weight";
}

std::vector<CodedPart> coded_parts(const CodeFormat& format, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t words_in = words_of(in_features, format.bits), words_out = words_of(out_features, format.bits);
  switch (format.layout) {
    case CodeLayout::Gptq:
      return {{"qweight", StoredType::I32, {words_in, out_features}},
              {"qzeros", StoredType::I32, {format.groups, words_out}},
              {"scales", format.scale_type, {format.groups, out_features}},
              {"g_idx", StoredType::I32, {in_features}}};
    case CodeLayout::PackQuantized: {
      std::vector<CodedPart> parts = {{"weight_packed", StoredType::I32, {out_features, words_in}},
                                      {"weight_scale", format.scale_type, {out_features, format.groups}},
                                      {"weight_shape", StoredType::I64, {2}}};
      if (format.zero_points) parts.push_back({"weight_zero_point", StoredType::I32, {words_out, format.groups}});
      if (format.group_index) parts.push_back({"weight_g_idx", StoredType::I32, {in_features}});
      return parts;
    }
    case CodeLayout::IntQuantized:
      break;
  }
  return {{"weight", StoredType::I8, {out_features, in_features}},
          {"weight_scale", format.scale_type, {out_features, 1}}};
}

std::string layout_refusal(CodeLayout layout, const LinearCodes& codes) {
  const int bits = codes.bits;
  const auto fills_words = [bits](std::int64_t count) { return count * bits % kWordBits == 0; };
  if (codes.inputs == CodedInputs::Other) return "its inputs are quantized in a way that the layout does not describe";
  if (layout == CodeLayout::IntQuantized) {
    if (codes.inputs != CodedInputs::Int8Absmax) return "its inputs are not quantized";
    if (bits != 8) return "its codes have " + std::to_string(bits) + " bits, the layout has 8";
    if (codes.groups() != 1) return "its rows have groups, the layout has one scale a row";
    if (!codes.symmetric()) return "its weights have zero points, the layout is symmetric";
    return {};
  }
  if (codes.inputs != CodedInputs::AsTheyAre) return "its inputs are quantized, the layout is for weights alone";
  const bool gptq = layout == CodeLayout::Gptq;
  if (gptq ? bits != 2 && bits != 3 && bits != 4 && bits != 8 : bits != 4 && bits != 8) {
    return "its codes have " + std::to_string(bits) + " bits, the layout has " + (gptq ? "2, 3, 4 or 8" : "4 or 8");
  }
  if (!gptq && codes.groups() > 1 && codes.in_features() % codes.group_size != 0)
    return "its last group is shorter than the others, the layout has equal ones";
  if (gptq && (!fills_words(codes.in_features()) || !fills_words(codes.out_features()))) {
    return "its " + std::to_string(codes.out_features()) + " x " + std::to_string(codes.in_features()) + " codes of " +
           std::to_string(bits) + " bits do not fill whole 32-bit words";
  }
  return {};
}

CodeFormat code_format(CodeLayout layout, const LinearCodes& codes, bool zero_minus_one) {
  CodeFormat format;
  format.layout = layout;
  format.bits = codes.bits;
  format.groups = codes.groups();
  format.scale_type = codes.scale.scalar_type() == at::kHalf       ? StoredType::F16
                      : codes.scale.scalar_type() == at::kBFloat16 ? StoredType::BF16
                                                                   : StoredType::F32;
  if (layout == CodeLayout::Gptq) format.scale_type = StoredType::F16;
  format.zero_points = !codes.symmetric();
  format.group_index = !codes.groups_are_runs();
  format.zero_minus_one = zero_minus_one;
  return format;
}

at::Tensor encode_part(const CodeFormat& format, const std::string& part, const LinearCodes& codes) {
  const auto packed_along_out = [&](std::int64_t shift) {
    return pack_rows(shifted(codes.zero_point, shift, format.bits).t(), format.bits);
  };
  if (part == "qweight") return pack_rows(codes.codes, format.bits).t().contiguous();
  if (part == "qzeros") return packed_along_out(format.zero_minus_one ? -1 : 0);
  if (part == "scales") return codes.scale.to(torch_type(format.scale_type)).t().contiguous();
  if (part == "g_idx" || part == "weight_g_idx") return codes.group_index.contiguous();
  if (part == "weight_packed") return pack_rows(codes.codes, format.bits);
  if (part == "weight_scale") return codes.scale.to(torch_type(format.scale_type)).contiguous();
  if (part == "weight_shape") return at::tensor({codes.out_features(), codes.in_features()}, at::kLong);
  if (part == "weight_zero_point") return packed_along_out(0).t().contiguous();
  return (codes.codes.to(at::kShort) - std::int64_t{128}).to(at::kChar).contiguous();
}

std::optional<CodeFormat> find_format(CodeLayout layout, bool zero_minus_one, const TensorTable& table,
                                      const std::string& stem, std::int64_t in_features) {
  const std::string name = stem + "." + codes_name(layout);
  const StoredTensor* const codes = table.find(name);
  if (!codes || (layout == CodeLayout::IntQuantized && codes->type != StoredType::I8)) return std::nullopt;
  const std::string scale_name = stem + (layout == CodeLayout::Gptq ? ".scales" : ".weight_scale");
  const StoredTensor& scale = table.at(scale_name);
  if (scale.shape.size() != 2 || !is_scale_type(scale.type))
    broken(table, scale_name, "is " + names_of(scale) + "; expected a matrix of 16 or 32-bit floats.");
  if (codes->shape.size() != 2) broken(table, name, "is " + names_of(*codes) + "; expected a matrix of codes.");

  CodeFormat format;
  format.layout = layout;
  format.scale_type = scale.type;
  format.zero_minus_one = zero_minus_one;
  format.groups = scale.shape[layout == CodeLayout::Gptq ? 0 : 1];
  if (format.groups < 1 || format.groups > in_features)
    broken(table, scale_name,
           "has " + std::to_string(format.groups) + " groups for " + std::to_string(in_features) + " columns.");
  format.zero_points = table.find(stem + ".weight_zero_point") != nullptr;
  format.group_index = table.find(stem + ".weight_g_idx") != nullptr;
  if (layout == CodeLayout::IntQuantized) {
    format.bits = 8;
    return format;
  }
  const std::int64_t words = codes->shape[layout == CodeLayout::Gptq ? 0 : 1];
  for (const int bits : {2, 3, 4, 8}) {
    const bool fits = layout == CodeLayout::Gptq ? in_features * bits == words * kWordBits
                                                 : bits >= 4 && words_of(in_features, bits) == words;
    if (!fits) continue;
    format.bits = bits;
    return format;
  }
  broken(table, name,
         "is " + names_of(*codes) + ", which holds " + std::to_string(in_features) +
             " codes at no width that is known here (" + (layout == CodeLayout::Gptq ? "2, 3, 4 or 8" : "4 or 8") +
             " bits).");
}

void check_parts(const CodeFormat& format, const TensorTable& table, const std::string& stem, std::int64_t out_features,
                 std::int64_t in_features) {
  for (const CodedPart& part : coded_parts(format, out_features, in_features)) {
    const std::string name = stem + "." + part.name;
    const StoredTensor& stored = table.at(name);
    const bool counts = std::string(part.name) == "weight_shape" && stored.type == StoredType::I32;
    if ((stored.type == part.type || counts) && stored.shape == part.shape) continue;
    broken(table, name,
           "is " + names_of(stored) + "; the model's description asks for " + stored_type_name(part.type) + " " +
               shape_text(part.shape) + ".");
  }
}

LinearCodes decode_parts(const CodeFormat& format, const TensorTable& table, const std::string& stem,
                         std::int64_t out_features, std::int64_t in_features) {
  check_parts(format, table, stem, out_features, in_features);
  const auto part = [&](const char* name) { return read(table.at(stem + "." + name)); };
  const bool gptq = format.layout == CodeLayout::Gptq;
  const std::string scale_name = stem + (gptq ? ".scales" : ".weight_scale");
  LinearCodes codes;
  codes.bits = format.bits;
  codes.scale = checked_scale(table, scale_name);
  if (gptq) codes.scale = codes.scale.t().contiguous();

  const std::string index_name = stem + (gptq ? ".g_idx" : ".weight_g_idx");
  if (gptq || (format.layout == CodeLayout::PackQuantized && format.group_index)) {
    codes.group_index = read(table.at(index_name));
    codes.group_size = group_size_of(codes.group_index, format.groups, table, index_name);
  } else {
    codes.group_index = runs(in_features, format.groups, table, scale_name, codes.group_size);
  }

  const std::int64_t middle = std::int64_t{1} << (format.bits - 1);
  if (gptq) {
    codes.codes = unpack_rows(part("qweight").t(), in_features, format.bits);
    codes.zero_point = unpack_rows(part("qzeros"), out_features, format.bits).t();
    codes.zero_point = shifted(codes.zero_point, format.zero_minus_one ? 1 : 0, format.bits).contiguous();
  } else if (format.layout == CodeLayout::PackQuantized) {
    const at::Tensor shape = part("weight_shape").to(at::kLong);
    if (shape[0].item<std::int64_t>() != out_features || shape[1].item<std::int64_t>() != in_features)
      broken(table, stem + ".weight_shape", "is not " + shape_text({out_features, in_features}) + ".");
    codes.codes = unpack_rows(part("weight_packed"), in_features, format.bits);
    codes.zero_point = format.zero_points
                           ? unpack_rows(part("weight_zero_point").t(), out_features, format.bits).t().contiguous()
                           : at::full({out_features, format.groups}, middle, at::kByte);
  } else {
    codes.codes = (part("weight").to(at::kShort) + middle).to(at::kByte);
    codes.zero_point = at::full({out_features, 1}, middle, at::kByte);
    codes.inputs = CodedInputs::Int8Absmax;
  }
  return codes;
}

}  // namespace qs
