#pragma once

namespace qs {

/// What a weight setup learns from before it runs. A chain or a per-layer setup may need more than one of them.
struct CalibrationNeeds {
  bool activation_maxima = false;  ///< per-channel maxima of the inputs of the linears (Calibration)
  bool input_rows = false;         ///< a sample of those inputs too (Calibration::input_rows)
  bool token_windows = false;      ///< windows of a text that run through the model (CalibrationWindows)

  bool any() const { return activation_maxima || input_rows || token_windows; }
  CalibrationNeeds& operator|=(const CalibrationNeeds& other) {
    activation_maxima |= other.activation_maxima;
    input_rows |= other.input_rows;
    token_windows |= other.token_windows;
    return *this;
  }
  bool operator==(const CalibrationNeeds&) const = default;
};

}  // namespace qs
