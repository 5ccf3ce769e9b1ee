#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/evaluation/evaluate.h"

namespace qs {

struct KvAutoRequest {
  std::vector<Setup> candidates;  ///< of one layer each, without calibration; "none" may be among them
  double budget_bits = 3.0;       ///< effective bits an element, mean over the layers, window included
  /// Text and windows to measure sensitivities on; as many windows after them, where the text has them, for the check.
  EvalRequest evaluation;
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
  std::int64_t window = 0, windows = 0, check_windows = 0;
  bool checked_on_other_windows = false;  ///< false: the text had too few, the check used the same ones
  std::vector<KvAutoCandidate> candidates;
  std::vector<std::size_t> choice;  ///< index of a candidate, by layer
  std::string setup;                ///< the assembled line
  double bits = 0.0, predicted_kl = 0.0, measured_kl = 0.0;
  std::string best_uniform;  ///< of the candidates that fit; empty when none does
  double uniform_bits = 0.0, uniform_kl = 0.0;
  bool better = true;  ///< the assembled setup is no worse than the best uniform one
};

/// Chooses a KV setup for each layer within a budget: KL divergence of each layer quantized alone with each candidate,
/// a choice that minimises their sum, then the measured divergence of the whole against the best uniform setup.
/// @throws Error InvalidArgument when a candidate does not fit the model, needs a calibration, or the budget is below
///         the smallest that can be reached (which is named)
KvAutoResult choose_kv_setups(std::shared_ptr<const Model> model, const KvAutoRequest& request, const JobContext& job);

/// One choice a row with the smallest sum of costs whose sum of bits is at most `budget`; exact on bits rounded up to
/// 1 / 1024. Ties: fewer bits. @param cost, bits  [layers][candidates]
/// @throws Error InvalidArgument when even the smallest sum of bits is beyond the budget
std::vector<std::size_t> cheapest_within(const std::vector<std::vector<double>>& cost,
                                         const std::vector<std::vector<double>>& bits, double budget);

/// The per-layer setup of a choice, neighbours with one setup in one range; a plain setup when all layers agree.
Setup assembled_setup(const std::vector<Setup>& candidates, const std::vector<std::size_t>& choice);

}  // namespace qs
