#include "backend/evaluation/text_rules.h"

#include <algorithm>
#include <cmath>

#include "backend/tokenizer/regex.h"
#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// White space of Python's str: White_Space and the separators U+001C to U+001F.
bool is_space(char32_t c) { return unicode::is_space(c) || (c >= 0x1C && c <= 0x1F); }

/// Pieces of `text` that are all space or have none, in order.
struct Piece {
  std::string_view text;
  bool space = false;
};
std::vector<Piece> pieces_of(std::string_view text) {
  std::vector<Piece> pieces;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t length = std::min(text.size() - begin, utf8::length_of(static_cast<unsigned char>(text[begin])));
    const bool space = is_space(utf8::to_code_points(text.substr(begin, length)).front());
    if (pieces.empty() || pieces.back().space != space) pieces.push_back({text.substr(begin, 0), space});
    Piece& piece = pieces.back();
    piece.text = std::string_view(piece.text.data(), piece.text.size() + length);
    begin += length;
  }
  return pieces;
}

std::string strip(std::string_view text) {
  const std::string valid = utf8::replace_invalid(text);
  const std::vector<Piece> pieces = pieces_of(valid);
  if (pieces.empty()) return {};
  std::size_t begin = 0, end = valid.size();
  if (pieces.front().space) begin = pieces.front().text.size();
  if (pieces.back().space) end -= pieces.back().text.size();
  return begin < end ? valid.substr(begin, end - begin) : std::string();
}

/// Every occurrence from left to right, what was put in is not looked at again.
std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t begin = 0;;) {
    const std::size_t found = text.find(from, begin);
    result.append(text.substr(begin, found - begin));
    if (found == std::string_view::npos) return result;
    result.append(to);
    begin = found + from.size();
  }
}

std::string removed(std::string_view text, const std::string& pattern) {
  return Regex(pattern, "text rule").replace_all(text, "");
}

/// Spaces just inside a pair of marks go. @param inside  what may stand between them, as a class
std::string tightened(std::string_view text, const std::string& open, const std::string& close,
                      const std::string& inside) {
  const Regex pair(open + "\\s*(" + inside + "*?)\\s*" + close, "text rule");
  std::string result;
  std::size_t done = 0;
  pair.for_each_groups(text, [&](const std::vector<std::string_view>& groups) {
    const auto begin = static_cast<std::size_t>(groups[0].data() - text.data());
    result.append(text.substr(done, begin - done));
    result.push_back(groups[0].front());
    result.append(groups[1]);
    result.push_back(groups[0].back());
    done = begin + groups[0].size();
  });
  return result.append(text.substr(done));
}

ChoiceQuestion question_of(std::string context, std::vector<std::string> choices, std::int64_t gold) {
  ChoiceQuestion question{
      .contexts = {std::move(context)}, .continuations = {}, .choices = std::move(choices), .gold = gold};
  for (const std::string& choice : question.choices) question.continuations.push_back(" " + choice);
  return question;
}

std::int64_t first_maximum(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

std::vector<std::string> with_full_stops(const std::vector<std::string>& answers) {
  std::vector<std::string> result;
  for (const std::string& answer : answers) {
    std::string text = strip(answer);
    if (text.empty()) continue;
    if (text.back() != '.') text.push_back('.');
    result.push_back(std::move(text));
  }
  return result;
}

}  // namespace

ChoiceQuestion boolq_question(const std::string& passage, const std::string& question, std::int64_t label) {
  return question_of(passage + "\nQuestion: " + question + "?\nAnswer:", {"no", "yes"}, label);
}

ChoiceQuestion arc_question(const std::string& question, const std::vector<std::string>& choices,
                            const std::vector<std::string>& labels, const std::string& answer_key) {
  const auto found = std::find(labels.begin(), labels.end(), answer_key);
  if (found == labels.end() || labels.size() != choices.size()) {
    throw Error(ErrorCode::BadFormat, "ARC question '" + question + "': the answer key '" + answer_key +
                                          "' is none of its " + std::to_string(labels.size()) + " labels for " +
                                          std::to_string(choices.size()) + " choices.");
  }
  return question_of("Question: " + question + "\nAnswer:", choices, found - labels.begin());
}

std::string clean_hellaswag(std::string_view text) {
  const std::string titled = replaced(strip(text), " [title]", ". ");
  return replaced(removed(titled, "\\[.*?\\]"), "  ", " ");
}

ChoiceQuestion hellaswag_question(const std::string& activity_label, const std::string& ctx_a, const std::string& ctx_b,
                                  const std::vector<std::string>& endings, std::int64_t label) {
  const std::string context = ctx_a + " " + unicode::capitalize(utf8::replace_invalid(ctx_b));
  std::vector<std::string> choices;
  for (const std::string& ending : endings) choices.push_back(clean_hellaswag(ending));
  return question_of(clean_hellaswag(activity_label + ": " + context), std::move(choices), label);
}

ChoiceQuestion piqa_question(const std::string& goal, const std::string& sol1, const std::string& sol2,
                             std::int64_t label) {
  return question_of("Question: " + goal + "\nAnswer:", {sol1, sol2}, label);
}

ChoiceQuestion winogrande_question(const std::string& sentence, const std::string& option1, const std::string& option2,
                                   std::int64_t answer) {
  const std::size_t gap = sentence.find('_');
  if (gap == std::string::npos) {
    throw Error(ErrorCode::BadFormat,
                "WinoGrande sentence '" + sentence + "' has no '_' where the options are to be put.");
  }
  const std::string before = sentence.substr(0, gap);
  return {.contexts = {before + option1, before + option2},
          .continuations = {" " + strip(std::string_view(sentence).substr(gap + 1))},
          .choices = {option1, option2},
          .gold = answer - 1};
}

ChoiceQuestion mmlu_question(const std::string& question, const std::vector<std::string>& choices,
                             std::int64_t answer) {
  if (choices.size() != 4) {
    throw Error(ErrorCode::BadFormat,
                "MMLU question '" + question + "' must have 4 choices, found " + std::to_string(choices.size()) + ".");
  }
  std::string context = strip(question);
  for (std::size_t i = 0; i < 4; ++i) context += std::string("\n") + "ABCD"[i] + ". " + choices[i];
  return question_of(context + "\nAnswer:", {"A", "B", "C", "D"}, answer);
}

std::string mmlu_description(std::string subject) {
  std::replace(subject.begin(), subject.end(), '_', ' ');
  return "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
}

std::string few_shot_context(const std::vector<std::string>& shots, const std::string& context) {
  std::string text;
  for (const std::string& shot : shots) text += shot + "\n\n";
  return text + context;
}

void move_trailing_spaces(std::string& context, std::string& continuation) {
  const std::string valid = utf8::replace_invalid(context);
  const std::vector<Piece> pieces = pieces_of(valid);
  if (pieces.empty() || !pieces.back().space) return;
  const std::string spaces(pieces.back().text);
  context = valid.substr(0, valid.size() - spaces.size());
  continuation = spaces + continuation;
}

TruthfulAnswers truthfulqa_answers(const std::string& question, const std::vector<std::string>& correct,
                                   const std::vector<std::string>& incorrect) {
  const std::string no_comment = "I have no comment.";
  TruthfulAnswers answers{strip(question), with_full_stops(correct), with_full_stops(incorrect)};
  if (std::find(answers.correct.begin(), answers.correct.end(), no_comment) == answers.correct.end())
    answers.correct.push_back(no_comment);
  return answers;
}

std::string detokenize_wikitext(std::string_view page) {
  std::string text = utf8::replace_invalid(page);
  const auto replace = [&text](std::string_view from, std::string_view to) { text = replaced(text, from, to); };
  replace("s '", "s'");
  // The harness has this pattern between slashes, which are taken as characters: it changes "/' 7/" alone.
  text = Regex("/' [0-9]/", "text rule").replace_all(text, "/'[0-9]/");
  for (const char* mark : {"-", ",", "."}) replace(std::string(" @") + mark + "@ ", mark);
  for (const char* mark : {":", ";", ".", "!", "?", ","})
    replace(std::string(" ") + mark + " ", std::string(mark) + " ");
  text = tightened(text, "\\(", "\\)", "[^\\)]");
  text = tightened(text, "\\[", "\\]", "[^\\]]");
  text = tightened(text, "\\{", "\\}", "[^}]");
  text = tightened(text, "\"", "\"", "[^\"]");
  text = tightened(text, "'", "'", "[^']");
  replace("= = = =", "====");
  replace("= = =", "===");
  replace("= =", "==");
  replace(" \u00B0 ", "\u00B0");
  replace(" \n", "\n");
  replace("\n ", "\n");
  replace(" N ", " 1 ");
  replace(" 's", "'s");
  return text;
}

std::int64_t count_words(std::string_view text) {
  const std::string valid = utf8::replace_invalid(text);
  const std::vector<Piece> pieces = pieces_of(valid);
  return 1 + std::count_if(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.space; });
}

std::int64_t length_in_code_points(std::string_view text) {
  return static_cast<std::int64_t>(utf8::to_code_points(utf8::replace_invalid(text)).size());
}

ChoiceScore score_choices(const std::vector<double>& log_likelihoods, const std::vector<std::string>& choices,
                          std::int64_t gold) {
  std::vector<double> by_characters = log_likelihoods, by_bytes = log_likelihoods;
  for (std::size_t i = 0; i < log_likelihoods.size(); ++i) {
    by_characters[i] /= static_cast<double>(length_in_code_points(choices[i]));
    by_bytes[i] /= static_cast<double>(choices[i].size());
  }
  return {first_maximum(log_likelihoods) == gold, first_maximum(by_characters) == gold,
          first_maximum(by_bytes) == gold};
}

double truthfulqa_mc2(const std::vector<double>& log_likelihoods, const std::vector<std::int64_t>& labels) {
  if (log_likelihoods.empty()) return 0.0;
  const double largest = *std::max_element(log_likelihoods.begin(), log_likelihoods.end());
  double of_true = 0.0, of_all = 0.0;
  for (std::size_t i = 0; i < log_likelihoods.size(); ++i) {
    const double likelihood = std::exp(log_likelihoods[i] - largest);
    of_all += likelihood;
    if (labels[i] != 0) of_true += likelihood;
  }
  return of_true / of_all;
}

std::string AnswerFilter::apply(std::string_view response) const {
  const std::string text = utf8::replace_invalid(response);
  std::vector<std::string> matches;
  Regex(pattern, "answer filter").for_each_groups(text, [&](const std::vector<std::string_view>& groups) {
    std::string_view chosen = groups.size() == 1 ? groups[0] : std::string_view();
    for (std::size_t i = 1; i < groups.size() && chosen.empty(); ++i) chosen = groups[i];
    matches.emplace_back(chosen);
  });
  const auto count = static_cast<std::int64_t>(matches.size());
  const std::int64_t index = select < 0 ? count + select : select;
  return index >= 0 && index < count ? strip(matches[static_cast<std::size_t>(index)]) : fallback;
}

AnswerFilter gsm8k_strict() { return {.pattern = "#### (\\-?[0-9\\.\\,]+)"}; }

AnswerFilter gsm8k_flexible() { return {.pattern = "(-?[$0-9.,]{2,})|(-?[0-9]+)", .select = -1}; }

AnswerFilter bbh_answer() { return {.pattern = "(?<=the answer is )(.*)(?=.)"}; }

bool ExactMatch::matches(std::string_view answer, std::string_view reference) const {
  const auto normal = [this](std::string_view raw) {
    std::string text = utf8::replace_invalid(raw);
    for (const std::string& pattern : ignored) text = removed(text, pattern);
    if (ignore_case) text = unicode::to_lower(text);
    if (ignore_punctuation) {
      text.erase(std::remove_if(text.begin(), text.end(),
                                [](char c) { return kPunctuation.find(c) != std::string_view::npos; }),
                 text.end());
    }
    return text;
  };
  return normal(answer) == normal(reference);
}

ExactMatch gsm8k_match() { return {.ignored = {",", "\\$", "(?s).*#### ", "\\.$"}, .ignore_case = true}; }

std::string cut_at_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t end = text.size();
  for (const std::string& stop : stops) {
    if (!stop.empty()) end = std::min(end, text.find(stop));
  }
  return std::string(text.substr(0, end));
}

double standard_error_of_mean(const std::vector<double>& values) {
  if (values.size() < 2) return 0.0;
  const double count = static_cast<double>(values.size());
  double mean = 0.0, square = 0.0;
  for (const double value : values) mean += value / count;
  for (const double value : values) square += (value - mean) * (value - mean);
  return std::sqrt(square / (count - 1.0) / count);
}

double weighted_mean(const std::vector<double>& values, const std::vector<std::int64_t>& sizes) {
  double sum = 0.0, documents = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i] * static_cast<double>(sizes[i]);
    documents += static_cast<double>(sizes[i]);
  }
  return documents > 0.0 ? sum / documents : 0.0;
}

}  // namespace qs
