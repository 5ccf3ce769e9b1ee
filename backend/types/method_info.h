#pragma once

#include <string>
#include <vector>

#include "backend/types/param_spec.h"

namespace qs {

enum class MethodFamily { Kv, Weight, WeightActivation };

/// Named parameter values, usually a paper's setting.
struct Preset {
  std::string label;   ///< "KIVI-2, paper setting"
  ParamSet params;     ///< only what differs from the declared defaults
  std::string source;  ///< "arXiv:2402.02750, table 3"
};

/// What a calibrated weight method learns from.
enum class CalibrationNeed {
  ActivationMaxima,  ///< per-channel maxima, of a capture or of a run over a text
  TokenWindows       ///< windows of a text, run through the model block by block
};

/// A published quantizer as it declares itself; plain data, shown and printed without knowing the method.
struct MethodInfo {
  std::string id;  ///< "kivi": stable, appears in setups and files
  std::string title;
  MethodFamily family = MethodFamily::Kv;
  std::string paper;     ///< "arXiv:2402.02750", empty when there is none
  std::string citation;  ///< authors, title, year
  std::string summary;   ///< one sentence
  std::vector<ParamSpec> params;
  std::vector<Preset> presets;
  std::vector<std::string> may_follow;  ///< ids that this method may stand behind after a plus sign; "*": any
  bool needs_calibration = false;
  CalibrationNeed calibration_need = CalibrationNeed::ActivationMaxima;  ///< with needs_calibration, weight methods
  bool runs_here = true;
  std::string why_not = {};                 ///< why it cannot run on this machine; empty when it can
  std::string effective_bits_formula = {};  ///< "bits + 32 / group_size (f16 scale and minimum)"
};

/// "kv", "weight" or "weight_activation": the stable spelling of files and --json.
const char* family_id(MethodFamily family);

}  // namespace qs
