#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// Text rules of task scoring, as EleutherAI/lm-evaluation-harness 0.4.2 has them (weights specification section 13):
/// what a model is asked, and what counts as the answer. Pure functions on UTF-8; bytes that are no valid character are
/// taken as U+FFFD.

// Requests

/// A question whose answers are compared by the likelihood of their text (13.2).
struct ChoiceQuestion {
  std::vector<std::string> contexts;       ///< one for all choices, or one a choice
  std::vector<std::string> continuations;  ///< one a choice, or one for all; with the leading space
  std::vector<std::string> choices;        ///< as shown, without the leading space: their lengths normalize
  std::int64_t gold = 0;
};

ChoiceQuestion boolq_question(const std::string& passage, const std::string& question, std::int64_t label);
/// @param labels  "A", "B" ... or "1", "2" ...; one a choice
/// @throws Error BadFormat when no label is the answer key
ChoiceQuestion arc_question(const std::string& question, const std::vector<std::string>& choices,
                            const std::vector<std::string>& labels, const std::string& answer_key);
ChoiceQuestion hellaswag_question(const std::string& activity_label, const std::string& ctx_a, const std::string& ctx_b,
                                  const std::vector<std::string>& endings, std::int64_t label);
ChoiceQuestion piqa_question(const std::string& goal, const std::string& sol1, const std::string& sol2,
                             std::int64_t label);
/// Partial evaluation: each option stands in its own context, and the rest of the sentence is what is scored.
/// @param answer  1 or 2
/// @throws Error BadFormat for a sentence without "_"
ChoiceQuestion winogrande_question(const std::string& sentence, const std::string& option1, const std::string& option2,
                                   std::int64_t answer);
/// Without the description and the shots before it. @param choices  four
ChoiceQuestion mmlu_question(const std::string& question, const std::vector<std::string>& choices, std::int64_t answer);
/// "The following are multiple choice questions (with answers) about abstract algebra.\n\n" of "abstract_algebra".
std::string mmlu_description(std::string subject);

/// HellaSwag's cleaning: stripped, " [title]" becomes ". ", other brackets go, two spaces become one, in a single pass.
std::string clean_hellaswag(std::string_view text);

/// Shots (context + " " + answer) and the question, with an empty line between them (13.3).
std::string few_shot_context(const std::vector<std::string>& shots, const std::string& context);

/// Spaces at the end of the context go to the front of the continuation (13.1).
void move_trailing_spaces(std::string& context, std::string& continuation);

struct TruthfulAnswers {
  std::string question;
  std::vector<std::string> correct, incorrect;  ///< each with a final "."; "I have no comment." among the correct
};
TruthfulAnswers truthfulqa_answers(const std::string& question, const std::vector<std::string>& correct,
                                   const std::vector<std::string>& incorrect);

/// A page of WikiText as running text: number separators, punctuation, brackets, quotes and headings joined.
std::string detokenize_wikitext(std::string_view page);
/// Words of a page as the harness counts them: pieces between runs of white space, an empty one at either end included.
std::int64_t count_words(std::string_view text);

// Answers

/// Scores of one question. The first of equal likelihoods wins.
struct ChoiceScore {
  bool acc = false;        ///< by log-likelihood
  bool acc_norm = false;   ///< by log-likelihood / length in Unicode code points
  bool acc_bytes = false;  ///< by log-likelihood / length in bytes, as the paper has it
};
/// @param log_likelihoods  one a choice
ChoiceScore score_choices(const std::vector<double>& log_likelihoods, const std::vector<std::string>& choices,
                          std::int64_t gold);
std::int64_t length_in_code_points(std::string_view text);

/// TruthfulQA mc2: the share of the true answers in the likelihood of all. @param labels  1: true, 0: false
double truthfulqa_mc2(const std::vector<double>& log_likelihoods, const std::vector<std::int64_t>& labels);

/// Takes an answer out of a response by a regular expression.
struct AnswerFilter {
  std::string pattern;
  std::int64_t select = 0;  ///< which match; negative counts from the last
  std::string fallback = "[invalid]";
  /// The chosen match: its first group that is not empty, or all of it when the pattern has no groups; stripped.
  std::string apply(std::string_view response) const;
};
AnswerFilter gsm8k_strict();    ///< the number behind "####"
AnswerFilter gsm8k_flexible();  ///< the last number
AnswerFilter bbh_answer();      ///< what follows "the answer is ", without the last character of the line

/// Equality after removing patterns from both sides, in order.
struct ExactMatch {
  std::vector<std::string> ignored;  ///< regular expressions
  bool ignore_case = false;
  bool ignore_punctuation = false;  ///< the ASCII marks
  bool matches(std::string_view answer, std::string_view reference) const;
};
ExactMatch gsm8k_match();

/// `text` up to the first of any stop string (13.4).
std::string cut_at_stop(std::string_view text, const std::vector<std::string>& stops);

// Aggregation

double standard_error_of_mean(const std::vector<double>& values);  ///< sample standard deviation / sqrt(n); 0 for one
/// Mean of a group of tasks, weighted by their numbers of documents.
double weighted_mean(const std::vector<double>& values, const std::vector<std::int64_t>& sizes);

}  // namespace qs
