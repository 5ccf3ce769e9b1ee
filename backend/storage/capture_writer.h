#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backend/storage/activation_sums.h"
#include "backend/storage/attention_statistics.h"
#include "backend/storage/capture_layout.h"

namespace qs {

/// What one layer gave in one window. Tensors are on the CPU and belong to this struct.
struct CapturedLayer {
  std::int64_t layer = 0;
  std::int64_t first_token = 0;                          ///< in the file
  std::vector<std::pair<std::string, at::Tensor>> taps;  ///< "key" ..: [heads, tokens, head_dim] in the storage type
  std::optional<AttentionStatistics> attention;
  std::vector<std::pair<std::string, ActivationSums>> activations;  ///< by linear name, in model order
};

/// How a capture is stored.
struct CaptureStorage {
  hdf5::ElementType type = hdf5::ElementType::Float32;
  bool pyramids = true;
  std::int64_t planned_tokens = 0;   ///< chooses the pyramid levels of new datasets
  std::vector<std::string> linears;  ///< all names in model order; fixes the attribute `order`
};

/// The one writer of a capture file. Its functions may be called from one other thread at a time; all HDF5 work happens
/// on the HDF5 thread. After each window start and each layer the file is committed: what was committed survives a
/// kill.
class CaptureWriter {
 public:
  /// A new file: it takes the place of an older one once its header is whole.
  static std::unique_ptr<CaptureWriter> create(const std::filesystem::path& path, const CaptureHeader& header,
                                               const CaptureStorage& storage);
  /// Continues a complete capture. @throws Error InvalidArgument when model or window differ or the capture was cut off
  static std::unique_ptr<CaptureWriter> append(const std::filesystem::path& path, const CaptureHeader& header,
                                               const CaptureStorage& storage);
  ~CaptureWriter();

  std::int64_t tokens() const { return tokens_; }  ///< in the file
  bool holds_layers() const { return holds_layers_; }
  std::set<std::string> existing_taps() const;  ///< of layer 0

  /// The token list of the window that is about to run, positions from 0.
  void begin_window(const std::vector<std::int64_t>& ids, const std::vector<std::string>& texts);
  /// Queues the layer; waits for the one before. Throws what that one failed with.
  void write_layer(CapturedLayer layer);
  /// @param weight  in the storage type, of rank 1 or 2
  void write_weight(const std::string& name, const at::Tensor& weight);
  void wait();
  void finish();  ///< waits, sets `complete`, commits

 private:
  struct Impl;
  explicit CaptureWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::future<void> pending_;
  std::int64_t tokens_ = 0;
  bool holds_layers_ = false;
};

/// at::kHalf for Float16 and so on.
at::ScalarType scalar_type(hdf5::ElementType type);
hdf5::ElementType element_type(at::ScalarType type);

}  // namespace qs
