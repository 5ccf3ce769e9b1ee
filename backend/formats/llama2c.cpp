#include "backend/formats/llama2c.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "backend/formats/mapped_file.h"
#include "backend/formats/sha256.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::size_t kHeaderBytes = 7 * sizeof(std::int32_t);
constexpr std::int32_t kVersionedMagic = 0x616b3432;
constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;

/// Elements of one tensor per file, in file order; `layered` ones repeat for each layer.
struct Section {
  const char* name;
  std::vector<std::int64_t> shape;
  bool layered;
};

std::vector<Section> sections(const Llama2cHeader& h) {
  const std::int64_t kv_width = h.kv_heads * h.head_dim();
  std::vector<Section> all = {
      {"model.embed_tokens.weight", {h.vocab_size, h.hidden_size}, false},
      {"input_layernorm.weight", {h.hidden_size}, true},
      {"self_attn.q_proj.weight", {h.hidden_size, h.hidden_size}, true},
      {"self_attn.k_proj.weight", {kv_width, h.hidden_size}, true},
      {"self_attn.v_proj.weight", {kv_width, h.hidden_size}, true},
      {"self_attn.o_proj.weight", {h.hidden_size, h.hidden_size}, true},
      {"post_attention_layernorm.weight", {h.hidden_size}, true},
      {"mlp.gate_proj.weight", {h.intermediate_size, h.hidden_size}, true},
      {"mlp.down_proj.weight", {h.hidden_size, h.intermediate_size}, true},
      {"mlp.up_proj.weight", {h.intermediate_size, h.hidden_size}, true},
      {"model.norm.weight", {h.hidden_size}, false},
      {"", {h.max_context, h.head_dim()}, false},  // cosines and sines, head_dim / 2 each
  };
  if (!h.shared_classifier) all.push_back({"lm_head.weight", {h.vocab_size, h.hidden_size}, false});
  return all;
}

std::uint64_t section_bytes(const Section& section, std::int64_t layers, const std::string& path) {
  std::uint64_t bytes = sizeof(float);
  bool overflow = false;
  for (const std::int64_t extent : section.shape)
    overflow |= __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes);
  if (section.layered) overflow |= __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(layers), &bytes);
  if (overflow)
    throw Error(ErrorCode::BadFormat, "'" + path + "': the sizes in its header are too large for any file.");
  return bytes;
}

Llama2cHeader check_header(const MappedFile& file) {
  const std::string path = file.path().string();
  const auto bytes = file.bytes();
  if (bytes.size() < kHeaderBytes)
    throw Error(ErrorCode::BadFormat, "'" + path + "' is truncated: a llama2.c file begins with a header of " +
                                          std::to_string(kHeaderBytes) + " bytes, this one has " +
                                          std::to_string(bytes.size()) + ".");
  std::array<std::int32_t, 7> raw = {};
  std::memcpy(raw.data(), bytes.data(), kHeaderBytes);
  if (raw[0] == kVersionedMagic)
    throw Error(ErrorCode::Unsupported,
                "'" + path + "' is a llama2.c file of version " + std::to_string(raw[1]) +
                    "; version 0 is read. Export it again with version 0, or as a Hugging Face folder.");
  Llama2cHeader h;
  h.hidden_size = raw[0];
  h.intermediate_size = raw[1];
  h.layers = raw[2];
  h.heads = raw[3];
  h.kv_heads = raw[4];
  h.vocab_size = raw[5] < 0 ? -static_cast<std::int64_t>(raw[5]) : raw[5];
  h.max_context = raw[6];
  h.shared_classifier = raw[5] > 0;
  const std::array<std::pair<const char*, std::int64_t>, 7> named = {{{"dim", h.hidden_size},
                                                                      {"hidden_dim", h.intermediate_size},
                                                                      {"n_layers", h.layers},
                                                                      {"n_heads", h.heads},
                                                                      {"n_kv_heads", h.kv_heads},
                                                                      {"vocab_size", h.vocab_size},
                                                                      {"seq_len", h.max_context}}};
  for (const auto& [name, value] : named)
    if (value < 1 || value > kMaxExtent)
      throw Error(ErrorCode::BadFormat, "'" + path + "' is not a llama2.c file: " + name + " is " +
                                            std::to_string(value) + ", expected 1 to " + std::to_string(kMaxExtent) +
                                            ".");
  if (h.hidden_size % h.heads != 0 || h.heads % h.kv_heads != 0 || h.head_dim() % 2 != 0)
    throw Error(ErrorCode::BadFormat, "'" + path + "' is not a llama2.c file: n_heads " + std::to_string(h.heads) +
                                          " must divide dim " + std::to_string(h.hidden_size) +
                                          " into even parts, and n_kv_heads " + std::to_string(h.kv_heads) +
                                          " must divide n_heads.");
  std::uint64_t need = kHeaderBytes;
  for (const Section& section : sections(h))
    if (__builtin_add_overflow(need, section_bytes(section, h.layers, path), &need))
      throw Error(ErrorCode::BadFormat, "'" + path + "': the sizes in its header are too large for any file.");
  if (need != bytes.size())
    throw Error(ErrorCode::BadFormat, "'" + path + "' is " +
                                          (bytes.size() < need ? "truncated" : "not a llama2.c file") +
                                          ": its header describes " + std::to_string(need) + " bytes, the file has " +
                                          std::to_string(bytes.size()) + ".");
  return h;
}

/// Row i of a head comes from interleaved row 2i, row i + head_dim / 2 from 2i + 1.
std::vector<float> half_split(std::span<const std::byte> bytes, std::int64_t rows, std::int64_t columns,
                              std::int64_t head_dim) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  const auto row_bytes = static_cast<std::size_t>(columns) * sizeof(float);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t i = row % head_dim;
    const std::int64_t half = head_dim / 2;
    const std::int64_t source = row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
    std::memcpy(values.data() + row * columns, bytes.data() + static_cast<std::size_t>(source) * row_bytes, row_bytes);
  }
  return values;
}

}  // namespace

Llama2cHeader read_llama2c_header(const std::filesystem::path& path) { return check_header(*MappedFile::open(path)); }

Llama2cFile read_llama2c(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  Llama2cFile file;
  file.header = check_header(*mapped);
  const Llama2cHeader& h = file.header;
  TensorTable& table = file.tensors;
  table.path = path.string();
  table.owners = {mapped};
  table.header_sha256 = sha256_hex(mapped->bytes().first(kHeaderBytes));

  std::size_t offset = kHeaderBytes;
  for (const Section& section : sections(h)) {
    const std::int64_t copies = section.layered ? h.layers : 1;
    const std::size_t each = section_bytes(section, h.layers, table.path) / static_cast<std::size_t>(copies);
    const std::string name = section.name;
    for (std::int64_t layer = 0; layer < copies; ++layer, offset += each) {
      if (name.empty()) continue;
      StoredTensor tensor;
      tensor.name = section.layered ? "model.layers." + std::to_string(layer) + "." + name : name;
      tensor.shape = section.shape;
      tensor.bytes = mapped->bytes().subspan(offset, each);
      if (name == "self_attn.q_proj.weight" || name == "self_attn.k_proj.weight") {
        auto rows = std::make_shared<const std::vector<float>>(
            half_split(tensor.bytes, section.shape[0], section.shape[1], h.head_dim()));
        tensor.bytes = std::as_bytes(std::span(*rows));
        table.owners.push_back(std::move(rows));
      }
      table.tensors.push_back(std::move(tensor));
    }
  }
  std::sort(table.tensors.begin(), table.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  return file;
}

}  // namespace qs
