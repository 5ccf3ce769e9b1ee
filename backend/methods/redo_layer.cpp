#include "backend/methods/redo_layer.h"

#include <nlohmann/json.hpp>

#include "backend/formats/json_file.h"
#include "backend/method_registry.h"
#include "backend/methods/gptq_method.h"
#include "backend/methods/layerwise.h"
#include "backend/methods/layerwise_params.h"
#include "backend/methods/spqr_method.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {

void redo_layer(const Model& model, const Setup& setup, std::int64_t layer, const WeightContext& context,
                const JobContext& job) {
  if (!setup.then.empty() || !setup.layers.empty() || (setup.method != "gptq" && setup.method != "spqr")) {
    throw Error(ErrorCode::Unsupported,
                "A layer can be redone with gptq or spqr alone, which keep a checkpoint of "
                "finished layers; found '" +
                    format_setup(setup, weight_method_infos()) + "'.");
  }
  const LayerwisePlan plan{setup_line(setup.method, setup.params), std::get<bool>(setup.params.at("true_sequential"))};
  if (setup.method == "gptq") {
    GptqQuantizer quantizer(GptqMethod(setup.params).options_for(model.spec()));
    redo_layer(model, layer, quantizer, plan, context, job);
    return;
  }
  if (std::get<double>(setup.params.at("target_bits")) > 0.0) {
    throw Error(ErrorCode::InvalidArgument,
                "spqr: target_bits is searched on the first block of a whole run; redo a layer with an "
                "outlier_threshold.");
  }
  SpqrQuantizer quantizer(SpqrMethod(setup.params).options(), 0.0);
  redo_layer(model, layer, quantizer, plan, context, job);
}

Setup checkpoint_setup(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "setup.json";
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorCode::NotFound,
                "'" + folder.string() + "' is no checkpoint of a layer-by-layer run: it has no setup.json.");
  }
  const nlohmann::json found = parse_json_file(path);
  const auto made_from = found.find("made_from");
  if (made_from == found.end() || !made_from->is_object() || !made_from->contains("setup") ||
      !made_from->at("setup").is_string()) {
    throw Error(ErrorCode::BadFormat, "'" + path.string() + "' does not say with which setup it was made.");
  }
  const std::optional<Setup> setup = parse_weight_setup(made_from->at("setup").get<std::string>());
  if (!setup) throw Error(ErrorCode::BadFormat, "'" + path.string() + "' names no setup.");
  return *setup;
}

}  // namespace qs
