#include "backend/model/module_tree.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>

#include "backend/model/model_source.h"

namespace qs {
namespace {

/// Values decoded at once; a step of the job.
constexpr std::int64_t kChunkValues = std::int64_t{1} << 22;

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

ModuleInfo& child_of(ModuleInfo& parent, const std::string& name) {
  for (ModuleInfo& child : parent.children)
    if (child.name == name) return child;
  ModuleInfo child;
  child.name = name;
  child.path = parent.path.empty() ? name : parent.path + "." + name;
  parent.children.push_back(std::move(child));
  return parent.children.back();
}

void sort_and_sum(ModuleInfo& module) {
  for (ModuleInfo& child : module.children) {
    sort_and_sum(child);
    module.parameters += child.parameters;
    module.bytes += child.bytes;
  }
  std::stable_sort(module.children.begin(), module.children.end(), [](const ModuleInfo& a, const ModuleInfo& b) {
    if (is_number(a.name) && is_number(b.name))
      return a.name.size() != b.name.size() ? a.name.size() < b.name.size() : a.name < b.name;
    return false;
  });
}

/// Names that captures give the linears, by the name of the stored weight. A fused weight carries its first one.
std::map<std::string, std::string> linears_by_tensor(const ModelSource& source) {
  std::map<std::string, std::string> names;
  for (std::int64_t layer = 0; layer < source.spec.layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      const TensorPlace& place = source.names.linear(kind).weight;
      const std::int64_t experts = place.name.find("{e}") == std::string::npos ? 0 : source.spec.experts;
      for (std::int64_t expert = experts > 0 ? 0 : -1; expert < experts; ++expert)
        names.emplace(stored_name(place, layer, expert), linear_name(layer, kind, expert));
    }
  }
  return names;
}

/// Sums of powers of the finite values.
struct Moments {
  double count = 0.0, sum = 0.0, square = 0.0, cube = 0.0, fourth = 0.0, absmax = 0.0;
  std::int64_t zeros = 0, non_finite = 0;

  void add(const float* values, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) {
      const double x = values[i];
      if (!std::isfinite(x)) {
        ++non_finite;
        continue;
      }
      zeros += x == 0.0;
      absmax = std::max(absmax, std::abs(x));
      count += 1.0;
      sum += x;
      square += x * x;
      cube += x * x * x;
      fourth += x * x * x * x;
    }
  }
  void add(const Moments& other) {
    count += other.count;
    sum += other.sum;
    square += other.square;
    cube += other.cube;
    fourth += other.fourth;
    absmax = std::max(absmax, other.absmax);
    zeros += other.zeros;
    non_finite += other.non_finite;
  }
  TensorStatistics statistics(const std::string& path) const {
    TensorStatistics result{.path = path, .absmax = absmax, .zeros = zeros, .non_finite = non_finite};
    if (count == 0.0) return result;
    const double mean = sum / count, second = square / count, third = cube / count;
    const double variance = std::max(0.0, second - mean * mean);
    result.mean = mean;
    result.standard_deviation = std::sqrt(variance);
    if (variance > 0.0) {
      const double central =
          fourth / count - 4.0 * mean * third + 6.0 * mean * mean * second - 3.0 * mean * mean * mean * mean;
      result.kurtosis = central / (variance * variance) - 3.0;
      result.peak = absmax / result.standard_deviation;
    }
    return result;
  }
};

}  // namespace

ModuleInfo module_tree(const ModelSource& source) {
  const std::map<std::string, std::string> linears = linears_by_tensor(source);
  ModuleInfo root;
  root.name = source.info.name;
  for (const StoredTensor& tensor : source.tensors.tensors) {
    ModuleInfo* at = &root;
    std::size_t begin = 0;
    for (std::size_t dot = tensor.name.find('.'); dot != std::string::npos; dot = tensor.name.find('.', begin)) {
      at = &child_of(*at, tensor.name.substr(begin, dot - begin));
      begin = dot + 1;
    }
    ModuleInfo leaf;
    leaf.name = tensor.name.substr(begin);
    leaf.path = tensor.name;
    leaf.shape = tensor.shape;
    leaf.dtype = stored_type_name(tensor.type);
    leaf.parameters = tensor.size();
    leaf.bytes = static_cast<std::int64_t>(tensor.bytes.size());
    if (const auto linear = linears.find(tensor.name); linear != linears.end()) leaf.linear = linear->second;
    at->children.push_back(std::move(leaf));
  }
  sort_and_sum(root);
  return root;
}

ModelDescription describe_model(const std::filesystem::path& path) {
  const ModelSource source = open_model(path);
  return {source.info, module_tree(source), source.quantization ? source.quantization->text() : std::string()};
}

std::vector<TensorStatistics> weight_statistics(const std::filesystem::path& path, const JobContext& job) {
  const ModelSource source = open_model(path);
  std::int64_t total = 0, done = 0;
  for (const StoredTensor& tensor : source.tensors.tensors) total += is_float(tensor.type) ? tensor.size() : 0;
  std::vector<TensorStatistics> all;
  std::vector<float> values;
  for (const StoredTensor& tensor : source.tensors.tensors) {
    if (!is_float(tensor.type)) continue;
    Moments moments;
    const std::int64_t columns = std::max<std::int64_t>(1, tensor.columns()), rows = tensor.rows();
    const std::int64_t step = std::max<std::int64_t>(1, kChunkValues / columns);
    for (std::int64_t row = 0; row < rows; row += step) {
      job.checkpoint(done, total, "Reading '" + tensor.name + "'");
      const std::int64_t count = std::min(step, rows - row);
      values.resize(static_cast<std::size_t>(count * columns));
      const std::int64_t parts = std::min<std::int64_t>(count, at::get_num_threads());
      std::vector<Moments> partial(static_cast<std::size_t>(parts));
      at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) {
          const std::int64_t from = count * part / parts, to = count * (part + 1) / parts;
          float* const out = values.data() + from * columns;
          decode_to_f32(tensor, row + from, to - from, out);
          partial[static_cast<std::size_t>(part)].add(out, (to - from) * columns);
        }
      });
      for (const Moments& part : partial) moments.add(part);
      done += count * columns;
    }
    all.push_back(moments.statistics(tensor.name));
  }
  job.checkpoint(total, total, "Reading weights");
  return all;
}

}  // namespace qs
