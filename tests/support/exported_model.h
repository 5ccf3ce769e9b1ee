#pragma once

#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/calibration_windows.h"
#include "backend/formats/safetensors.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/packed_from_codes.h"
#include "backend/model/decoder.h"
#include "backend/model/export_checkpoint.h"
#include "backend/model/model.h"
#include "backend/model/variant.h"

namespace qs::test {

/// Token ids that every tiny vocabulary of the tests has.
inline std::vector<std::int64_t> some_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count) ids.push_back((ids.back() * 37 + 11) % 89 + 3);
  return ids;
}

/// Built with packed weights, on a calibration of ids.
inline std::shared_ptr<const Variant> packed_variant(const std::shared_ptr<const Model>& model,
                                                     const std::string& setup_text) {
  const auto setup = parse_weight_setup(setup_text);
  const std::vector<std::int64_t> ids = some_ids(300);
  const CalibrationWindows windows = calibration_windows(*model, ids, "ids", "0123", 6, 32, 0);
  Calibration maxima;
  if (setup && weight_calibration_needs(*setup).activation_maxima)
    maxima = calibrate(*model, some_ids(48), 0, "ids", {});
  WeightContext context;
  context.execution = WeightExecution::Packed;
  context.windows = &windows;
  context.calibration = &maxima;
  return make_variant(model, setup, std::nullopt, context, {});
}

inline at::Tensor logits_of(const Model& model, const DecoderWeights& weights, const std::vector<std::int64_t>& ids) {
  FullPrecisionWindow attention;
  return forward(model.spec(), weights, RaggedBatch::single(ids), attention, LogitRows::All, nullptr, {});
}

inline std::shared_ptr<const Model> load_model(const std::filesystem::path& path) {
  load_codes_as_packed_linears();
  return Model::load(path, {}, {});
}

inline nlohmann::json config_of(const std::filesystem::path& folder) {
  std::ifstream file(folder / "config.json");
  return nlohmann::json::parse(file);
}

}  // namespace qs::test
