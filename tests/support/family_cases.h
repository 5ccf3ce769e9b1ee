#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/formats/safetensors.h"
#include "backend/model/model.h"

namespace qs::test {

/// A tiny random checkpoint and what the transformers library computes from it: tests/data/families says how it was
/// made and what the tensors are.
struct FamilyCase {
  std::shared_ptr<const Model> model;
  std::map<std::string, at::Tensor> expected;

  const at::Tensor& at(const std::string& name) const { return expected.at(name); }
  bool has(const std::string& name) const { return expected.count(name) > 0; }
  std::vector<std::int64_t> ids(const std::string& name = "ids") const {
    const at::Tensor values = at(name).contiguous();
    return {values.data_ptr<std::int64_t>(), values.data_ptr<std::int64_t>() + values.numel()};
  }
};

inline std::filesystem::path family_folder(const std::string& name) {
  return std::filesystem::path(QS_TEST_DATA "/families") / name;
}

inline std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(QS_TEST_DATA "/families"))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline const FamilyCase& family_case(const std::string& name) {
  static std::map<std::string, FamilyCase> loaded;
  FamilyCase& found = loaded[name];
  if (found.model) return found;
  found.model = Model::load(family_folder(name), {}, {});
  for (const StoredTensor& stored : read_safetensors(family_folder(name) / "expected.safetensors").tensors) {
    at::Tensor values = at::empty(stored.shape, stored.type == StoredType::I64 ? at::kLong : at::kFloat);
    std::memcpy(values.data_ptr(), stored.bytes.data(), stored.bytes.size());
    found.expected.emplace(stored.name, std::move(values));
  }
  return found;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() ? (a.to(at::kFloat) - b).abs().max().item<double>() : 1e300;
}

}  // namespace qs::test
