#include "backend/model/model.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdio>

#include "backend/model/decoder.h"
#include "backend/model/model_source.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kUsualContext = 2048;

std::string mebibytes(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
  return text;
}

void check_memory(const ModelSource& source, const LoadOptions& options) {
  const ModelInfo& info = source.info;
  const MemoryEstimate need = estimate_memory(info, options, std::min(kUsualContext, info.max_context));
  // Weights in floating point stay mapped, codes are copied into the order that the kernels read.
  const std::int64_t codes = source.quantization ? need.weights : 0;
  const std::int64_t available = available_memory(), allocated = need.allocated() + codes;
  if (allocated <= available) return;
  throw Error(ErrorCode::OutOfMemory,
              "'" + info.path + "' needs about " + mebibytes(allocated) +
                  (codes > 0 ? " with its codes in " : " beside its weights in ") + options.dtype + " (" +
                  mebibytes(need.kv) + " cache at " + std::to_string(need.context) + " tokens, " +
                  mebibytes(need.scratch) + " work space), but only " + mebibytes(available) +
                  " are available. Close other programs, choose a 16-bit type, or open a smaller model.");
}

}  // namespace

std::shared_ptr<const Model> Model::load(const std::filesystem::path& path, const LoadOptions& options,
                                         const JobContext& job) {
  compute_type_bytes(options.dtype);
  if (options.device != "cpu")
    throw Error(ErrorCode::Unsupported,
                "The device '" + options.device + "' cannot be used: this program computes models on 'cpu'.");
  job.checkpoint(0, 1, "Opening the model");
  const ModelSource source = open_model(path);
  check_memory(source, options);
  auto weights = load_weights(source, options, job);
  return std::make_shared<const Model>(source.info, source.spec, std::move(weights), source.tokenizer, options);
}

Model::Model(ModelInfo info, ArchitectureSpec spec, std::shared_ptr<const DecoderWeights> weights,
             std::shared_ptr<const Tokenizer> tokenizer, LoadOptions options)
    : info_(std::move(info)),
      spec_(std::move(spec)),
      weights_(std::move(weights)),
      tokenizer_(std::move(tokenizer)),
      options_(std::move(options)) {}

Model::~Model() = default;

std::int64_t Model::weight_bytes() const { return weights_->bytes(); }

const Tokenizer& Model::tokenizer() const {
  if (tokenizer_) return *tokenizer_;
  throw Error(ErrorCode::NotFound,
              "'" + info_.path +
                  "' came without a tokenizer (tokenizer.json or tokenizer.model), so text cannot be "
                  "read or written with it. Put the tokenizer's file beside the weights.");
}

ModelInfo inspect_model(const std::filesystem::path& path) { return open_model(path).info; }

}  // namespace qs
