#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "backend/model/model.h"
#include "backend/types/capture_info.h"
#include "backend/types/job.h"

namespace qs {

struct CaptureRequest {
  std::vector<std::int64_t> ids;  ///< with BOS when the model wants one
  std::string text_source, text_sha256;
  std::int64_t window = 0;  ///< tokens per forward pass; 0: the model's context. Windows are independent sequences.
  /// key, key_pre_rope, value, query, attention (log-sum-exp and reduced statistics), activations
  std::set<std::string> taps = {"key", "key_pre_rope", "value", "query", "attention", "activations"};
  bool weights = false;
  bool portable_f32 = false;  ///< store f32 instead of the model's own 16-bit type
  bool pyramids = true;
};

CaptureForecast forecast_capture(const ModelInfo& model, const CaptureRequest& request,
                                 const std::filesystem::path& path);

/// Runs the text and fills the file; written while the model runs, flushed layer by layer, `complete` set at the end. A
/// cancelled capture keeps what was flushed. An existing capture of the same model is appended to when `append` is set.
/// @throws Error OutOfMemory or Io (disk full: needed, free), InvalidArgument (no tokens, beyond the context)
CaptureInfo capture(const Model& model, const CaptureRequest& request, const std::filesystem::path& path, bool append,
                    const JobContext& job);

}  // namespace qs
