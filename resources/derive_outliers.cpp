// Makes the model with artificial outlier channels from the bundled sample: the same function in other coordinates.
//   derive_outliers SAMPLE/model.safetensors OUTLIERS.json OUTPUT/model.safetensors [EXPECTED/model.safetensors]
// With EXPECTED it also compares and exits with 1 when a value differs by more than one unit in the last place.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/formats/half.h"
#include "backend/formats/mapped_file.h"
#include "backend/formats/safetensors.h"

namespace {

using Json = nlohmann::json;

struct Matrix {
  std::vector<float> values;
  std::int64_t columns = 1;
};
using Weights = std::map<std::string, Matrix>;

void scale_column(Matrix& matrix, std::int64_t column, float factor) {
  const auto rows = static_cast<std::int64_t>(matrix.values.size()) / matrix.columns;
  for (std::int64_t row = 0; row < rows; ++row) {
    float& value = matrix.values.at(static_cast<std::size_t>(row * matrix.columns + column));
    value = value / factor;
  }
}

template <typename Change>
void change_row(Matrix& matrix, std::int64_t row, Change change) {
  for (std::int64_t column = 0; column < matrix.columns; ++column) {
    float& value = matrix.values.at(static_cast<std::size_t>(row * matrix.columns + column));
    value = change(value);
  }
}

/// gamma_j * s and W_oj / s: the output of the linears stays what it was.
void fold_into_norm(Weights& weights, const std::string& layer, const std::string& norm, const Json& factors,
                    const std::vector<std::string>& linears) {
  for (const auto& [channel_text, value] : factors.items()) {
    const std::int64_t channel = std::stoll(channel_text);
    const auto factor = value.get<float>();
    weights.at(layer + norm + ".weight").values.at(static_cast<std::size_t>(channel)) *= factor;
    for (const std::string& linear : linears) scale_column(weights.at(layer + linear + ".weight"), channel, factor);
  }
}

/// Rows of a rotary pair of a key head grow, those of its query heads shrink: their products stay what they were.
void grow_key_pair(Weights& weights, const std::string& layer, const Json& pair, std::int64_t head_dim,
                   std::int64_t group) {
  const auto kv_head = pair.at("kv_head").get<std::int64_t>();
  const auto factor = pair.at("factor").get<float>();
  for (const Json& row : pair.at("pair")) {
    const auto i = row.get<std::int64_t>();
    change_row(weights.at(layer + "self_attn.k_proj.weight"), kv_head * head_dim + i,
               [factor](float x) { return x * factor; });
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      change_row(weights.at(layer + "self_attn.q_proj.weight"), head * head_dim + i,
                 [factor](float x) { return x / factor; });
  }
}

std::vector<std::uint16_t> to_f16(const Matrix& matrix) {
  std::vector<std::uint16_t> bits;
  bits.reserve(matrix.values.size());
  for (const float value : matrix.values) bits.push_back(qs::f32_to_f16(value));
  return bits;
}

int compare(const std::string& made, const std::string& expected) {
  const qs::TensorTable a = qs::read_safetensors(made), b = qs::read_safetensors(expected);
  std::int64_t different = 0, total = 0, worst = 0;
  for (const qs::StoredTensor& tensor : b.tensors) {
    const qs::StoredTensor& other = a.at(tensor.name);
    if (other.bytes.size() != tensor.bytes.size()) throw std::runtime_error("the shapes differ in " + tensor.name);
    for (std::size_t at = 0; at + 1 < tensor.bytes.size(); at += 2) {
      std::int16_t x = 0, y = 0;
      std::memcpy(&x, tensor.bytes.data() + at, 2);
      std::memcpy(&y, other.bytes.data() + at, 2);
      ++total;
      if (x == y) continue;
      ++different;
      worst = std::max<std::int64_t>(worst, std::abs(static_cast<std::int64_t>(x) - y));
    }
  }
  std::printf("%lld of %lld values differ, at most by %lld units in the last place\n",
              static_cast<long long>(different), static_cast<long long>(total), static_cast<long long>(worst));
  return worst <= 1 ? 0 : 1;
}

int run(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr,
                 "usage: derive_outliers SAMPLE.safetensors OUTLIERS.json OUTPUT.safetensors [EXPECTED.safetensors]\n");
    return 2;
  }
  const qs::TensorTable sample = qs::read_safetensors(argv[1]);
  const Json outliers = Json::parse(qs::read_text_file(argv[2]));
  Weights weights;
  for (const qs::StoredTensor& tensor : sample.tensors)
    weights[tensor.name] = {qs::to_f32(tensor), tensor.shape.back()};

  constexpr std::int64_t kHeadDim = 64;
  for (const Json& entry : outliers.at("layers")) {
    const std::string layer = "model.layers." + std::to_string(entry.at("layer").get<std::int64_t>()) + ".";
    const std::int64_t group =
        sample.at(layer + "self_attn.q_proj.weight").shape[0] / sample.at(layer + "self_attn.k_proj.weight").shape[0];
    fold_into_norm(weights, layer, "input_layernorm", entry.at("input_layernorm"),
                   {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
    fold_into_norm(weights, layer, "post_attention_layernorm", entry.at("post_attention_layernorm"),
                   {"mlp.gate_proj", "mlp.up_proj"});
    for (const Json& pair : entry.at("k_pairs")) grow_key_pair(weights, layer, pair, kHeadDim, group);
  }

  std::vector<std::vector<std::uint16_t>> kept;
  std::vector<qs::StoredTensor> tensors;
  for (const qs::StoredTensor& tensor : sample.tensors) {
    kept.push_back(to_f16(weights.at(tensor.name)));
    tensors.push_back({tensor.name, qs::StoredType::F16, tensor.shape, std::as_bytes(std::span(kept.back()))});
  }
  qs::write_safetensors(argv[3], tensors, sample.metadata);
  return argc == 5 ? compare(argv[3], argv[4]) : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "derive_outliers: %s\n", e.what());
    return 1;
  }
}
