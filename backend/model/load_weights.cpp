#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "backend/model/decoder.h"
#include "backend/model/model_source.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

at::ScalarType compute_type(const std::string& dtype) {
  if (dtype == "float32") return at::kFloat;
  if (dtype == "bfloat16") return at::kBFloat16;
  if (dtype == "float16") {
    if (std::string_view(QS_TORCH_VERSION).starts_with("1.")) {
      throw Error(ErrorCode::Unsupported, "LibTorch " QS_TORCH_VERSION
                                          " has no float16 products on the CPU. Choose float32 or bfloat16 as the "
                                          "compute type, or build with LibTorch 2.");
    }
    return at::kHalf;
  }
  throw Error(ErrorCode::InvalidArgument,
              "The compute type '" + dtype + "' is not known; choose float32, bfloat16 or float16.");
}

/// The type of LibTorch that has the same bits; nothing where values have to be decoded.
std::optional<at::ScalarType> torch_type(StoredType type) {
  switch (type) {
    case StoredType::F64:
      return at::kDouble;
    case StoredType::F32:
      return at::kFloat;
    case StoredType::F16:
      return at::kHalf;
    case StoredType::BF16:
      return at::kBFloat16;
    default:
      return std::nullopt;
  }
}

at::Tensor values_of(const StoredTensor& stored) {
  const auto type = torch_type(stored.type);
  at::Tensor values = at::empty(stored.shape, type.value_or(at::kFloat));
  if (!type) {
    decode_to_f32(stored, 0, stored.rows(), values.data_ptr<float>());
  } else if (!stored.bytes.empty()) {
    std::memcpy(values.data_ptr(), stored.bytes.data(), stored.bytes.size());
  }
  return values;
}

std::int64_t non_finite(const at::Tensor& x) { return at::logical_not(at::isfinite(x)).sum().item<std::int64_t>(); }

class Loader final : public WeightSource {
 public:
  Loader(const ModelSource& source, const LoadOptions& options, const JobContext& job)
      : source_(source),
        type_(compute_type(options.dtype)),
        dtype_(options.dtype),
        job_(job),
        total_(static_cast<std::int64_t>(source.tensors.tensors.size())) {}

  at::Tensor tensor(const TensorPlace& place, std::int64_t layer, std::int64_t expert,
                    const std::vector<std::int64_t>& shape) override {
    const bool fused = place.rows.block > 0;
    const std::string name = stored_name(place, layer, expert);
    if (fused && std::exchange(fused_layer_, layer) != layer) fused_.clear();
    const auto known = fused_.find(name);
    at::Tensor whole = known != fused_.end() ? known->second : converted(name);
    if (fused) fused_.emplace(name, whole);
    if (whole.dim() > 2) whole = whole.reshape({-1, whole.size(-1)});
    if (place.transposed) whole = whole.t();
    const std::vector<std::int64_t> rows = stored_rows(place, expert, shape.front());
    if (!rows.empty()) whole = whole.index_select(0, at::tensor(rows, at::kLong));
    return whole.contiguous();
  }

  std::shared_ptr<const LinearOp> linear(const WeightPlace& place, bool with_bias, std::int64_t layer,
                                         std::int64_t expert, std::int64_t out_features,
                                         std::int64_t in_features) override {
    const at::Tensor weight = tensor(place.weight, layer, expert, {out_features, in_features});
    const at::Tensor bias = with_bias ? tensor(place.bias, layer, expert, {out_features}) : at::Tensor();
    return std::make_shared<DenseLinear>(weight, bias);
  }

  void finish() const { job_.checkpoint(total_, total_, "Loading weights"); }

 private:
  at::Tensor converted(const std::string& name) {
    job_.checkpoint(std::min(done_++, total_), total_, "Loading weights");
    const StoredTensor& stored = source_.tensors.at(name);
    const at::Tensor raw = values_of(stored);
    if (const std::int64_t count = non_finite(raw); count > 0)
      throw Error(ErrorCode::BadFormat, "'" + source_.tensors.path + "': tensor '" + name + "' has " +
                                            std::to_string(count) + " values of " + std::to_string(stored.size()) +
                                            " that are NaN or infinite. The file is damaged or its training failed.");
    const at::Tensor converted = raw.to(type_);
    if (type_ == at::kHalf && raw.scalar_type() != at::kHalf)
      if (const std::int64_t count = non_finite(converted); count > 0)
        throw Error(ErrorCode::InvalidArgument, "Tensor '" + name + "' has " + std::to_string(count) +
                                                    " values too large for " + dtype_ +
                                                    ". Load the model in float32 or bfloat16.");
    return converted;
  }

  const ModelSource& source_;
  std::map<std::string, at::Tensor> fused_;  ///< of one layer: they are asked for once a part
  std::int64_t fused_layer_ = -1;
  at::ScalarType type_;
  std::string dtype_;
  const JobContext& job_;
  std::int64_t done_ = 0, total_ = 0;
};

}  // namespace

std::int64_t compute_type_bytes(const std::string& dtype) {
  return static_cast<std::int64_t>(c10::elementSize(compute_type(dtype)));
}

std::shared_ptr<const DecoderWeights> load_weights(const ModelSource& source, const LoadOptions& options,
                                                   const JobContext& job) {
  return translate_torch_errors("Loading '" + source.info.path + "'", [&]() -> std::shared_ptr<const DecoderWeights> {
    Loader loader(source, options, job);
    auto weights = std::make_shared<DecoderWeights>(assemble_weights(source.spec, source.names, loader));
    loader.finish();
    return weights;
  });
}

}  // namespace qs
