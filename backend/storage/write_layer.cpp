#include "backend/storage/write_layer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/storage/capture_reader.h"
#include "backend/storage/pyramid.h"

namespace qs {
namespace {

using hdf5::ElementType;
using hdf5::Shape;

/// Datasets that are replaced as a whole: statistics over all tokens so far.
hdf5::Dataset replace(hid_t file, const std::string& path, const at::Tensor& values, const std::string& axes,
                      const std::string& source) {
  const at::Tensor data = values.to(at::kFloat).contiguous();
  const Shape shape = data.sizes().vec();
  hdf5::Dataset dataset = hdf5::exists(file, path)
                              ? hdf5::open_dataset(file, path)
                              : hdf5::create_dataset(file, path, ElementType::Float32, shape, {}, -1, axes, source);
  hdf5::write_block(dataset, ElementType::Float32, Shape(shape.size(), 0), shape, data.data_ptr<float>());
  return dataset;
}

at::Tensor read_all(hid_t file, const std::string& path) {
  const hdf5::Dataset dataset = hdf5::open_dataset(file, path);
  const Shape shape = hdf5::shape_of(dataset);
  at::Tensor values = at::empty(shape, at::kFloat);
  hdf5::read_block(dataset, ElementType::Float32, Shape(shape.size(), 0), shape, values.data_ptr<float>());
  return values;
}

/// The mean over the tokens in the file and the new ones. Unequal bucket counts (windows of unequal length) are filled
/// up.
at::Tensor joined_mean(hid_t file, const std::string& path, std::int64_t old_tokens, const at::Tensor& fresh,
                       std::int64_t new_tokens) {
  if (old_tokens == 0 || !hdf5::exists(file, path)) return fresh;
  const at::Tensor old = read_all(file, path);
  const double share = static_cast<double>(new_tokens) / static_cast<double>(old_tokens + new_tokens);
  return old * (1.0 - share) + fresh * share;
}

/// Brings the last axis to `buckets`: nothing lies beyond (`fill_last` false) or the last value holds on (true).
at::Tensor with_buckets(const at::Tensor& values, std::int64_t buckets, bool fill_last) {
  const std::int64_t missing = buckets - values.size(-1);
  if (missing <= 0) return values;
  std::vector<std::int64_t> shape = values.sizes().vec();
  shape.back() = missing;
  const at::Tensor tail =
      fill_last ? values.narrow(-1, values.size(-1) - 1, 1).expand(shape) : at::zeros(shape, values.options());
  return at::cat({values, tail}, -1);
}

void write_attention(hid_t file, const CapturedLayer& layer, std::int64_t window) {
  const AttentionStatistics& stats = *layer.attention;
  const auto path = [&](const char* name) { return layer_dataset(layer.layer, std::string("attention/") + name); };
  write_along_tokens(file, layer_dataset(layer.layer, "log_sum_exp"), ElementType::Float32, stats.log_sum_exp,
                     layer.first_token, "heads,tokens", "attention");
  write_along_tokens(file, path("entropy"), ElementType::Float32, stats.entropy, layer.first_token, "heads,tokens",
                     "attention");
  write_along_tokens(file, path("span_90"), ElementType::Float32, stats.span_90, layer.first_token, "heads,tokens",
                     "attention");

  const std::string by_distance = path("mass_by_distance");
  std::int64_t before = 0;
  if (hdf5::exists(file, by_distance)) before = hdf5::int_attribute(hdf5::open_dataset(file, by_distance), "tokens");
  const std::int64_t buckets = distance_buckets(window);
  const auto store = [&](const std::string& name, const at::Tensor& values, const char* axes) {
    hdf5::Dataset dataset =
        replace(file, name, joined_mean(file, name, before, values, stats.tokens), axes, "attention");
    hdf5::set_attribute(dataset, "tokens", before + stats.tokens);
    return dataset;
  };
  const std::string meaning = "bucket 0: distance 0; bucket b: 2^(b-1) <= distance < 2^b";
  hdf5::set_attribute(store(by_distance, with_buckets(stats.mass_by_distance, buckets, false), "heads,distance_bucket"),
                      "buckets", meaning);
  const hdf5::Dataset quartiles =
      store(path("mass_within_quartiles"), with_buckets(stats.mass_quartiles, buckets, true),
            "quartile,heads,distance_bucket");
  hdf5::set_attribute(quartiles, "buckets",
                      "quartiles 0.25, 0.5, 0.75 over queries of the mass at distances below 2^b; mean over windows");
  const hdf5::Dataset sinks = store(path("sink_mass"), stats.sink_mass, "heads,sink_tokens");
  std::string counts;
  for (const std::int64_t count : kSinkCounts) counts += (counts.empty() ? "" : ",") + std::to_string(count);
  hdf5::set_attribute(sinks, "sink_tokens", counts);

  if (stats.map_factor && !hdf5::exists(file, path("map_max"))) {
    for (const auto& [name, map] : {std::pair{"map_max", stats.map_max}, {"map_mean", stats.map_mean}}) {
      const at::Tensor half = map.to(at::kHalf).contiguous();
      const Shape shape = half.sizes().vec();
      const hdf5::Dataset dataset =
          hdf5::create_dataset(file, path(name), ElementType::Float16, shape, {1, shape[1], shape[2]}, -1,
                               "heads,query_tile,key_tile", "attention");
      hdf5::write_block(dataset, ElementType::Float16, {0, 0, 0}, shape, half.data_ptr());
      hdf5::set_attribute(dataset, "factor", stats.map_factor);
      hdf5::set_attribute(dataset, "first_token", layer.first_token);
      hdf5::set_attribute(dataset, "tokens", stats.tokens);
    }
  }
}

void write_activations(hid_t file, const CapturedLayer& layer, const CaptureStorage& storage) {
  for (const auto& [linear, fresh] : layer.activations) {
    const std::string group = activation_group(linear);
    ActivationSums sums = fresh;
    if (hdf5::exists(file, group)) {
      ActivationSums old;
      old.tokens = hdf5::int_attribute(hdf5::open_dataset(file, group + "/absmax"), "tokens");
      old.absmax = read_all(file, group + "/absmax");
      old.sum = read_all(file, group + "/mean").to(at::kDouble) * static_cast<double>(old.tokens);
      old.sum_of_squares = read_all(file, group + "/second_moment").to(at::kDouble) * static_cast<double>(old.tokens);
      sums += old;
    }
    const double count = static_cast<double>(sums.tokens);
    const auto order = std::find(storage.linears.begin(), storage.linears.end(), linear) - storage.linears.begin();
    for (const auto& [name, values] : {std::pair{"absmax", sums.absmax},
                                       {"mean", sums.sum / count},
                                       {"second_moment", sums.sum_of_squares / count}}) {
      const hdf5::Dataset dataset = replace(file, group + "/" + name, values, "in_features", "input of " + linear);
      hdf5::set_attribute(dataset, "tokens", sums.tokens);
      hdf5::set_attribute(dataset, "order", static_cast<std::int64_t>(order));
    }
  }
}

/// Pools the new tokens, and again those before them that share a tile with them.
void write_pyramid(hid_t file, std::int64_t layer, const std::string& tap, const at::Tensor& fresh,
                   std::int64_t first_token, const CaptureStorage& storage) {
  std::vector<std::int64_t> factors;
  for (std::int64_t f = 2; hdf5::exists(file, pyramid_dataset(layer, tap, "min", f)); f *= 2) factors.push_back(f);
  if (factors.empty())
    factors = pyramid_factors(std::max(storage.planned_tokens, first_token + fresh.size(1)), fresh.size(2));
  const std::int64_t begin = first_token / factors.back() * factors.back();
  at::Tensor x = fresh;
  if (begin < first_token) {
    const hdf5::Dataset dataset = hdf5::open_dataset(file, layer_dataset(layer, tap));
    at::Tensor earlier = at::empty({x.size(0), first_token - begin, x.size(2)}, x.options());
    hdf5::read_block(dataset, storage.type, {0, begin, 0}, earlier.sizes().vec(), earlier.data_ptr());
    x = at::cat({earlier, x}, 1);
  }
  for (const PyramidLevel& level : build_pyramid(x, factors)) {
    for (const auto& [pool, values] : {std::pair{"min", level.min}, {"max", level.max}, {"mean", level.mean}}) {
      const hdf5::Dataset dataset = write_along_tokens(file, pyramid_dataset(layer, tap, pool, level.factor),
                                                       storage.type, values.to(scalar_type(storage.type)),
                                                       begin / level.factor, "heads,token_tile,channel_tile", tap);
      if (!hdf5::has_attribute(dataset, "factor")) hdf5::set_attribute(dataset, "factor", level.factor);
    }
  }
}

}  // namespace

hdf5::Dataset write_along_tokens(hid_t file, const std::string& path, ElementType type, const at::Tensor& values,
                                 std::int64_t first, const std::string& axes, const std::string& source_tap) {
  const at::Tensor data = values.contiguous();
  const Shape count = data.sizes().vec();
  hdf5::Dataset dataset = hdf5::exists(file, path)
                              ? hdf5::open_dataset(file, path)
                              : hdf5::create_dataset(file, path, type, count, chunk_of(count), 1, axes, source_tap);
  hdf5::grow(dataset, 1, first + count[1]);
  Shape offset(count.size(), 0);
  offset[1] = first;
  hdf5::write_block(dataset, type, offset, count, data.data_ptr());
  return dataset;
}

void write_layer(hid_t file, const CapturedLayer& layer, const CaptureStorage& storage, std::int64_t window) {
  for (const auto& [tap, values] : layer.taps) {
    const hdf5::Dataset dataset =
        write_along_tokens(file, layer_dataset(layer.layer, tap), storage.type, values, layer.first_token,
                           tap.rfind("query", 0) == 0 ? "heads,tokens,head_dim" : "kv_heads,tokens,head_dim", tap);
    const auto non_finite = values.numel() - values.to(at::kFloat).isfinite().sum().item<std::int64_t>();
    hdf5::set_attribute(dataset, "non_finite", hdf5::int_attribute(dataset, "non_finite") + non_finite);
    if (storage.pyramids) write_pyramid(file, layer.layer, tap, values, layer.first_token, storage);
  }
  if (layer.attention) write_attention(file, layer, window);
  write_activations(file, layer, storage);
}

}  // namespace qs
