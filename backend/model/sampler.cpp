#include "backend/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

void require(bool fits, const char* option, const char* range, double found) {
  if (fits) return;
  std::string text = std::to_string(found);
  while (text.find('.') != std::string::npos && (text.back() == '0' || text.back() == '.')) {
    const bool point = text.back() == '.';
    text.pop_back();
    if (point) break;
  }
  throw Error(ErrorCode::InvalidArgument,
              std::string("Sampling option '") + option + "' must be " + range + "; it is " + text + ".");
}

bool likelier(const SamplingChoice& a, const SamplingChoice& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

/// logsumexp in double; NaN counts as impossible.
double log_sum_exp(std::span<const float> logits) {
  double highest = kNever;
  for (const float logit : logits)
    if (logit > highest) highest = logit;
  if (!std::isfinite(highest))
    throw Error(ErrorCode::Internal,
                "The model's logits are all NaN or infinite, so no token can be chosen. Check the weight setup.");
  double sum = 0.0;
  for (const float logit : logits)
    if (!std::isnan(logit)) sum += std::exp(static_cast<double>(logit) - highest);
  return highest + std::log(sum);
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  require(std::isfinite(options.temperature) && options.temperature >= 0.0, "temperature", "0 (greedy) or above",
          options.temperature);
  require(options.top_k >= 0, "top_k", "0 (off) or above", options.top_k);
  require(options.top_p > 0.0 && options.top_p <= 1.0, "top_p", "above 0 and at most 1", options.top_p);
  require(options.min_p >= 0.0 && options.min_p <= 1.0, "min_p", "0 to 1", options.min_p);
  require(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0.0, "repetition_penalty",
          "above 0", options.repetition_penalty);
  require(options.max_tokens >= 1, "max_tokens", "1 or above", options.max_tokens);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), generator_(options.seed) {
  check_sampling(options);
}

std::vector<SamplingChoice> Sampler::distribution(std::span<const float> logits,
                                                  std::span<const std::int64_t> history) const {
  std::vector<SamplingChoice> choices(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    choices[i] = {static_cast<std::int64_t>(i), std::isnan(logits[i]) ? kNever : static_cast<double>(logits[i])};
  if (options_.repetition_penalty != 1.0) {
    for (const std::int64_t id : std::set<std::int64_t>(history.begin(), history.end())) {
      if (id < 0 || id >= static_cast<std::int64_t>(choices.size())) continue;
      double& score = choices[static_cast<std::size_t>(id)].probability;
      score = score > 0.0 ? score / options_.repetition_penalty : score * options_.repetition_penalty;
    }
  }
  if (choices.empty()) throw Error(ErrorCode::Internal, "There are no logits to choose a token from.");

  const bool greedy = options_.temperature == 0.0;
  std::size_t kept = choices.size();
  if (greedy)
    kept = 1;
  else if (options_.top_k > 0)
    kept = std::min(kept, static_cast<std::size_t>(options_.top_k));
  std::partial_sort(choices.begin(), choices.begin() + static_cast<std::ptrdiff_t>(kept), choices.end(), likelier);
  choices.resize(kept);
  const double highest = choices.front().probability;
  if (!std::isfinite(highest))
    throw Error(ErrorCode::Internal,
                "The model's logits are all NaN or infinite, so no token can be chosen. Check the weight setup.");
  if (greedy) return {{choices.front().id, 1.0}};

  double sum = 0.0;
  for (SamplingChoice& choice : choices)
    sum += choice.probability = std::exp((choice.probability - highest) / options_.temperature);
  double cumulative = 0.0, rest = 0.0;
  kept = 0;
  for (const SamplingChoice& choice : choices) {
    if (kept > 0 && (choice.probability < options_.min_p || cumulative >= options_.top_p * sum)) break;
    cumulative += choice.probability;
    rest = cumulative;
    ++kept;
  }
  choices.resize(kept);
  for (SamplingChoice& choice : choices) choice.probability /= rest;
  return choices;
}

std::int64_t Sampler::next(std::span<const float> logits, std::span<const std::int64_t> history) {
  const std::vector<SamplingChoice> choices = distribution(logits, history);
  if (options_.temperature == 0.0) return choices.front().id;
  const double draw = static_cast<double>(generator_() >> 11) * 0x1p-53;
  double cumulative = 0.0;
  for (const SamplingChoice& choice : choices) {
    cumulative += choice.probability;
    if (draw < cumulative) return choice.id;
  }
  return choices.back().id;
}

double log_probability(std::span<const float> logits, std::int64_t id) {
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum_exp(logits);
}

std::vector<SamplingChoice> likeliest(std::span<const float> logits, std::size_t count) {
  const double total = log_sum_exp(logits);
  std::vector<SamplingChoice> choices(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    choices[i] = {static_cast<std::int64_t>(i), std::isnan(logits[i]) ? kNever : static_cast<double>(logits[i])};
  count = std::min(count, choices.size());
  std::partial_sort(choices.begin(), choices.begin() + static_cast<std::ptrdiff_t>(count), choices.end(), likelier);
  choices.resize(count);
  for (SamplingChoice& choice : choices) choice.probability = std::exp(choice.probability - total);
  return choices;
}

}  // namespace qs
