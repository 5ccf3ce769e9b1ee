#include "backend/evaluation/kv_auto.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/evaluation/cross_entropy.h"
#include "backend/evaluation/kv_calibration.h"
#include "backend/evaluation/setup_bits.h"
#include "backend/evaluation/windows.h"
#include "backend/formats/json_file.h"
#include "backend/formats/safe_write.h"
#include "backend/formats/sha256.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kBitStep = 1.0 / 1024.0;

std::string line_of(const Setup& setup) { return format_setup(setup, kv_method_infos()); }

std::shared_ptr<const Variant> variant_with(const std::shared_ptr<const Model>& model,
                                            const std::optional<Setup>& setup, const KvArtifact* artifact) {
  return make_variant(model, std::nullopt, setup, nullptr, WeightExecution::Simulated, {}, artifact);
}

/// Divergences that were measured once, in a file that is written whole while the search goes on.
class Measurements {
 public:
  Measurements(const std::filesystem::path& folder, const Model& model) {
    if (folder.empty()) return;
    std::error_code failure;
    std::filesystem::create_directories(folder, failure);
    path_ = folder / ("kv-auto-" + sha256_hex(model.info().fingerprint).substr(0, 24) + ".json");
    if (!std::filesystem::exists(path_, failure)) return;
    try {
      const nlohmann::json file = parse_json_file(path_);
      for (const auto& [key, value] : file.items()) {
        if (value.is_number()) values_[key] = value.get<double>();
      }
    } catch (const Error&) {
      values_.clear();  // measured again
    }
  }
  std::optional<double> find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? std::nullopt : std::optional<double>(found->second);
  }
  void add(const std::string& key, double value) {
    if (path_.empty() || !std::isfinite(value)) return;
    values_[key] = value;
    new_.insert(key);
    changed_ = true;
    if (std::chrono::steady_clock::now() - written_ > std::chrono::seconds(2)) write();
  }
  bool is_new(const std::string& key) const { return new_.count(key) > 0; }  ///< of this search
  /// What cannot be written is measured again by the next search.
  void write() {
    if (!changed_) return;
    try {
      write_file_safely(path_, nlohmann::json(values_).dump());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::Io) throw;
    }
    changed_ = false;
    written_ = std::chrono::steady_clock::now();
  }

 private:
  std::filesystem::path path_;
  std::map<std::string, double> values_;
  std::set<std::string> new_;
  bool changed_ = false;
  std::chrono::steady_clock::time_point written_ = std::chrono::steady_clock::now();
};

/// Mean divergence over windows, whose full-precision logits are made one at a time.
class Divergence {
 public:
  Divergence(std::shared_ptr<const Model> model, const KvArtifact* artifact, KvMode mode, Measurements& measurements)
      : model_(std::move(model)), artifact_(artifact), mode_(mode), measurements_(measurements) {
    reference_ = variant_with(model_, std::nullopt, nullptr);
  }

  /// @return mean KL of each setup
  std::vector<double> of(const std::vector<Setup>& setups, const std::vector<std::vector<std::int64_t>>& windows,
                         std::string_view step, const JobContext& job) {
    try {
      return measure(setups, windows, step, job);
    } catch (...) {
      measurements_.write();
      throw;
    }
  }

  std::int64_t measured() const { return measured_; }
  std::int64_t remembered() const { return remembered_; }

 private:
  std::vector<double> measure(const std::vector<Setup>& setups, const std::vector<std::vector<std::int64_t>>& windows,
                              std::string_view step, const JobContext& job) {
    std::vector<double> sums(setups.size(), 0.0);
    const auto total = static_cast<std::int64_t>(windows.size() * setups.size());
    std::int64_t done = 0;
    for (const std::vector<std::int64_t>& ids : windows) {
      at::Tensor expected;
      const std::string place = place_of(ids);
      for (std::size_t i = 0; i < setups.size(); ++i, ++done) {
        job.checkpoint(done, total, step);
        const bool calibrated = needs_kv_calibration(setups[i]);
        const std::string key = sha256_hex(place + line_of(setups[i]) + (calibrated ? calibration_key() : ""));
        if (const std::optional<double> known = measurements_.find(key)) {
          sums[i] += *known;
          if (!measurements_.is_new(key)) ++remembered_;
          continue;
        }
        if (!expected.defined()) expected = window_logits(*reference_, ids, mode_, job.quiet());
        const auto variant = variant_with(model_, setups[i], calibrated ? artifact_ : nullptr);
        const double kl = score_window(window_logits(*variant, ids, mode_, job.quiet()), expected, ids).kl;
        sums[i] += kl;
        ++measured_;
        measurements_.add(key, kl);
      }
    }
    job.checkpoint(total, total, step);
    measurements_.write();
    for (double& sum : sums) sum /= static_cast<double>(windows.size());
    return sums;
  }

  /// Everything but the setup that changes the divergence on these tokens.
  std::string place_of(const std::vector<std::int64_t>& ids) const {
    std::string place = QUANTOSCOPE_VERSION "\n" + model_->info().fingerprint + "\n" + model_->options().dtype + "\n" +
                        model_->options().device + "\n" + kv_mode_id(mode_) + "\n";
    for (const std::int64_t id : ids) place += std::to_string(id) + " ";
    return place + "\n";
  }
  std::string calibration_key() const {
    return "\n" + artifact_->setup + "\n" + artifact_->source_sha256 + "\n" + std::to_string(artifact_->seed) + "\n" +
           std::to_string(artifact_->tokens);
  }

  std::shared_ptr<const Model> model_;
  const KvArtifact* artifact_;
  std::shared_ptr<const Variant> reference_;
  KvMode mode_;
  Measurements& measurements_;
  std::int64_t measured_ = 0, remembered_ = 0;
};

/// Only one layer under `setup`.
Setup alone(const Setup& setup, std::int64_t layer) {
  Setup entry = setup;
  entry.range = {layer, layer};
  Setup whole{.method = "layers", .params = {}};
  whole.layers = {entry, Setup{.method = "none", .params = {}}};
  return whole;
}

/// The candidates as plans of the model, and the calibration that some of them share.
struct Candidates {
  std::optional<KvArtifact> artifact;
  std::vector<std::shared_ptr<const KvPlan>> plans;
};

Candidates prepared(const std::shared_ptr<const Model>& model, const KvAutoRequest& request, const JobContext& job) {
  if (request.candidates.empty())
    throw Error(ErrorCode::InvalidArgument, "A search needs at least one candidate setup.");
  const ArchitectureSpec& spec = model->spec();
  Candidates result;
  std::string calibrated_line;
  for (const Setup& candidate : request.candidates) {
    if (!candidate.layers.empty())
      throw Error(ErrorCode::InvalidArgument, "A candidate must be a setup of one layer, not a per-layer setup.");
    for (std::int64_t layer = 0; layer < spec.layers; ++layer)
      make_kv_method(candidate)->check_fits(cache_shape(spec, layer));
    const bool calibrated = needs_kv_calibration(candidate);
    if (calibrated && !result.artifact) {
      const EvalText& text = request.calibration.text.empty() ? request.evaluation.text : request.calibration;
      result.artifact = request.folder.empty()
                            ? calibrate_kv(*model, candidate, {.text = text}, job)
                            : remembered_kv_calibration(*model, candidate, {.text = text}, request.folder, job);
      calibrated_line = line_of(candidate);
    }
    try {
      result.plans.push_back(make_kv_plan(candidate, spec.layers, calibrated ? &*result.artifact : nullptr));
    } catch (const Error& error) {
      if (!calibrated || line_of(candidate) == calibrated_line) throw;
      throw Error(ErrorCode::InvalidArgument,
                  "The candidates '" + calibrated_line + "' and '" + line_of(candidate) +
                      "' need different calibrations, and a setup holds one. Keep one of them.",
                  error.what());
    }
  }
  return result;
}

/// A candidate whose window covers all that is measured would look perfect.
void check_quantizes(const KvPlan& plan, const std::string& line, std::int64_t window, KvMode mode) {
  if (line == "none" || plan.depends_on_attention()) return;
  for (const KvRole role : {KvRole::Key, KvRole::Value}) {
    const KvMethod& method = plan.layer(0);
    const TokenRange seen =
        mode == KvMode::Streaming ? method.seen_by_query(role, window - 1) : method.after_prefill(role, window);
    if (seen.size() > 0) return;
  }
  throw Error(ErrorCode::InvalidArgument, "In windows of " + std::to_string(window) + " tokens '" + line +
                                              "' still holds every token in full precision, so that its loss cannot "
                                              "be measured. Use longer windows or leave it out.");
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
    throw Error(ErrorCode::InvalidArgument, "A budget of " + bits_text(budget / per_layer) +
                                                " bits cannot be met: the smallest candidates need " +
                                                bits_text(std::ceil(100.0 * least / per_layer) / 100.0) +
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

double bits_of_bytes_a_token(const ArchitectureSpec& spec, double bytes) {
  return 8.0 * bytes / static_cast<double>(bits_shape(spec, 1).cached_elements_per_token());
}

KvAutoResult choose_kv_setups(std::shared_ptr<const Model> model, const KvAutoRequest& request,
                              const JobContext& all_work) {
  // Calibrations may need gradients, so they come before inference mode.
  const Candidates candidates = prepared(model, request, all_work.part(0.0, 0.1));
  const JobContext job = candidates.artifact ? all_work.part(0.1, 1.0) : all_work;
  const at::InferenceMode no_grad;
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

  result.budget_tokens = request.budget_tokens > 0 ? request.budget_tokens : result.window;
  result.elements_a_token = bits_shape(model->spec(), 1).cached_elements_per_token();
  if (candidates.artifact) result.calibration = candidates.artifact->source;

  const std::size_t count = request.candidates.size();
  for (std::size_t i = 0; i < count; ++i)
    check_quantizes(*candidates.plans[i], line_of(request.candidates[i]), result.window, request.evaluation.kv_mode);
  std::vector<std::vector<double>> bits, cost;
  std::vector<Setup> singles;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::vector<double>& row = bits.emplace_back();
    for (std::size_t i = 0; i < count; ++i) {
      const CacheShape shape = cache_shape(model->spec(), layer);
      row.push_back(candidates.plans[i]->layer(layer).effective_bits(shape, result.budget_tokens));
      singles.push_back(alone(request.candidates[i], layer));
    }
  }
  const double budget = request.budget_bits * static_cast<double>(layers);
  cheapest_within(bits, bits, budget);  // says at once when the budget cannot be met

  Measurements measurements(request.folder, *model);
  Divergence divergence(model, candidates.artifact ? &*candidates.artifact : nullptr, request.evaluation.kv_mode,
                        measurements);
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
  result.measured = divergence.measured();
  result.remembered = divergence.remembered();
  result.better = result.best_uniform.empty() || result.measured_kl <= result.uniform_kl;
  return result;
}

}  // namespace qs
