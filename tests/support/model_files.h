#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "backend/formats/safetensors.h"

namespace qs::test {

/// A tiny random Llama that tests write to disk and damage: two layers, hidden 16, 4 heads of 4, 2 KV heads,
/// vocabulary 32.
struct TinyModel {
  nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                           {"hidden_size", 16},
                           {"intermediate_size", 24},
                           {"num_hidden_layers", 2},
                           {"num_attention_heads", 4},
                           {"num_key_value_heads", 2},
                           {"vocab_size", 32},
                           {"max_position_embeddings", 64},
                           {"rms_norm_eps", 1e-5},
                           {"rope_theta", 10000.0},
                           {"rope_scaling", nullptr},
                           {"attention_bias", false},
                           {"tie_word_embeddings", false},
                           {"hidden_act", "silu"},
                           {"bos_token_id", 1},
                           {"eos_token_id", 2}};
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::vector<Tensor> tensors;

  explicit TinyModel(std::uint64_t seed = 7) {
    std::mt19937_64 generator(seed);
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
      Tensor tensor{name, shape, {}};
      std::int64_t count = 1;
      for (const std::int64_t extent : shape) count *= extent;
      for (std::int64_t i = 0; i < count; ++i)
        tensor.values.push_back(static_cast<float>(static_cast<double>(generator() >> 11) * 0x1p-53 - 0.5));
      tensors.push_back(std::move(tensor));
    };
    add("model.embed_tokens.weight", {32, 16});
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {16});
      add(prefix + "post_attention_layernorm.weight", {16});
      add(prefix + "self_attn.q_proj.weight", {16, 16});
      add(prefix + "self_attn.k_proj.weight", {8, 16});
      add(prefix + "self_attn.v_proj.weight", {8, 16});
      add(prefix + "self_attn.o_proj.weight", {16, 16});
      add(prefix + "mlp.gate_proj.weight", {24, 16});
      add(prefix + "mlp.up_proj.weight", {24, 16});
      add(prefix + "mlp.down_proj.weight", {16, 24});
    }
    add("model.norm.weight", {16});
    add("lm_head.weight", {32, 16});
  }

  Tensor& at(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }

  std::vector<StoredTensor> stored(std::size_t begin, std::size_t end) const {
    std::vector<StoredTensor> all;
    for (std::size_t i = begin; i < end; ++i)
      all.push_back({tensors[i].name, StoredType::F32, tensors[i].shape, std::as_bytes(std::span(tensors[i].values))});
    return all;
  }
  void write_config(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << config.dump();
  }
  void write(const std::filesystem::path& folder) const {
    write_config(folder);
    write_safetensors(folder / "model.safetensors", stored(0, tensors.size()));
  }
  /// Two shards and an index.
  void write_sharded(const std::filesystem::path& folder) const {
    write_config(folder);
    const std::size_t half = tensors.size() / 2;
    nlohmann::json map = nlohmann::json::object();
    for (std::size_t i = 0; i < tensors.size(); ++i)
      map[tensors[i].name] = i < half ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
    write_safetensors(folder / "model-00001-of-00002.safetensors", stored(0, half));
    write_safetensors(folder / "model-00002-of-00002.safetensors", stored(half, tensors.size()));
    std::ofstream(folder / "model.safetensors.index.json") << nlohmann::json{{"weight_map", map}}.dump();
  }
};

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void write_all(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

}  // namespace qs::test
