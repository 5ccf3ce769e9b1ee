#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "backend/evaluation/evaluate.h"

namespace qs {

struct KvAutoRequest {
  /// Of one layer each; "none" may be among them. Those that need a calibration must share one: a setup holds one
  /// calibration.
  std::vector<Setup> candidates;
  double budget_bits = 3.0;        ///< effective bits an element, mean over the layers, window included
  std::int64_t budget_tokens = 0;  ///< in the cache that the budget is for; 0: those of a window
  /// Text and windows to measure sensitivities on; as many windows after them, where the text has them, for the check.
  EvalRequest evaluation;
  EvalText calibration = {};          ///< that calibrated candidates learn from; empty: the text of the evaluation
  std::filesystem::path folder = {};  ///< remembers calibrations and every measurement; empty: nothing is remembered
};

struct KvAutoCandidate {
  std::string setup;
  double bits = 0.0;             ///< mean over the layers
  std::vector<double> layer_kl;  ///< nats a token with only this layer under the setup, the others in 16-bit floats
  double uniform_kl = 0.0;       ///< of all layers under it, on the check windows
  bool fits = false;             ///< bits within the budget
};

struct KvAutoResult {
  std::string model;
  double budget_bits = 0.0;
  std::int64_t budget_tokens = 0;     ///< at which bits are counted
  std::int64_t elements_a_token = 0;  ///< keys and values of all layers: bytes a token = bits * elements / 8
  std::int64_t window = 0, windows = 0, check_windows = 0;
  bool checked_on_other_windows = false;  ///< false: the text had too few, the check used the same ones
  std::string calibration;                ///< text that calibrated candidates learned from; empty: none did
  std::int64_t measured = 0;              ///< windows that ran under a setup
  std::int64_t remembered = 0;            ///< of an earlier run, not measured again
  std::vector<KvAutoCandidate> candidates;
  std::vector<std::size_t> choice;  ///< index of a candidate, by layer
  std::string setup;                ///< the assembled line
  double bits = 0.0, predicted_kl = 0.0, measured_kl = 0.0;
  std::string best_uniform;  ///< of the candidates that fit; empty when none does
  double uniform_bits = 0.0, uniform_kl = 0.0;
  bool better = true;  ///< the assembled setup is no worse than the best uniform one

  double bytes_a_token(double bits_an_element) const {
    return bits_an_element * static_cast<double>(elements_a_token) / 8.0;
  }
};

/// Bits an element that a cache of so many bytes a token has, all layers together.
double bits_of_bytes_a_token(const ArchitectureSpec& spec, double bytes);

/// Chooses a KV setup for each layer within a budget: KL divergence of each layer quantized alone with each candidate,
/// a choice that minimises their sum, then the measured divergence of the whole against the best uniform setup. A run
/// that was cancelled goes on where it stopped when it is started again with the same folder.
/// @throws Error InvalidArgument when a candidate does not fit the model or quantizes nothing within a window, when two
///         need different calibrations, or when the budget is below the smallest that can be reached (which is named)
KvAutoResult choose_kv_setups(std::shared_ptr<const Model> model, const KvAutoRequest& request, const JobContext& job);

/// One choice a row with the smallest sum of costs whose sum of bits is at most `budget`; exact on bits rounded up to
/// 1 / 1024. Ties: fewer bits. @param cost, bits  [layers][candidates]
/// @throws Error InvalidArgument when even the smallest sum of bits is beyond the budget
std::vector<std::size_t> cheapest_within(const std::vector<std::vector<double>>& cost,
                                         const std::vector<std::vector<double>>& bits, double budget);

/// The per-layer setup of a choice, neighbours with one setup in one range; a plain setup when all layers agree.
Setup assembled_setup(const std::vector<Setup>& candidates, const std::vector<std::size_t>& choice);

}  // namespace qs
