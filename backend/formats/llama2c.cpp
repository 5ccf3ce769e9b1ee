#include "backend/formats/llama2c.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "backend/formats/sha256.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::size_t kLegacyHeaderBytes = 7 * sizeof(std::int32_t);
constexpr std::size_t kHeaderBytes = 256;
constexpr std::int32_t kMagic = 0x616b3432;  // "ak42"
constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;

/// Consecutive tensors of one kind; `layered` ones repeat for each layer.
struct Section {
  const char* name;  ///< empty: skipped
  std::vector<std::int64_t> shape;
  bool layered = false;
  bool matrix = true;  ///< version 2 stores it as codes
};

std::vector<Section> sections(const Llama2cHeader& h) {
  const std::int64_t kv_width = h.kv_heads * h.head_dim();
  const Section embedding = {"model.embed_tokens.weight", {h.vocab_size, h.hidden_size}};
  const Section input_norm = {"input_layernorm.weight", {h.hidden_size}, true, false};
  const Section post_norm = {"post_attention_layernorm.weight", {h.hidden_size}, true, false};
  const Section final_norm = {"model.norm.weight", {h.hidden_size}, false, false};
  const std::array attention = {Section{"self_attn.q_proj.weight", {h.hidden_size, h.hidden_size}, true},
                                Section{"self_attn.k_proj.weight", {kv_width, h.hidden_size}, true},
                                Section{"self_attn.v_proj.weight", {kv_width, h.hidden_size}, true},
                                Section{"self_attn.o_proj.weight", {h.hidden_size, h.hidden_size}, true}};
  const std::array mlp = {Section{"mlp.gate_proj.weight", {h.intermediate_size, h.hidden_size}, true},
                          Section{"mlp.down_proj.weight", {h.hidden_size, h.intermediate_size}, true},
                          Section{"mlp.up_proj.weight", {h.intermediate_size, h.hidden_size}, true}};
  std::vector<Section> all;
  const auto add = [&all](const auto& group) { all.insert(all.end(), group.begin(), group.end()); };
  if (h.version == 0) {
    all = {embedding, input_norm};
    add(attention);
    all.push_back(post_norm);
    add(mlp);
    all.push_back(final_norm);
    all.push_back({"", {h.max_context, h.head_dim()}});  // cosines and sines, head_dim / 2 each
  } else {
    all = {input_norm, post_norm, final_norm, embedding};
    add(attention);
    add(mlp);
  }
  if (!h.shared_classifier) all.push_back({"lm_head.weight", {h.vocab_size, h.hidden_size}});
  return all;
}

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::BadFormat, "'" + path + "' is not a llama2.c file: " + why);
}

[[noreturn]] void too_large(const std::string& path) {
  throw Error(ErrorCode::BadFormat, "'" + path + "': the sizes in its header are too large for any file.");
}

/// Bytes of one tensor of a section: its values, and its scales behind them.
struct SectionBytes {
  std::uint64_t values = 0, scales = 0;
};

SectionBytes tensor_bytes(const Section& section, const Llama2cHeader& h, const std::string& path) {
  std::uint64_t elements = 1;
  bool overflow = false;
  for (const std::int64_t extent : section.shape)
    overflow |= __builtin_mul_overflow(elements, static_cast<std::uint64_t>(extent), &elements);
  if (overflow || elements > UINT64_MAX / 8) too_large(path);
  if (h.version < 2 || !section.matrix) return {elements * sizeof(float), 0};
  const auto group = static_cast<std::uint64_t>(h.group_size);
  if (elements % group != 0)
    refuse(path, std::string(section.name) + " of " + std::to_string(elements) +
                     " values does not consist of groups of " + std::to_string(group) + ".");
  return {elements, elements / group * sizeof(float)};
}

std::int32_t int_at(std::span<const std::byte> bytes, std::size_t at) {
  std::int32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::size_t header_bytes(const Llama2cHeader& header) {
  return header.version == 0 ? kLegacyHeaderBytes : kHeaderBytes;
}

void need_header(const std::string& path, std::size_t need, std::size_t found) {
  if (found < need)
    throw Error(ErrorCode::BadFormat, "'" + path + "' is truncated: a llama2.c file begins with a header of " +
                                          std::to_string(need) + " bytes, this one has " + std::to_string(found) + ".");
}

Llama2cHeader parse_header(std::span<const std::byte> bytes, const std::string& path) {
  need_header(path, kLegacyHeaderBytes, bytes.size());
  Llama2cHeader h;
  std::size_t at = 0;
  if (int_at(bytes, 0) == kMagic) {
    h.version = int_at(bytes, 4);
    if (h.version != 1 && h.version != 2)
      throw Error(ErrorCode::Unsupported,
                  "'" + path + "' is a llama2.c file of version " + std::to_string(h.version) +
                      "; versions 0, 1 and 2 are read. Export it again, or as a Hugging Face folder.");
    need_header(path, kHeaderBytes, bytes.size());
    at = 8;
  }
  std::int64_t* const fields[] = {&h.hidden_size, &h.intermediate_size, &h.layers,     &h.heads,
                                  &h.kv_heads,    &h.vocab_size,        &h.max_context};
  for (std::int64_t* field : fields) {
    *field = int_at(bytes, at);
    at += sizeof(std::int32_t);
  }
  if (h.version == 0) {
    h.shared_classifier = h.vocab_size > 0;
    h.vocab_size = std::abs(h.vocab_size);
    return h;
  }
  const int shared = std::to_integer<int>(bytes[at]);
  if (shared > 1)
    refuse(path, "the byte at " + std::to_string(at) + " that says whether the classifier is shared is " +
                     std::to_string(shared) + ", expected 0 or 1.");
  h.shared_classifier = shared == 1;
  if (h.version == 2) h.group_size = int_at(bytes, at + 1);
  return h;
}

Llama2cHeader check_header(const MappedFile& file) {
  const std::string path = file.path().string();
  const auto bytes = file.bytes();
  const Llama2cHeader h = parse_header(bytes, path);
  const std::array<std::pair<const char*, std::int64_t>, 8> named = {
      {{"dim", h.hidden_size},
       {"hidden_dim", h.intermediate_size},
       {"n_layers", h.layers},
       {"n_heads", h.heads},
       {"n_kv_heads", h.kv_heads},
       {"vocab_size", h.vocab_size},
       {"seq_len", h.max_context},
       {"group_size", h.version == 2 ? h.group_size : 1}}};
  for (const auto& [name, value] : named)
    if (value < 1 || value > kMaxExtent)
      refuse(path, std::string(name) + " is " + std::to_string(value) + ", expected 1 to " +
                       std::to_string(kMaxExtent) + ".");
  if (h.hidden_size % h.heads != 0 || h.heads % h.kv_heads != 0 || h.head_dim() % 2 != 0)
    refuse(path, "n_heads " + std::to_string(h.heads) + " must divide dim " + std::to_string(h.hidden_size) +
                     " into even parts, and n_kv_heads " + std::to_string(h.kv_heads) + " must divide n_heads.");
  std::uint64_t need = header_bytes(h);
  for (const Section& section : sections(h)) {
    const SectionBytes each = tensor_bytes(section, h, path);
    std::uint64_t all = each.values + each.scales;
    if (__builtin_mul_overflow(all, static_cast<std::uint64_t>(section.layered ? h.layers : 1), &all) ||
        __builtin_add_overflow(need, all, &need))
      too_large(path);
  }
  if (need != bytes.size())
    throw Error(ErrorCode::BadFormat, "'" + path + "' is " +
                                          (bytes.size() < need ? "truncated" : "not a llama2.c file") +
                                          ": its header describes " + std::to_string(need) + " bytes, the file has " +
                                          std::to_string(bytes.size()) + ".");
  return h;
}

}  // namespace

Llama2cHeader read_llama2c_header(const std::filesystem::path& path) { return check_header(*MappedFile::open(path)); }

Llama2cFile read_llama2c(const std::filesystem::path& path) { return read_llama2c(MappedFile::open(path)); }

Llama2cFile read_llama2c(std::shared_ptr<const MappedFile> mapped) {
  Llama2cFile file;
  file.header = check_header(*mapped);
  const Llama2cHeader& h = file.header;
  TensorTable& table = file.tensors;
  table.path = mapped->path().string();
  table.owners = {mapped};
  table.header_sha256 = sha256_hex(mapped->bytes().first(header_bytes(h)));

  std::size_t offset = header_bytes(h);
  for (const Section& section : sections(h)) {
    const std::string name = section.name;
    const SectionBytes each = tensor_bytes(section, h, table.path);
    const std::int64_t copies = section.layered ? h.layers : 1;
    for (std::int64_t layer = 0; layer < copies; ++layer, offset += each.values + each.scales) {
      if (name.empty()) continue;
      StoredTensor tensor;
      tensor.name = section.layered ? "model.layers." + std::to_string(layer) + "." + name : name;
      tensor.shape = section.shape;
      tensor.bytes = mapped->bytes().subspan(offset, each.values);
      if (each.scales > 0) {
        tensor.type = StoredType::Q8Groups;
        tensor.scales = mapped->bytes().subspan(offset + each.values, each.scales);
        tensor.group_size = h.group_size;
      }
      table.tensors.push_back(std::move(tensor));
    }
  }
  std::sort(table.tensors.begin(), table.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  return file;
}

}  // namespace qs
