#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/capture_info.h"
#include "backend/types/tensor_view.h"

namespace qs {

struct Calibration;

/// Half-open ranges over a dataset; an end of -1 means "to the end". Extents beyond the rank are whole.
struct Slice {
  std::int64_t begin = 0, end = -1;
};

/// One level of a pyramid: each value pools `factor` x `factor` cells of (tokens, channels).
enum class Pool { Min, Max, Mean };

/// Reads a capture that may still be growing or was cut off. All HDF5 work happens on the HDF5 thread; every call may
/// block on it, so none belongs on the GUI thread.
class CaptureReader {
 public:
  /// @throws Error NotFound, BadFormat (no capture, wrong version, what is missing), Io
  static std::shared_ptr<CaptureReader> open(const std::filesystem::path& path);
  virtual ~CaptureReader() = default;

  virtual const CaptureInfo& info() const = 0;
  virtual std::vector<std::int64_t> token_ids() = 0;
  virtual std::vector<std::string> token_texts() = 0;
  virtual bool has(const std::string& dataset) const = 0;
  /// Any numeric dataset as f32 (float16 and bfloat16-in-uint16 are widened).
  /// @throws Error NotFound naming the dataset and what is there; InvalidArgument for a slice outside it
  virtual TensorView read(const std::string& dataset, const std::vector<Slice>& slices = {}) = 0;
  /// `tap` is key, key_pre_rope, value, query, query_pre_rope: [heads or kv_heads, tokens, head_dim]; log_sum_exp:
  /// [heads, tokens].
  TensorView read_layer(std::int64_t layer, const std::string& tap, const std::vector<Slice>& slices = {});
  /// A pooled level of a layer tensor: [heads, ceil(tokens / factor), ceil(head_dim / factor)]. Factors are powers of
  /// two. Empty when the file has no pyramid for it.
  virtual TensorView read_pyramid(std::int64_t layer, const std::string& tap, Pool pool, std::int64_t factor) = 0;
  virtual ActivationStats activation_stats(const std::string& linear) = 0;
};

std::string layer_dataset(std::int64_t layer, const std::string& tap);  ///< "/layers/003/key"

/// The activation maxima of all linears as a calibration. @throws Error NotFound when the capture has none
Calibration calibration_from_capture(CaptureReader& capture);

}  // namespace qs
