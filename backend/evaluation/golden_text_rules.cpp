#include "backend/evaluation/golden_text_rules.h"

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "backend/evaluation/text_rules.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;
using Texts = std::vector<std::string>;

/// Compares what the rules give with what the file has.
class Checks {
 public:
  explicit Checks(GoldenOutput& output) : output_(output) {}

  void equal(const std::string& name, const json& expected, const json& found) {
    const bool passed = expected.is_number() && found.is_number() ? close(expected.get<double>(), found.get<double>())
                                                                  : expected == found;
    const std::string rule =
        expected.is_number() ? "rel 1e-6" : "exact: " + expected.dump() + ", found " + found.dump();
    output_.checks.push_back({name, rule, passed, passed ? 0.0 : 1.0});
  }

 private:
  static bool close(double expected, double found) {
    return std::fabs(found - expected) <= 1e-6 * std::max(1e-12, std::fabs(expected));
  }
  GoldenOutput& output_;
};

int as_number(bool value) { return value ? 1 : 0; }

void check_gsm8k(const json& rules, Checks& checks) {
  ExactMatch match{rules.at("regexes_to_ignore").get<Texts>(), rules.at("ignore_case").get<bool>()};
  const std::string gold = rules.at("gold").get<std::string>();
  checks.equal("gsm8k regexes", rules.at("regexes_to_ignore"), gsm8k_match().ignored);
  for (const json& one : rules.at("cases")) {
    const std::string response = one.at("response").get<std::string>(), name = "gsm8k '" + response + "'";
    const std::string strict = gsm8k_strict().apply(response), flexible = gsm8k_flexible().apply(response);
    checks.equal(name + " strict", one.at("strict"), strict);
    checks.equal(name + " flexible", one.at("flexible"), flexible);
    checks.equal(name + " strict_em", one.at("strict_em"), as_number(match.matches(strict, gold)));
    checks.equal(name + " flexible_em", one.at("flexible_em"), as_number(match.matches(flexible, gold)));
  }
}

void check_bbh(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const std::string response = one.at("response").get<std::string>();
    checks.equal("bbh '" + response + "'", one.at("extracted"), bbh_answer().apply(response));
  }
}

void check_hellaswag(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const json& doc = one.at("doc");
    const ChoiceQuestion question =
        hellaswag_question(doc.at("activity_label").get<std::string>(), doc.at("ctx_a").get<std::string>(),
                           doc.at("ctx_b").get<std::string>(), doc.at("endings").get<Texts>(),
                           std::stoll(doc.at("label").get<std::string>()));
    checks.equal("hellaswag query", one.at("query"), question.contexts.front());
    checks.equal("hellaswag choices", one.at("choices"), question.choices);
    checks.equal("hellaswag gold", one.at("gold"), question.gold);
  }
}

void check_winogrande(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const json& doc = one.at("doc");
    const ChoiceQuestion question =
        winogrande_question(doc.at("sentence").get<std::string>(), doc.at("option1").get<std::string>(),
                            doc.at("option2").get<std::string>(), std::stoll(doc.at("answer").get<std::string>()));
    checks.equal("winogrande contexts", one.at("contexts"), question.contexts);
    checks.equal("winogrande continuation", one.at("continuation"), question.continuations.front());
    checks.equal("winogrande gold", one.at("gold"), question.gold);
  }
}

void check_wikitext(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const std::string page = one.at("page").get<std::string>();
    checks.equal("wikitext text", one.at("text"), detokenize_wikitext(page));
    checks.equal("wikitext words", one.at("words"), count_words(page));
    checks.equal("wikitext bytes", one.at("bytes"), page.size());
  }
}

void check_truthfulqa_mc2(const json& cases, Checks& checks) {
  for (const json& one : cases)
    checks.equal(
        "truthfulqa mc2", one.at("acc"),
        truthfulqa_mc2(one.at("lls").get<std::vector<double>>(), one.at("labels").get<std::vector<std::int64_t>>()));
}

void check_truthfulqa_answers(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const json& in = one.at("inp");
    const TruthfulAnswers answers =
        truthfulqa_answers(in.at("q").get<std::string>(), in.at("c").get<Texts>(), in.at("i").get<Texts>());
    checks.equal("truthfulqa question", one.at("out").at("question"), answers.question);
    checks.equal("truthfulqa correct", one.at("out").at("correct_answers"), answers.correct);
    checks.equal("truthfulqa incorrect", one.at("out").at("incorrect_answers"), answers.incorrect);
  }
}

void check_multiple_choice(const json& cases, Checks& checks) {
  for (const json& one : cases) {
    const Texts choices = one.at("choices").get<Texts>();
    const ChoiceScore score =
        score_choices(one.at("lls").get<std::vector<double>>(), choices, one.at("gold").get<std::int64_t>());
    std::vector<std::int64_t> lengths;
    for (const std::string& choice : choices) lengths.push_back(length_in_code_points(choice));
    checks.equal("multiple choice acc", one.at("acc"), as_number(score.acc));
    checks.equal("multiple choice acc_norm", one.at("acc_norm"), as_number(score.acc_norm));
    checks.equal("multiple choice lengths", one.at("lengths"), lengths);
  }
}

void check_group_mean(const json& cases, Checks& checks) {
  for (const json& one : cases)
    checks.equal(
        "group mean", one.at("weighted"),
        weighted_mean(one.at("acc").get<std::vector<double>>(), one.at("sizes").get<std::vector<std::int64_t>>()));
}

void check_standard_error(const json& cases, Checks& checks) {
  for (const json& one : cases)
    checks.equal("standard error", one.at("stderr"),
                 standard_error_of_mean(one.at("values").get<std::vector<double>>()));
}

}  // namespace

GoldenOutput run_golden_text_rules(const GoldenCase& golden) {
  const std::filesystem::path path = golden.folder / golden.entry.at("file").get<std::string>();
  std::ifstream file(path);
  if (!file) throw Error(ErrorCode::NotFound, "'" + path.string() + "' is missing; the manifest names it.");
  const std::map<std::string, std::function<void(const json&, Checks&)>> rules = {
      {"gsm8k", check_gsm8k},
      {"bbh_cot", check_bbh},
      {"hellaswag", check_hellaswag},
      {"winogrande", check_winogrande},
      {"wikitext_detokenize", check_wikitext},
      {"truthfulqa_mc2", check_truthfulqa_mc2},
      {"truthfulqa_gen_answers", check_truthfulqa_answers},
      {"multiple_choice", check_multiple_choice},
      {"group_mean", check_group_mean},
      {"stderr_mean", check_standard_error}};
  GoldenOutput output;
  Checks checks(output);
  const json sections = json::parse(file);
  for (const auto& [name, expected] : sections.items()) {
    const auto rule = rules.find(name);
    if (rule != rules.end())
      rule->second(expected, checks);
    else
      output.checks.push_back({name, "no rule of this name is known", false, 1.0});
  }
  return output;
}

}  // namespace qs
