#include "backend/evaluation/golden_evaluation.h"

#include <ATen/ATen.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/evaluation/cross_entropy.h"
#include "backend/evaluation/golden_text_rules.h"
#include "backend/evaluation/python_random.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;
using Draws = std::vector<std::int64_t>;

Draws ids_of(const at::Tensor& row) {
  const at::Tensor ids = row.to(at::kLong).contiguous();
  const auto* data = ids.data_ptr<std::int64_t>();
  return Draws(data, data + ids.numel());
}

GoldenOutput run_scores(const GoldenCase& golden) {
  const at::Tensor logits = golden.inputs.at("logits"), ids = golden.inputs.at("ids"),
                   continuation = golden.inputs.at("cont_ids");
  const std::int64_t rows = logits.size(0);
  at::Tensor loss = at::empty({rows}, at::kDouble), likelihood = at::empty({rows}, at::kDouble),
             greedy = at::empty({rows}, at::kByte);
  for (std::int64_t row = 0; row < rows; ++row) {
    loss[row] = score_window(logits[row], {}, ids_of(ids[row])).nll;
    const ContinuationScore score = score_continuation(logits[row], ids_of(continuation[row]));
    likelihood[row] = score.log_likelihood;
    greedy[row] = score.greedy ? 1 : 0;
  }
  GoldenOutput output;
  output.tensors = {{"seq_loss", loss.to(at::kFloat)},
                    {"ppl", loss.mean().exp().view({1}).to(at::kFloat)},
                    {"cont_ll", likelihood.to(at::kFloat)},
                    {"cont_greedy", greedy}};
  return output;
}

Draws randints(std::uint64_t seed, std::int64_t high, std::size_t count) {
  PythonRandom random(seed);
  Draws draws;
  while (draws.size() < count) draws.push_back(random.randint(0, high));
  return draws;
}

GoldenOutput run_random(const GoldenCase& golden) {
  const std::filesystem::path path = golden.folder / golden.entry.at("file").get<std::string>();
  std::ifstream file(path);
  if (!file) throw Error(ErrorCode::NotFound, "'" + path.string() + "' is missing; the manifest names it.");
  const json expected = json::parse(file);
  GoldenOutput output;
  const auto check = [&](const std::string& name, const json& wanted, const json& drawn) {
    const bool equal = wanted == drawn;
    output.checks.push_back({name, "exact", equal, equal ? 0.0 : 1.0});
  };
  const auto samples = [](std::size_t rows, std::int64_t population, std::int64_t count) {
    PythonRandom random(1234);
    std::vector<Draws> drawn;
    while (drawn.size() < rows) drawn.push_back(random.sample(population, count));
    return drawn;
  };
  const auto permutation = [](std::uint32_t seed, std::int64_t count, std::size_t kept) {
    Draws drawn = numpy_permutation(seed, count);
    drawn.resize(kept);
    return drawn;
  };
  for (const auto& [name, wanted] : expected.items()) {
    if (name == "note") continue;
    if (name == "fewshot_random1234_sample5_of_7473")
      check(name, wanted, samples(wanted.size(), 7473, 5));
    else if (name == "sample8_of_16_seed1234")
      check(name, wanted, samples(wanted.size(), 16, 8));
    else if (name == "randint_seed0_0_2461")
      check(name, wanted, randints(0, 2461, wanted.size()));
    else if (name == "randint_seed0_0_356317")
      check(name, wanted, randints(0, 356317, wanted.size()));
    else if (name == "randint_seed7_0_99999")
      check(name, wanted, randints(7, 99999, wanted.size()));
    else if (name == "numpy_default_rng42_permutation_1000_first32")
      check(name, wanted, permutation(42, 1000, wanted.size()));
    else if (name == "numpy_default_rng7_permutation_214670_first16")
      check(name, wanted, permutation(7, 214670, wanted.size()));
    else if (name == "shuffle_20_seed7") {
      PythonRandom random(7);
      Draws items(20);
      for (std::size_t i = 0; i < items.size(); ++i) items[i] = static_cast<std::int64_t>(i);
      random.shuffle(items);
      check(name, wanted, items);
    } else {
      output.checks.push_back({name, "no draw of this name is known", false, 1.0});
    }
  }
  return output;
}

GoldenOutput run_evaluation(const GoldenCase& golden, const JobContext&) {
  if (golden.name == "ppl_and_loglikelihood") return run_scores(golden);
  if (golden.name == "python_numpy_rng") return run_random(golden);
  if (golden.name == "text_rules") return run_golden_text_rules(golden);
  GoldenOutput output;
  output.skipped = "No evaluation rule of this name is known.";
  return output;
}

}  // namespace

std::vector<GoldenRunner> golden_evaluation_runners() { return {{"eval", run_evaluation}}; }

}  // namespace qs
