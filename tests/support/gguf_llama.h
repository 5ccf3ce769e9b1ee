#pragma once

#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backend/formats/half.h"
#include "backend/formats/tensor_table.h"
#include "tests/support/gguf_writer.h"

namespace qs::test {

/// The number of a type in GGUF files.
inline std::uint32_t gguf_type(StoredType type) {
  switch (type) {
    case StoredType::F32:
      return 0;
    case StoredType::F16:
      return 1;
    case StoredType::BF16:
      return 30;
    case StoredType::Q4_0:
      return 2;
    case StoredType::Q4_1:
      return 3;
    case StoredType::Q5_0:
      return 6;
    case StoredType::Q5_1:
      return 7;
    case StoredType::Q8_0:
      return 8;
    default:
      return 10 + static_cast<std::uint32_t>(type) - static_cast<std::uint32_t>(StoredType::Q2_K);
  }
}

inline const std::vector<StoredType>& gguf_types() {
  static const std::vector<StoredType> all = {StoredType::F32,  StoredType::F16,  StoredType::BF16, StoredType::Q4_0,
                                              StoredType::Q4_1, StoredType::Q5_0, StoredType::Q5_1, StoredType::Q8_0,
                                              StoredType::Q2_K, StoredType::Q3_K, StoredType::Q4_K, StoredType::Q5_K,
                                              StoredType::Q6_K};
  return all;
}

/// Random values of a type as they lie in a file, none of them large.
inline std::string random_values(StoredType type, std::int64_t count, std::mt19937_64& random) {
  std::string bytes;
  const auto uniform = [&random] { return static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-53 - 0.5); };
  if (!is_block_type(type)) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = 0.2f * uniform();
      if (type == StoredType::F32) GgufWriter::put(bytes, value);
      if (type == StoredType::F16) GgufWriter::put(bytes, f32_to_f16(value));
      if (type == StoredType::BF16) GgufWriter::put(bytes, f32_to_bf16(value));
    }
    return bytes;
  }
  std::vector<std::size_t> scales;  // places of the f16 factors in a block
  switch (type) {
    case StoredType::Q2_K:
      scales = {80, 82};
      break;
    case StoredType::Q3_K:
      scales = {108};
      break;
    case StoredType::Q6_K:
      scales = {208};
      break;
    case StoredType::Q4_0:
    case StoredType::Q5_0:
    case StoredType::Q8_0:
      scales = {0};
      break;
    default:
      scales = {0, 2};
  }
  for (std::int64_t block = 0; block < count / stored_type_elements(type); ++block) {
    std::string one;
    for (std::int64_t i = 0; i < stored_type_bytes(type); ++i) one += static_cast<char>(random() & 0xff);
    for (const std::size_t at : scales) {
      const std::uint16_t bits = f32_to_f16(1e-4f * uniform());
      std::memcpy(one.data() + at, &bits, sizeof bits);
    }
    bytes += one;
  }
  return bytes;
}

/// A one-layer Llama of hidden 256, 4 heads, 2 KV heads, vocabulary 32, whose matrices have one type.
inline GgufWriter tiny_gguf(StoredType type) {
  std::mt19937_64 random(static_cast<std::uint64_t>(type) + 1);
  GgufWriter file;
  file.text("general.architecture", "llama");
  file.text("general.name", "tiny");
  file.u32("llama.block_count", 1);
  file.u32("llama.context_length", 64);
  file.u32("llama.embedding_length", 256);
  file.u32("llama.feed_forward_length", 512);
  file.u32("llama.attention.head_count", 4);
  file.u32("llama.attention.head_count_kv", 2);
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.f32("llama.rope.freq_base", 10000.0f);
  const auto add = [&](const std::string& name, StoredType kind, const std::vector<std::int64_t>& shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    file.tensor(name, gguf_type(kind), shape, random_values(kind, count, random));
  };
  add("token_embd.weight", type, {32, 256});
  add("blk.0.attn_norm.weight", StoredType::F32, {256});
  add("blk.0.attn_q.weight", type, {256, 256});
  add("blk.0.attn_k.weight", type, {128, 256});
  add("blk.0.attn_v.weight", type, {128, 256});
  add("blk.0.attn_output.weight", type, {256, 256});
  add("blk.0.ffn_norm.weight", StoredType::F32, {256});
  add("blk.0.ffn_gate.weight", type, {512, 256});
  add("blk.0.ffn_up.weight", type, {512, 256});
  add("blk.0.ffn_down.weight", type, {256, 512});
  add("output_norm.weight", StoredType::F32, {256});
  return file;
}

/// The Llama of a Hugging Face folder as GGUF in f32 or f16, rows of q and k as llama.cpp has them.
inline GgufWriter llama_gguf(const TensorTable& weights, StoredType type, std::int64_t layers, std::int64_t heads,
                             std::int64_t kv_heads) {
  GgufWriter file;
  file.text("general.architecture", "llama");
  file.u32("llama.block_count", static_cast<std::uint32_t>(layers));
  file.u32("llama.context_length", 512);
  file.u32("llama.embedding_length", static_cast<std::uint32_t>(weights.at("model.norm.weight").size()));
  file.u32("llama.feed_forward_length",
           static_cast<std::uint32_t>(weights.at("model.layers.0.mlp.up_proj.weight").rows()));
  file.u32("llama.attention.head_count", static_cast<std::uint32_t>(heads));
  file.u32("llama.attention.head_count_kv", static_cast<std::uint32_t>(kv_heads));
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const auto add = [&](const std::string& from, const std::string& to, std::int64_t pairs = 0) {
    const StoredTensor& tensor = weights.at(from);
    const std::vector<float> values = to_f32(tensor);
    const std::int64_t columns = tensor.columns(), dim = pairs > 0 ? tensor.rows() / pairs : 0;
    const StoredType kind = tensor.shape.size() == 1 ? StoredType::F32 : type;
    std::string bytes;
    for (std::int64_t row = 0; row < tensor.rows(); ++row) {
      // Row 2i of a head holds channel i, row 2i + 1 channel i + dim / 2.
      const std::int64_t in_head = dim > 0 ? row % dim : 0;
      const std::int64_t source = dim > 0 ? row - in_head + in_head / 2 + in_head % 2 * (dim / 2) : row;
      for (std::int64_t i = 0; i < columns; ++i) {
        const float value = values[static_cast<std::size_t>(source * columns + i)];
        if (kind == StoredType::F32) GgufWriter::put(bytes, value);
        if (kind == StoredType::F16) GgufWriter::put(bytes, f32_to_f16(value));
      }
    }
    file.tensor(to, gguf_type(kind), tensor.shape, bytes);
  };
  add("model.embed_tokens.weight", "token_embd.weight");
  add("model.norm.weight", "output_norm.weight");
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::string from = "model.layers." + std::to_string(layer) + ".", to = "blk." + std::to_string(layer) + ".";
    add(from + "input_layernorm.weight", to + "attn_norm.weight");
    add(from + "post_attention_layernorm.weight", to + "ffn_norm.weight");
    add(from + "self_attn.q_proj.weight", to + "attn_q.weight", heads);
    add(from + "self_attn.k_proj.weight", to + "attn_k.weight", kv_heads);
    add(from + "self_attn.v_proj.weight", to + "attn_v.weight");
    add(from + "self_attn.o_proj.weight", to + "attn_output.weight");
    add(from + "mlp.gate_proj.weight", to + "ffn_gate.weight");
    add(from + "mlp.up_proj.weight", to + "ffn_up.weight");
    add(from + "mlp.down_proj.weight", to + "ffn_down.weight");
  }
  return file;
}

}  // namespace qs::test
