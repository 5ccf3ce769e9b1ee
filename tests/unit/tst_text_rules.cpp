#include <QTest>
#include <cmath>

#include "backend/evaluation/text_rules.h"
#include "backend/types/error.h"

using namespace qs;

/// Rules beyond those of the golden case eval/text_rules.
class TestTextRules : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void contextsFollowTheirTemplates() {
    const ChoiceQuestion boolq = boolq_question("Cats purr.", "do cats purr", 1);
    QCOMPARE(boolq.contexts, std::vector<std::string>{"Cats purr.\nQuestion: do cats purr?\nAnswer:"});
    QCOMPARE(boolq.continuations, (std::vector<std::string>{" no", " yes"}));
    QCOMPARE(boolq.gold, std::int64_t{1});
    QCOMPARE(piqa_question("Open a jar", "twist", "hit", 0).contexts.front(),
             std::string("Question: Open a jar\nAnswer:"));
    QCOMPARE(mmlu_question(" 1 + 1? ", {"1", "2", "3", "4"}, 1).contexts.front(),
             std::string("1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"));
    QCOMPARE(mmlu_description("abstract_algebra"),
             std::string("The following are multiple choice questions (with answers) about abstract algebra.\n\n"));
  }

  void answerKeysMayBeDigits() {
    QCOMPARE(arc_question("Why?", {"a", "b", "c"}, {"1", "2", "3"}, "3").gold, std::int64_t{2});
    QCOMPARE(arc_question("Why?", {"a", "b"}, {"A", "B"}, "A").gold, std::int64_t{0});
    QVERIFY_EXCEPTION_THROWN(arc_question("Why?", {"a", "b"}, {"A", "B"}, "2"), Error);
  }

  void aSentenceWithoutAGapIsRefused() {
    QVERIFY_EXCEPTION_THROWN(winogrande_question("No gap here.", "a", "b", 1), Error);
  }

  void shotsAreSeparatedByEmptyLines() {
    QCOMPARE(few_shot_context({"Q a", "Q b"}, "Q c"), std::string("Q a\n\nQ b\n\nQ c"));
    QCOMPARE(few_shot_context({}, "Q c"), std::string("Q c"));
  }

  void trailingSpacesMoveToTheContinuation() {
    std::string context = "The answer: \n", continuation = "yes";
    move_trailing_spaces(context, continuation);
    QCOMPARE(context, std::string("The answer:"));
    QCOMPARE(continuation, std::string(" \nyes"));
    move_trailing_spaces(context, continuation);
    QCOMPARE(continuation, std::string(" \nyes"));
  }

  void capitalizingKnowsMoreThanAscii() {
    QCOMPARE(hellaswag_question("Ski", "Up.", "ÉLAN vital", {"x"}, 0).contexts.front(),
             std::string("Ski: Up. Élan vital"));
  }

  void theFirstOfEqualLikelihoodsWins() {
    QVERIFY(score_choices({-1.0, -1.0}, {"a", "b"}, 0).acc);
    QVERIFY(!score_choices({-1.0, -1.0}, {"a", "b"}, 1).acc);
  }

  void charactersAndBytesNormalizeDifferently() {
    // Two characters in six bytes against three characters in three.
    const ChoiceScore score = score_choices({-3.0, -3.6}, {"日本", "abc"}, 1);
    QVERIFY(!score.acc);
    QVERIFY(score.acc_norm);    // -1.5 against -1.2
    QVERIFY(!score.acc_bytes);  // -0.5 against -1.2
  }

  void filtersChooseMatches() {
    const AnswerFilter second{.pattern = "[0-9]+", .select = 1};
    QCOMPARE(second.apply("1 22 333"), std::string("22"));
    QCOMPARE(second.apply("1"), std::string("[invalid]"));
    const AnswerFilter last{.pattern = "[0-9]+", .select = -1, .fallback = ""};
    QCOMPARE(last.apply("1 22 333"), std::string("333"));
    QCOMPARE(last.apply("none"), std::string());
  }

  void brokenBytesAreNoObstacle() {
    QCOMPARE(gsm8k_strict().apply("\xFF #### 7"), std::string("7"));
    QCOMPARE(length_in_code_points("a\xFF"), std::int64_t{2});
  }

  void punctuationMayBeIgnored() {
    const ExactMatch match{.ignore_case = true, .ignore_punctuation = true};
    QVERIFY(match.matches("Yes, it is.", "yes it is"));
    QVERIFY(!match.matches("Yes, it is.", "yes it was"));
  }

  void theFirstStopOfAnyCuts() {
    QCOMPARE(cut_at_stop("72.\nQuestion: next</s>", {"</s>", "Question:"}), std::string("72.\n"));
    QCOMPARE(cut_at_stop("72", {"</s>", ""}), std::string("72"));
  }

  void likelihoodsOfAnySizeHaveAShare() {
    QVERIFY(std::abs(truthfulqa_mc2({-2000.0, -2000.0, -2000.0}, {1, 0, 0}) - 1.0 / 3.0) < 1e-12);
  }

  void errorsOfTheMean() {
    QCOMPARE(standard_error_of_mean({5.0}), 0.0);
    QVERIFY(std::abs(standard_error_of_mean({0.0, 1.0}) - 0.5) < 1e-12);
  }
};

QTEST_GUILESS_MAIN(TestTextRules)
#include "tst_text_rules.moc"
