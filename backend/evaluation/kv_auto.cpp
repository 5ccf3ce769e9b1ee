#include "backend/evaluation/kv_auto.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "backend/evaluation/cross_entropy.h"
#include "backend/evaluation/windows.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kBitStep = 1.0 / 1024.0;

std::string line_of(const Setup& setup) { return format_setup(setup, kv_method_infos()); }

std::string two_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

std::shared_ptr<const Variant> variant_with(const std::shared_ptr<const Model>& model,
                                            const std::optional<Setup>& setup) {
  return make_variant(model, std::nullopt, setup, nullptr, WeightExecution::Simulated, {});
}

/// Mean divergence over windows, whose full-precision logits are made one at a time.
class Divergence {
 public:
  Divergence(std::shared_ptr<const Model> model, KvMode mode) : model_(std::move(model)), mode_(mode) {
    reference_ = variant_with(model_, std::nullopt);
  }

  /// @return mean KL of each setup
  std::vector<double> of(const std::vector<Setup>& setups, const std::vector<std::vector<std::int64_t>>& windows,
                         std::string_view step, const JobContext& job) const {
    std::vector<double> sums(setups.size(), 0.0);
    const auto total = static_cast<std::int64_t>(windows.size() * (setups.size() + 1));
    std::int64_t done = 0;
    const auto logits_of = [&](const Variant& variant, const std::vector<std::int64_t>& ids) {
      job.checkpoint(done, total, step);
      ++done;
      return window_logits(variant, ids, mode_, job.quiet());
    };
    for (const std::vector<std::int64_t>& ids : windows) {
      const at::Tensor expected = logits_of(*reference_, ids);
      for (std::size_t i = 0; i < setups.size(); ++i) {
        const at::Tensor logits = logits_of(*variant_with(model_, setups[i]), ids);
        sums[i] += score_window(logits, expected, ids).kl;
      }
    }
    job.checkpoint(total, total, step);
    for (double& sum : sums) sum /= static_cast<double>(windows.size());
    return sums;
  }

 private:
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Variant> reference_;
  KvMode mode_;
};

/// Only one layer under `setup`.
Setup alone(const Setup& setup, std::int64_t layer) {
  Setup entry = setup;
  entry.range = {layer, layer};
  Setup whole{.method = "layers", .params = {}};
  whole.layers = {entry, Setup{.method = "none", .params = {}}};
  return whole;
}

void check_candidates(const KvAutoRequest& request, const Model& model) {
  if (request.candidates.empty())
    throw Error(ErrorCode::InvalidArgument, "A search needs at least one candidate setup.");
  for (const Setup& candidate : request.candidates) {
    if (!candidate.layers.empty())
      throw Error(ErrorCode::InvalidArgument, "A candidate must be a setup of one layer, not a per-layer setup.");
    if (const Setup* calibrated = calibrated_kv_part(candidate))
      throw Error(ErrorCode::InvalidArgument, "The candidate '" + calibrated->method +
                                                  "' needs a calibration; the search takes methods without one.");
    for (std::int64_t layer = 0; layer < model.spec().layers; ++layer)
      make_kv_method(candidate)->check_fits(cache_shape(model.spec(), layer));
  }
}

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

std::vector<std::size_t> cheapest_within(const std::vector<std::vector<double>>& cost,
                                         const std::vector<std::vector<double>>& bits, double budget) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const std::size_t layers = cost.size();
  const auto units_of = [&](std::size_t layer, std::size_t candidate) {
    return static_cast<std::size_t>(std::ceil(bits[layer][candidate] / kBitStep - 1e-9));
  };
  const auto room = static_cast<std::size_t>(std::max(0.0, std::floor(budget / kBitStep + 1e-9)));
  // best[u]: the smallest cost of the layers so far with exactly u units; taken[layer][u]: the last one's choice.
  std::vector<double> best(room + 1, kNever);
  best[0] = 0.0;
  std::vector<std::vector<std::uint16_t>> taken(layers, std::vector<std::uint16_t>(room + 1, 0));
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::vector<double> next(room + 1, kNever);
    for (std::size_t candidate = 0; candidate < cost[layer].size(); ++candidate) {
      const std::size_t units = units_of(layer, candidate);
      for (std::size_t used = 0; used + units <= room; ++used) {
        const double sum = best[used] + cost[layer][candidate];
        if (sum >= next[used + units]) continue;
        next[used + units] = sum;
        taken[layer][used + units] = static_cast<std::uint16_t>(candidate);
      }
    }
    best = std::move(next);
  }
  std::size_t used = static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin());
  if (best[used] == kNever) {
    double least = 0.0;
    for (const std::vector<double>& row : bits) least += *std::min_element(row.begin(), row.end());
    const auto per_layer = static_cast<double>(std::max<std::size_t>(1, layers));
    throw Error(ErrorCode::InvalidArgument, "A budget of " + two_digits(budget / per_layer) +
                                                " bits cannot be met: the smallest candidates need " +
                                                two_digits(std::ceil(100.0 * least / per_layer) / 100.0) +
                                                ". Raise the budget or add a candidate with fewer bits.");
  }
  std::vector<std::size_t> choice(layers);
  for (std::size_t layer = layers; layer-- > 0;) {
    choice[layer] = taken[layer][used];
    used -= units_of(layer, choice[layer]);
  }
  return choice;
}

Setup assembled_setup(const std::vector<Setup>& candidates, const std::vector<std::size_t>& choice) {
  Setup whole{.method = "layers", .params = {}};
  for (std::size_t layer = 0; layer < choice.size(); ++layer) {
    const auto index = static_cast<std::int64_t>(layer);
    if (layer > 0 && choice[layer] == choice[layer - 1]) {
      whole.layers.back().range.last = index;
      continue;
    }
    whole.layers.push_back(candidates[choice[layer]]);
    whole.layers.back().range = {index, index};
  }
  if (whole.layers.size() != 1) return whole;
  Setup plain = whole.layers.front();
  plain.range = {};
  return plain;
}

KvAutoResult choose_kv_setups(std::shared_ptr<const Model> model, const KvAutoRequest& request, const JobContext& job) {
  const at::InferenceMode no_grad;
  check_candidates(request, *model);
  const std::int64_t layers = model->spec().layers;
  EvalRequest twice = request.evaluation;
  twice.windows *= 2;
  std::vector<std::vector<std::int64_t>> windows = cut_windows(*model, twice).windows, check;
  const auto wanted = static_cast<std::size_t>(request.evaluation.windows);
  if (wanted > 0 && windows.size() > wanted) {
    check.assign(windows.begin() + static_cast<std::ptrdiff_t>(wanted), windows.end());
    windows.resize(wanted);
  }

  KvAutoResult result;
  result.model = model->info().name;
  result.budget_bits = request.budget_bits;
  result.window = static_cast<std::int64_t>(windows.front().size());
  result.windows = static_cast<std::int64_t>(windows.size());
  result.checked_on_other_windows = !check.empty();
  if (check.empty()) check = windows;
  result.check_windows = static_cast<std::int64_t>(check.size());

  const std::size_t count = request.candidates.size();
  std::vector<std::vector<double>> bits, cost;
  std::vector<Setup> singles;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::vector<double>& row = bits.emplace_back();
    for (const Setup& candidate : request.candidates) {
      row.push_back(make_kv_method(candidate)->effective_bits(cache_shape(model->spec(), layer), result.window));
      singles.push_back(alone(candidate, layer));
    }
  }
  const double budget = request.budget_bits * static_cast<double>(layers);
  cheapest_within(bits, bits, budget);  // says at once when the budget cannot be met

  const Divergence divergence(model, request.evaluation.kv_mode);
  const double searched = static_cast<double>(singles.size() * windows.size());
  const double share = searched / (searched + static_cast<double>((count + 1) * check.size()));
  const std::vector<double> kl = divergence.of(singles, windows, "Each layer alone", job.part(0.0, share));
  for (std::int64_t layer = 0; layer < layers; ++layer)
    cost.emplace_back(kl.begin() + layer * static_cast<std::ptrdiff_t>(count),
                      kl.begin() + (layer + 1) * static_cast<std::ptrdiff_t>(count));
  result.choice = cheapest_within(cost, bits, budget);

  const Setup assembled = assembled_setup(request.candidates, result.choice);
  std::vector<Setup> whole = request.candidates;
  whole.push_back(assembled);
  const std::vector<double> whole_kl = divergence.of(whole, check, "All layers together", job.part(share, 1.0));
  for (std::size_t i = 0; i < count; ++i) {
    KvAutoCandidate& candidate = result.candidates.emplace_back();
    candidate.setup = line_of(request.candidates[i]);
    std::vector<double> of_layers;
    for (std::size_t layer = 0; layer < bits.size(); ++layer) {
      of_layers.push_back(bits[layer][i]);
      candidate.layer_kl.push_back(cost[layer][i]);
    }
    candidate.bits = mean(of_layers);
    candidate.uniform_kl = whole_kl[i];
    candidate.fits = candidate.bits <= request.budget_bits + kBitStep;
    if (!candidate.fits || (!result.best_uniform.empty() && candidate.uniform_kl >= result.uniform_kl)) continue;
    result.best_uniform = candidate.setup;
    result.uniform_bits = candidate.bits;
    result.uniform_kl = candidate.uniform_kl;
  }
  std::vector<double> chosen_bits;
  for (std::size_t layer = 0; layer < bits.size(); ++layer) {
    chosen_bits.push_back(bits[layer][result.choice[layer]]);
    result.predicted_kl += cost[layer][result.choice[layer]];
  }
  result.setup = line_of(assembled);
  result.bits = mean(chosen_bits);
  result.measured_kl = whole_kl.back();
  result.better = result.best_uniform.empty() || result.measured_kl <= result.uniform_kl;
  return result;
}

}  // namespace qs
