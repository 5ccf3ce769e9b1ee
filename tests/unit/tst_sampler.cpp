#include <QtTest>
#include <cmath>
#include <map>

#include "backend/model/sampler.h"
#include "backend/types/error.h"

namespace {

using Ids = std::vector<std::int64_t>;

/// Logits of given probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

qs::SamplingOptions warm() {
  qs::SamplingOptions options;
  options.temperature = 1.0;
  return options;
}

}  // namespace

class TestSampler : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void temperatureZeroTakesTheLikeliestAndTheLowerIdOfTwo() {
    qs::Sampler sampler({});
    const std::vector<float> logits = {0.5f, 2.0f, 2.0f, -1.0f};
    for (int i = 0; i < 5; ++i) QCOMPARE(sampler.next(logits, {}), 1);
  }

  void temperatureSharpensTheDistribution() {
    qs::SamplingOptions options = warm();
    options.temperature = 0.5;
    const auto choices = qs::Sampler(options).distribution(logits_of({0.6, 0.3, 0.1}), {});
    const double sum = 0.36 + 0.09 + 0.01;
    QVERIFY(std::abs(choices[0].probability - 0.36 / sum) < 1e-6);
    QVERIFY(std::abs(choices[2].probability - 0.01 / sum) < 1e-6);
  }

  void topKKeepsTheKLikeliest() {
    qs::SamplingOptions options = warm();
    options.top_k = 2;
    const auto choices = qs::Sampler(options).distribution(logits_of({0.1, 0.5, 0.1, 0.3}), {});
    QCOMPARE(choices.size(), std::size_t{2});
    QCOMPARE(choices[0].id, 1);
    QCOMPARE(choices[1].id, 3);
    QVERIFY(std::abs(choices[0].probability - 0.625) < 1e-6);
  }

  void topPKeepsTheFewestThatReachIt() {
    qs::SamplingOptions options = warm();
    options.top_p = 0.75;
    const auto choices = qs::Sampler(options).distribution(logits_of({0.5, 0.3, 0.15, 0.05}), {});
    QCOMPARE(choices.size(), std::size_t{2});
    options.top_p = 0.85;
    QCOMPARE(qs::Sampler(options).distribution(logits_of({0.5, 0.3, 0.15, 0.05}), {}).size(), std::size_t{3});
    options.top_p = 0.01;
    QCOMPARE(qs::Sampler(options).distribution(logits_of({0.5, 0.3, 0.15, 0.05}), {}).size(), std::size_t{1});
  }

  void minPIsRelativeToTheLikeliest() {
    qs::SamplingOptions options = warm();
    options.min_p = 0.5;
    const auto choices = qs::Sampler(options).distribution(logits_of({0.5, 0.3, 0.15, 0.05}), {});
    QCOMPARE(choices.size(), std::size_t{2});
  }

  void repetitionPenaltyLowersBothSigns() {
    qs::SamplingOptions options;
    options.repetition_penalty = 2.0;
    const qs::Sampler sampler(options);
    QCOMPARE(sampler.distribution(std::vector<float>{3.0f, 2.0f}, Ids{0}).front().id, 1);
    QCOMPARE(sampler.distribution(std::vector<float>{-1.0f, -1.5f}, Ids{0, 0, 0}).front().id, 1);
    QCOMPARE(sampler.distribution(std::vector<float>{-1.0f, -2.5f}, Ids{0, 0, 0}).front().id, 0);
  }

  void equalSeedsDrawEqualIdsAndOtherSeedsDoNot() {
    const std::vector<float> logits(64, 0.0f);
    const auto draw = [&](std::uint64_t seed) {
      qs::SamplingOptions options = warm();
      options.seed = seed;
      qs::Sampler sampler(options);
      Ids ids;
      for (int i = 0; i < 50; ++i) ids.push_back(sampler.next(logits, {}));
      return ids;
    };
    QCOMPARE(draw(11), draw(11));
    QVERIFY(draw(11) != draw(12));
    // mt19937_64 is defined by the C++ standard: its 10,000th number from the default seed is a published constant.
    std::mt19937_64 generator;
    generator.discard(9999);
    QCOMPARE(generator(), 9981545732273789042ull);
  }

  void drawsFollowTheDistribution() {
    qs::SamplingOptions options = warm();
    options.seed = 5;
    qs::Sampler sampler(options);
    const std::vector<float> logits = logits_of({0.7, 0.2, 0.1});
    std::map<std::int64_t, int> counts;
    for (int i = 0; i < 20000; ++i) ++counts[sampler.next(logits, {})];
    QVERIFY(std::abs(counts[0] / 20000.0 - 0.7) < 0.02);
    QVERIFY(std::abs(counts[2] / 20000.0 - 0.1) < 0.02);
  }

  void likeliestAndLogProbabilityAreOfThePlainSoftmax() {
    const std::vector<float> logits = logits_of({0.1, 0.6, 0.3});
    const auto top = qs::likeliest(logits, 5);
    QCOMPARE(top.size(), std::size_t{3});
    QCOMPARE(top[0].id, 1);
    QVERIFY(std::abs(top[0].probability - 0.6) < 1e-6);
    QVERIFY(std::abs(qs::log_probability(logits, 2) - std::log(0.3)) < 1e-6);
  }

  void optionsOutOfRangeAreNamed_data() {
    QTest::addColumn<QString>("option");
    for (const char* option : {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens"})
      QTest::newRow(option) << option;
  }
  void optionsOutOfRangeAreNamed() {
    QFETCH(QString, option);
    qs::SamplingOptions options;
    if (option == "temperature") options.temperature = -1;
    if (option == "top_k") options.top_k = -1;
    if (option == "top_p") options.top_p = 0;
    if (option == "min_p") options.min_p = 1.5;
    if (option == "repetition_penalty") options.repetition_penalty = 0;
    if (option == "max_tokens") options.max_tokens = 0;
    try {
      qs::check_sampling(options);
      QFAIL("accepted");
    } catch (const qs::Error& e) {
      QCOMPARE(e.code(), qs::ErrorCode::InvalidArgument);
      QVERIFY2(QString(e.what()).contains(option), e.what());
    }
  }

  void logitsWithoutAFiniteValueAreAnError() {
    const std::vector<float> logits(4, std::nanf(""));
    QVERIFY_EXCEPTION_THROWN(qs::Sampler({}).next(logits, {}), qs::Error);
  }
};

QTEST_GUILESS_MAIN(TestSampler)
#include "tst_sampler.moc"
