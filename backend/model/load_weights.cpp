#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>

#include "backend/formats/mapped_file.h"
#include "backend/model/decoder.h"
#include "backend/model/model_source.h"
#include "backend/model/stored_linear.h"
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

/// Values that are looked at in one step of the job.
constexpr std::int64_t kChunkValues = std::int64_t{1} << 22;
constexpr float kLargestHalf = 65504.0f;

/// Rows of `tensor` as the matrix of its last extent, transposed, in a table of their own.
StoredRows transposed_copy(const StoredTensor& tensor, const std::vector<std::int64_t>& rows) {
  const std::int64_t columns = tensor.rows();  // of the result
  auto values = std::make_shared<at::Tensor>(at::empty({tensor.rows(), tensor.columns()}, at::kFloat));
  decode_to_f32(tensor, 0, tensor.rows(), values->data_ptr<float>());
  const bool half = tensor.type == StoredType::F16, brain = tensor.type == StoredType::BF16;
  *values = values->t().contiguous().to(half ? at::kHalf : brain ? at::kBFloat16 : at::kFloat);
  auto table = std::make_shared<TensorTable>();
  table->owners.push_back(values);
  StoredTensor copy{tensor.name,
                    half    ? StoredType::F16
                    : brain ? StoredType::BF16
                            : StoredType::F32,
                    {tensor.columns(), columns},
                    {}};
  copy.bytes = {static_cast<const std::byte*>(values->data_ptr()),
                static_cast<std::size_t>(values->numel()) * values->element_size()};
  release_pages(tensor.bytes);
  return StoredRows(std::move(table), copy, rows);
}

/// Looks at every value once, so that damage is found before it is computed with, and leaves the weights where they
/// are.
class Loader final : public WeightSource {
 public:
  Loader(const ModelSource& source, const LoadOptions& options, const JobContext& job)
      : table_(std::make_shared<const TensorTable>(source.tensors)),
        quantization_(source.quantization),
        type_(compute_type(options.dtype)),
        dtype_(options.dtype),
        job_(job) {
    for (const StoredTensor& tensor : table_->tensors) total_ += tensor.size();
  }

  at::Tensor tensor(const TensorPlace& place, std::int64_t layer, std::int64_t expert,
                    const std::vector<std::int64_t>& shape) override {
    const StoredTensor& stored = checked(place, layer, expert);
    const StoredRows rows(table_, flat(stored), stored_rows(place, expert, shape.front()));
    at::Tensor values = at::empty(shape, at::kFloat);
    rows.decode(0, rows.rows(), values.data_ptr<float>());
    return values.to(type_);
  }

  std::shared_ptr<const LinearOp> linear(const WeightPlace& place, bool with_bias, std::int64_t layer,
                                         std::int64_t expert, std::int64_t out_features,
                                         std::int64_t in_features) override {
    if (const auto format = codes_of(place, layer, expert, in_features))
      return coded_linear(*format, place, with_bias, layer, expert, out_features, in_features);
    const StoredTensor& stored = checked(place.weight, layer, expert);
    const std::vector<std::int64_t> rows = stored_rows(place.weight, expert, out_features);
    const at::Tensor bias = with_bias ? tensor(place.bias, layer, expert, {out_features}) : at::Tensor();
    if (place.weight.transposed) return std::make_shared<StoredLinear>(transposed_copy(stored, rows), bias);
    return std::make_shared<StoredLinear>(StoredRows(table_, stored, rows), bias);
  }

  at::ScalarType type() const { return type_; }
  void finish() const { job_.checkpoint(total_, total_, "Reading weights"); }

 private:
  std::optional<CodeFormat> codes_of(const WeightPlace& place, std::int64_t layer, std::int64_t expert,
                                     std::int64_t in_features) const {
    if (!quantization_) return std::nullopt;
    return format_of(*quantization_, *table_, stored_name(place.weight, layer, expert), in_features);
  }

  /// Rows of a fused weight come from the same codes, which are unpacked once.
  std::shared_ptr<const LinearOp> coded_linear(const CodeFormat& format, const WeightPlace& place, bool with_bias,
                                               std::int64_t layer, std::int64_t expert, std::int64_t out_features,
                                               std::int64_t in_features) {
    const std::string stem = stem_of(stored_name(place.weight, layer, expert));
    if (stem != unpacked_stem_) {
      const StoredTensor& scale = table_->at(stem + (format.layout == CodeLayout::Gptq ? ".scales" : ".weight_scale"));
      const std::int64_t all_rows = scale.shape[format.layout == CodeLayout::Gptq ? 1 : 0];
      job_.checkpoint(done_, total_, "Reading weights");
      unpacked_ = decode_parts(format, *table_, stem, all_rows, in_features);
      unpacked_stem_ = stem;
      for (const CodedPart& part : coded_parts(format, all_rows, in_features)) {
        const StoredTensor& stored = table_->at(stem + "." + part.name);
        done_ += stored.size();
        release_pages(stored.bytes);
      }
    }
    const at::Tensor bias = with_bias ? tensor(place.bias, layer, expert, {out_features}) : at::Tensor();
    const std::vector<std::int64_t> rows = stored_rows(place.weight, expert, out_features);
    return make_packed_linear(rows.empty() ? unpacked_ : rows_of(unpacked_, rows), bias);
  }

  /// A vector is seen as one value a row, so that row patterns choose its values.
  static StoredTensor flat(const StoredTensor& tensor) {
    StoredTensor column = tensor;
    if (tensor.shape.size() < 2) column.shape = {tensor.size(), 1};
    return column;
  }

  const StoredTensor& checked(const TensorPlace& place, std::int64_t layer, std::int64_t expert) {
    const std::string name = stored_name(place, layer, expert);
    const StoredTensor& stored = table_->at(name);
    if (!checked_.insert(name).second) return stored;
    std::int64_t bad = 0, too_large = 0;
    const std::int64_t columns = std::max<std::int64_t>(1, stored.columns());
    const std::int64_t step = std::max<std::int64_t>(1, kChunkValues / columns);
    for (std::int64_t row = 0; row < stored.rows(); row += step) {
      job_.checkpoint(done_, total_, "Reading weights");
      const std::int64_t count = std::min(step, stored.rows() - row);
      check_rows(stored, row, count, bad, too_large);
      done_ += count * columns;
    }
    if (bad > 0)
      throw Error(ErrorCode::BadFormat, "'" + table_->path + "': tensor '" + name + "' has " + std::to_string(bad) +
                                            " values of " + std::to_string(stored.size()) +
                                            " that are NaN or infinite. The file is damaged or its training failed.");
    if (type_ == at::kHalf && too_large > 0)
      throw Error(ErrorCode::InvalidArgument, "Tensor '" + name + "' has " + std::to_string(too_large) +
                                                  " values too large for " + dtype_ +
                                                  ". Load the model in float32 or bfloat16.");
    return stored;
  }

  /// Counts what is not finite, and what f16 cannot hold.
  static void check_rows(const StoredTensor& tensor, std::int64_t first, std::int64_t count, std::int64_t& bad,
                         std::int64_t& too_large) {
    const std::int64_t parts = std::min<std::int64_t>(count, at::get_num_threads());
    std::vector<std::array<std::int64_t, 2>> found(static_cast<std::size_t>(parts));
    at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> values;
      for (std::int64_t part = begin; part < end; ++part) {
        const std::int64_t from = count * part / parts, to = count * (part + 1) / parts;
        values.resize(static_cast<std::size_t>((to - from) * tensor.columns()));
        decode_to_f32(tensor, first + from, to - from, values.data());
        std::int64_t not_finite = 0, large = 0;
        for (const float value : values) {
          not_finite += !std::isfinite(value);
          large += std::abs(value) > kLargestHalf;
        }
        found[static_cast<std::size_t>(part)] = {not_finite, large};
      }
    });
    for (const auto& [not_finite, large] : found) {
      bad += not_finite;
      too_large += large;
    }
  }

  std::shared_ptr<const TensorTable> table_;
  std::optional<QuantizationScheme> quantization_;
  std::string unpacked_stem_;
  LinearCodes unpacked_;  ///< of unpacked_stem_
  at::ScalarType type_;
  std::string dtype_;
  const JobContext& job_;
  std::set<std::string> checked_;
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
    weights->compute_type = loader.type();
    loader.finish();
    return weights;
  });
}

}  // namespace qs
