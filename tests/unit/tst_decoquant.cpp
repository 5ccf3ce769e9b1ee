#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <cmath>
#include <limits>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/decoquant.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

Decoquant method(const std::string& setup) { return Decoquant(parse_kv_setup(setup).value().params); }

template <typename Call>
QString message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

/// Channels that follow few hidden directions, as cached keys do.
at::Tensor correlated(std::mt19937_64& generator, std::int64_t kv_heads, std::int64_t tokens, std::int64_t head_dim) {
  const at::Tensor mix = test::random_kv(generator, {6, head_dim}, 8.0);
  return at::matmul(test::random_kv(generator, {kv_heads, tokens, 6}), mix) +
         0.1 * test::random_kv(generator, {kv_heads, tokens, head_dim});
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).norm() / b.to(at::kDouble).norm()).item<double>();
}

at::Tensor rows_of(const at::Tensor& x) { return x.transpose(0, 1).reshape({x.size(1), -1}).contiguous(); }

}  // namespace

class TestDecoquant : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void initTestCase() { at::set_num_threads(1); }

  void anMpoOfAnyLengthIsTheMatrix() {
    std::mt19937_64 generator(1);
    const at::Tensor x = test::random_kv(generator, {24, 60}).to(at::kDouble);
    using Extents = std::vector<std::int64_t>;
    const std::vector<std::pair<Extents, Extents>> cases = {
        {{24}, {60}}, {{24, 1}, {5, 12}}, {{4, 6}, {10, 6}}, {{2, 3, 4}, {5, 4, 3}}, {{2, 2, 3, 2}, {3, 5, 2, 2}}};
    for (const auto& [rows, columns] : cases) {
      const Mpo mpo = mpo_decompose(x, rows, columns);
      QCOMPARE(mpo.factors.size(), rows.size());
      QVERIFY(relative(mpo_contract(mpo), x) < 1e-12);
      std::int64_t before = 1, after = x.numel();
      for (std::size_t k = 0; k + 1 < rows.size(); ++k) {
        before *= rows[k] * columns[k];
        after /= rows[k] * columns[k];
        QCOMPARE(mpo.spectra[k].numel(), std::min(before, after));
        QCOMPARE(mpo.factors[k].size(3), std::min(before, after));
      }
    }
    QVERIFY(message_of([&] { mpo_decompose(x, {24, 2}, {5, 12}); }).contains("MPO"));
  }

  void everyBondCarriesTheRootOfItsSpectrumOnBothSides() {
    std::mt19937_64 generator(2);
    const at::Tensor x = test::random_kv(generator, {12, 16}).to(at::kDouble);
    const Mpo mpo = mpo_decompose(x, {12, 1}, {4, 4});
    const at::Tensor left = mpo.factors[0].reshape({-1, mpo.spectra[0].numel()}),
                     right = mpo.factors[1].reshape({mpo.spectra[0].numel(), -1});
    QVERIFY(test::largest_difference(left.square().sum(0), mpo.spectra[0]) < 1e-10);
    QVERIFY(test::largest_difference(right.square().sum(1), mpo.spectra[0]) < 1e-10);
  }

  void theGramRouteIsTheSingularValueDecomposition() {
    std::mt19937_64 generator(3);
    const at::Tensor m = correlated(generator, 1, 300, 16)[0];
    const TwoFactors closed = two_factors(m);
    const Mpo mpo = mpo_decompose(m, {300, 1}, {1, 16});
    QVERIFY(relative(closed.singular, mpo.spectra[0]) < 1e-9);
    QVERIFY(relative(closed.large.abs(), mpo.factors[0].reshape({300, 16}).abs()) < 1e-5);
    QVERIFY(relative(closed.small.abs(), mpo.factors[1].reshape({16, 16}).abs()) < 1e-5);
    QVERIFY(relative(at::matmul(closed.large.to(at::kDouble), closed.small), m) < 1e-6);
  }

  void tinyAndMissingComponentsAreDropped() {
    std::mt19937_64 generator(4);
    // Rank 3 and 2 rows: the rest is exactly 0, nothing is divided by it.
    for (const std::int64_t rows : {2, 40}) {
      const at::Tensor m = at::matmul(test::random_kv(generator, {rows, 3}), test::random_kv(generator, {3, 16}));
      const TwoFactors factors = two_factors(m);
      QCOMPARE(factors.large.size(1), std::int64_t{16});
      QVERIFY(at::isfinite(factors.large).all().item<bool>());
      const std::int64_t rank = std::min<std::int64_t>(rows, 3);
      QCOMPARE(factors.large.narrow(1, rank, 16 - rank).abs().max().item<float>(), 0.0f);
      QVERIFY(relative(at::matmul(factors.large.to(at::kDouble), factors.small), m) < 1e-6);
    }
    QCOMPARE(two_factors(at::zeros({5, 8})).large.abs().max().item<float>(), 0.0f);
  }

  void moreFactorsAreTheSameMatrixInSmallerTensors() {
    std::mt19937_64 generator(5);
    const at::Tensor m = correlated(generator, 1, 500, 64)[0];
    const TwoFactors factors = two_factors(m);
    const std::vector<std::vector<std::int64_t>> splits = {{64}, {8, 8}, {4, 4, 4}, {2, 32}};
    for (const std::vector<std::int64_t>& widths : splits) {
      const SmallFactor small(split_small_factor(factors, widths), GroupStore::F32);
      QCOMPARE(small.block(), std::int64_t{64});
      QVERIFY(relative(small.matrix(), factors.small) < 1e-5);
      const at::Tensor row = test::random_kv(generator, {128}), query = test::random_kv(generator, {128});
      at::Tensor channels = row.clone(), coordinates = at::empty({128});
      small.from_coordinates(channels.data_ptr<float>(), 128);
      small.to_coordinates(query.data_ptr<float>(), 128, coordinates.data_ptr<float>());
      const double direct = channels.dot(query).item<double>(), moved = row.dot(coordinates).item<double>();
      QVERIFY(std::fabs(direct - moved) < 1e-4 * channels.norm().item<double>() * query.norm().item<double>());
    }
    for (const char* setup : {"decoquant:n2=8,factors=3", "decoquant:n2=4,factors=4", "decoquant:n2=64"}) {
      const Decoquant deco = method(setup);
      const Decoquant::Segment segment = deco.decompose(m.contiguous());
      QCOMPARE(segment.small.bytes(), 2 * deco.small_factor_elements());
    }
  }

  void correlatedChannelsBeatPlainRoundingAndAReportSaysSo() {
    std::mt19937_64 generator(6);
    const at::Tensor x = correlated(generator, 2, 256, 64);
    const Decoquant deco = method("decoquant:bits=4,n2=16");
    const double ours = relative(deco.quantize(x, KvRole::Key, {}).values, x);
    const double plain = relative(
        make_kv_method(parse_kv_setup("rtn:scheme=token_sym,bits=4,g=0").value())->quantize(x, KvRole::Key, {}).values,
        x);
    QVERIFY2(ours < 0.7 * plain, (std::to_string(ours) + " against " + std::to_string(plain)).c_str());
    const QuantizedTensor better = deco.quantize(x, KvRole::Key, {});
    QVERIFY(better.notes.at(0).starts_with("Compared with plain rounding"));
    // Three levels a token are exact for plain rounding to 2 bits.
    const at::Tensor signs = (test::random_kv(generator, {2, 64, 32}) * 2.0).round().clamp(-1.0, 1.0);
    const QuantizedTensor worse = method("decoquant:bits=2").quantize(signs, KvRole::Key, {});
    QVERIFY(worse.notes.at(0).starts_with("Worse than plain rounding"));
    const TensorReport report = report_tensor("key", signs, worse);
    QCOMPARE(report.warnings.at(0), worse.notes.at(0));
  }

  void moreFactorsLowerTheError() {
    std::mt19937_64 generator(7);
    const at::Tensor x = correlated(generator, 1, 512, 64);
    double last = 1e9;
    for (const int factors : {2, 3, 4}) {
      const double error =
          relative(method("decoquant:n2=4,factors=" + std::to_string(factors)).quantize(x, KvRole::Key, {}).values, x);
      QVERIFY2(error < last, std::to_string(error).c_str());
      last = error;
    }
  }

  void packedCacheIsTheReferenceBehindAPrompt_data() {
    QTest::addColumn<QString>("setup");
    for (const char* setup : {"decoquant:flush=64", "decoquant:bits=2,n2=8,flush=64,local_remainder",
                              "decoquant:bits=8,n2=32,flush=64", "decoquant:n2=4,factors=3,flush=64",
                              "decoquant:n2=2,factors=4,flush=64,store=f32", "decoquant:flush=100,store=f32"})
      QTest::newRow(setup) << setup;
  }
  void packedCacheIsTheReferenceBehindAPrompt() {
    QFETCH(QString, setup);
    const Decoquant deco = method(setup.toStdString());
    std::mt19937_64 generator(8);
    for (const std::int64_t prompt : {0, 1, 30, 64, 150}) {
      const CacheShape shape{.heads = 6, .kv_heads = 2, .head_dim = 32};
      const std::int64_t total = prompt + 150;
      const at::Tensor key = correlated(generator, 2, total, 32), value = correlated(generator, 2, total, 32);
      const auto cache = deco.make_cache(shape);
      cache->prefill(key.narrow(1, 0, prompt), value.narrow(1, 0, prompt));
      at::Tensor seen_key = deco.held_in_full_precision(key).clone(),
                 seen_value = deco.held_in_full_precision(value).clone();
      std::int64_t done = 0;
      const auto flush = [&](std::int64_t end) {
        for (const auto& [x, seen] : {std::pair{&key, &seen_key}, std::pair{&value, &seen_value}}) {
          const GroupCodes made =
              deco.quantize_matrix(rows_of(deco.held_in_full_precision(*x).narrow(1, done, end - done)));
          seen->narrow(1, done, end - done).copy_(made.values.view({end - done, 2, 32}).transpose(0, 1));
        }
        done = end;
      };
      if (deco.after_prefill(KvRole::Key, prompt).size() > 0) flush(deco.after_prefill(KvRole::Key, prompt).end);
      QVERIFY2(test::largest_difference(cache->materialize().first, seen_key.narrow(1, 0, prompt)) < 1e-3,
               qPrintable(setup));
      for (std::int64_t token = prompt; token < total; ++token) {
        const at::Tensor query = test::random_kv(generator, {6, 32}) * 0.2;
        const at::Tensor out = cache->append_and_attend(query, key.select(1, token), value.select(1, token));
        const at::Tensor expected =
            test::brute_force_attention(query, seen_key.narrow(1, 0, token + 1), seen_value.narrow(1, 0, token + 1));
        const double size = seen_value.abs().max().item<double>();
        QVERIFY2(test::largest_difference(out, expected) < 2e-5 * size,
                 qPrintable(setup + QString::number(test::largest_difference(out, expected))));
        if (token + 1 - done == deco.flush_len()) flush(token + 1);
        QCOMPARE(cache->quantized(KvRole::Key).size(), done);
      }
      const auto [keys, values] = cache->materialize();
      QVERIFY(test::largest_difference(keys, seen_key) < 1e-3 && test::largest_difference(values, seen_value) < 1e-3);
    }
  }

  void theStreamOfTheReferenceIsDecodingFromTheFirstToken() {
    std::mt19937_64 generator(9);
    const Decoquant deco = method("decoquant:flush=64,bits=2");
    const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 32};
    const at::Tensor key = correlated(generator, 2, 200, 32), value = correlated(generator, 2, 200, 32);
    const auto cache = deco.make_cache(shape);
    for (std::int64_t t = 0; t < 200; ++t) {
      QCOMPARE(cache->quantized(KvRole::Key).end, deco.seen_by_query(KvRole::Key, t).end);
      cache->append_and_attend(at::zeros({2, 32}), key.select(1, t), value.select(1, t));
    }
    const KvPrompt prompt{{}, key, value, shape};
    QVERIFY(test::largest_difference(cache->materialize().first, deco.quantize_stream(prompt, KvRole::Key, {}).values) <
            2e-2);
    const QuantizedTensor stream = deco.quantize_stream(prompt, KvRole::Value, {});
    const at::Tensor quantized = cache->materialize().second.narrow(1, 0, 192);
    QVERIFY(test::largest_difference(quantized, stream.values.narrow(1, 0, 192)) < 1e-3);
    QCOMPARE(stream.full_precision.select(0, 0).select(1, 0).sum().item<std::int64_t>(), std::int64_t{8});
  }

  void allocatedBytesAreTheFormula() {
    std::mt19937_64 generator(10);
    for (const char* setup : {"decoquant", "decoquant:bits=2,n2=32,local_remainder,flush=64",
                              "decoquant:n2=4,factors=3", "decoquant:bits=8,store=f32"}) {
      const Decoquant deco = method(setup);
      const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 64};
      for (const std::int64_t tokens : {1, 65, 300}) {
        const at::Tensor x = correlated(generator, 2, tokens, 64);
        const auto cache = deco.make_cache(shape);
        cache->prefill(x, x);
        QVERIFY2(std::fabs(cache->stats().effective_bits() - deco.effective_bits(shape, tokens)) < 1e-9, setup);
      }
    }
    QVERIFY(std::fabs(method("decoquant").effective_bits({.heads = 16, .kv_heads = 16, .head_dim = 128}, 1024) -
                      4.009765625) < 1e-12);
  }

  void channelByTokenIsForShortComparisons() {
    std::mt19937_64 generator(11);
    const Decoquant deco = method("decoquant:mode=channel_by_token");
    const at::Tensor x = correlated(generator, 4, 32, 64);
    QVERIFY(relative(deco.quantize(x, KvRole::Key, {}).values, x) < 0.1);
    const QString refusal = message_of([&] { deco.quantize(correlated(generator, 4, 33, 64), KvRole::Key, {}); });
    QVERIFY(refusal.contains("at most 32 tokens") && refusal.contains("force=true"));
    const at::Tensor longer = correlated(generator, 1, 90, 64);
    const Decoquant forced = method("decoquant:mode=channel_by_token,force,bits=8");
    QVERIFY(relative(forced.quantize(longer, KvRole::Key, {}).values, longer) < 0.02);
    QVERIFY(!deco.cannot_stream().empty());
    QVERIFY(message_of([&] { deco.make_cache({.heads = 1, .kv_heads = 1, .head_dim = 64}); }).contains("split_hidden"));
  }

  void degenerateInputStaysFinite() {
    for (const char* setup : {"decoquant:flush=64", "decoquant:bits=2,flush=64", "decoquant:n2=4,factors=3,flush=64"}) {
      const Decoquant deco = method(setup);
      for (const double constant : {0.0, -2.5, 1e-6}) {
        for (const std::int64_t tokens : {1, 40, 130}) {
          const auto cache = deco.make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
          const at::Tensor x = at::full({2, tokens, 32}, constant);
          cache->prefill(x, x);
          const at::Tensor out = cache->append_and_attend(at::ones({2, 32}), x.select(1, 0), x.select(1, 0));
          QVERIFY2(at::isfinite(out).all().item<bool>(), setup);
          // Scale and small factor are f16: a rank of one comes back to their precision.
          QVERIFY2(test::largest_difference(out, at::full({2, 32}, constant)) <= 4e-3 * std::fabs(constant) + 1e-7,
                   setup);
        }
      }
    }
  }

  void whatDoesNotFitNamesTheNearestThatDoes() {
    const CacheShape shape{.heads = 8, .kv_heads = 8, .head_dim = 48};
    const QString width = message_of([&] { method("decoquant:n2=32").check_fits(shape); });
    QVERIFY2(width.contains("head_dim = 48") && width.contains("24"), qPrintable(width));
    QVERIFY(message_of([&] { method("decoquant:n1=7").check_fits(shape); }).contains("must be 24"));
    method("decoquant:n1=24").check_fits(shape);
    QVERIFY(message_of([] { method("decoquant:bits=3"); }).contains("2, 4 or 8"));
    at::Tensor bad = at::ones({2, 8, 32});
    bad[1][5][3] = std::numeric_limits<float>::infinity();
    const QString nan = message_of([&] { method("decoquant").quantize(bad, KvRole::Value, {}); });
    QVERIFY(nan.contains("head 1") && nan.contains("token 5") && nan.contains("infinite"));
  }
};

QTEST_APPLESS_MAIN(TestDecoquant)
#include "tst_decoquant.moc"
