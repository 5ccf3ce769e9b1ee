#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "backend/model/variant.h"
#include "backend/types/job.h"
#include "backend/types/weight_run.h"

namespace qs {

class CaptureReader;

/// Whether the weight setup `line` needs a capture of activations. @throws Error InvalidArgument for a wrong setup
bool needs_calibration(const std::string& line);

struct KvCalibrationPlace {
  std::filesystem::path text, folder;
};

/// Where a layer-by-layer run keeps its finished blocks, and whom it tells; on the working thread. All may be empty.
struct WeightRunPlace {
  std::filesystem::path checkpoint;
  std::function<void(const WeightForecast&)> on_forecast;
  std::function<void(const LayerProgress&)> on_linear;
};

/// Setup lines to a variant; empty lines are full precision. Products are computed from the codes where the method can.
/// @param capture  where the calibration of weights comes from; may be null when none is needed
/// @param kv_calibration  text that KV setups with a calibration learn from, and the folder that remembers the result
/// @throws Error as parse_setup, calibration_from_capture and make_variant
std::shared_ptr<const Variant> build_variant(std::shared_ptr<const Model> model, const std::string& weights,
                                             const std::string& kv, CaptureReader* capture,
                                             const KvCalibrationPlace& kv_calibration, const JobContext& job,
                                             const WeightRunPlace& weight_run = {});

/// Encodes the beginning of a text file. @throws Error as read_text; InvalidArgument when it has fewer than `tokens`
/// tokens
struct CaptureText {
  std::vector<std::int64_t> ids;
  std::string name, sha256;
};
CaptureText encode_text(const Model& model, const std::string& path, std::int64_t tokens);

}  // namespace qs
