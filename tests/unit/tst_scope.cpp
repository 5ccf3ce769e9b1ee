#include <ATen/ATen.h>

#include <QtTest>
#include <algorithm>
#include <numeric>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/scope.h"
#include "backend/methods/scope_cache.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

using Positions = std::vector<std::int64_t>;

Scope scope(const std::string& params) { return Scope(parse_kv_setup("scope:store=f32," + params)->params); }

/// The decode strategies from their definition: positions held by one KV head, kept as a plain list.
struct Reference {
  std::string strategy;
  std::int64_t prefix = 0, heavy = 0, recent = 0, interval = 1, step = 0, skipped = 0;
  Positions held;

  /// Attention of a step over `held` and the new token, query heads averaged; then what the strategy drops.
  void decode(const at::Tensor& query, const at::Tensor& key, std::int64_t position) {
    held.push_back(position);
    const auto length = static_cast<std::int64_t>(held.size());
    const std::int64_t grown = recent + step++ / interval;
    const bool pool_full = length >= prefix + heavy + recent;
    std::int64_t from = prefix, best = heavy;
    if (strategy == "none") return;
    if (strategy == "slide" || strategy == "h2o" || strategy == "streaming") {
      if (!pool_full) return;
      if (strategy == "h2o") from = 0, best = prefix + heavy;
      if (strategy == "streaming") from = prefix + heavy, best = 0;
    } else {
      if (length < prefix + grown) return;
      if (strategy == "discontinuous" && skipped < interval) {
        ++skipped;
        return;
      }
      skipped = 0;
      best = grown - recent;
    }
    const at::Tensor rows = key.index_select(0, at::tensor(held, at::kLong)).to(at::kDouble);
    const at::Tensor scores =
        at::softmax(at::mm(query.to(at::kDouble), rows.t()) / std::sqrt(double(key.size(1))), 1).mean(0);
    Positions eligible;
    for (std::int64_t slot = from; slot < length - recent; ++slot) eligible.push_back(slot);
    std::stable_sort(eligible.begin(), eligible.end(), [&](std::int64_t a, std::int64_t b) {
      return scores[a].item<double>() > scores[b].item<double>();
    });
    if (static_cast<std::int64_t>(eligible.size()) > best) eligible.resize(static_cast<std::size_t>(best));
    Positions kept;
    for (std::int64_t slot = 0; slot < length; ++slot) {
      if (slot < from || slot >= length - recent || std::count(eligible.begin(), eligible.end(), slot))
        kept.push_back(held[static_cast<std::size_t>(slot)]);
    }
    held = kept;
  }
};

Positions row_of(const at::Tensor& kept, std::int64_t head) {
  const at::Tensor row = kept[head].contiguous();
  return {row.data_ptr<std::int64_t>(), row.data_ptr<std::int64_t>() + row.numel()};
}

struct Run {
  at::Tensor query, key, value;  // [heads | kv_heads, tokens, head_dim]
  std::int64_t prompt = 0;
  CacheShape shape;
  std::int64_t tokens() const { return key.size(1); }

  void start(KvCache& cache) const {
    cache.observe_prompt(query.narrow(1, 0, prompt));
    cache.prefill(key.narrow(1, 0, prompt), value.narrow(1, 0, prompt));
  }
  at::Tensor step(KvCache& cache, std::int64_t token) const {
    return cache.append_and_attend(query.select(1, token).contiguous(), key.select(1, token).contiguous(),
                                   value.select(1, token).contiguous());
  }
};

Run random_run(std::mt19937_64& generator, const CacheShape& shape, std::int64_t prompt, std::int64_t steps) {
  Run run;
  run.shape = shape;
  run.prompt = prompt;
  run.query = test::random_kv(generator, {shape.heads, prompt + steps, shape.head_dim});
  run.key = test::random_kv(generator, {shape.kv_heads, prompt + steps, shape.head_dim}, 3.0);
  run.value = test::random_kv(generator, {shape.kv_heads, prompt + steps, shape.head_dim});
  return run;
}

/// Attention of the newest query over the tokens that each KV head holds.
at::Tensor attention_over(const Run& run, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& kept,
                          std::int64_t token) {
  const std::int64_t group = run.shape.heads / run.shape.kv_heads;
  std::vector<at::Tensor> rows;
  for (std::int64_t head = 0; head < run.shape.kv_heads; ++head) {
    const at::Tensor chosen = kept.dim() == 2 ? kept[head] : kept;
    rows.push_back(test::brute_force_attention(run.query.select(1, token).narrow(0, head * group, group),
                                               keys[head].index_select(0, chosen).unsqueeze(0),
                                               values[head].index_select(0, chosen).unsqueeze(0)));
  }
  return at::cat(rows, 0);
}

std::string error_of(const std::string& setup) {
  try {
    parse_kv_setup(setup);
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

}  // namespace

class TestScope : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyStrategyDropsWhatItsDefinitionDrops_data() {
    QTest::addColumn<QString>("strategy");
    for (const char* strategy : {"none", "slide", "adaptive", "discontinuous", "h2o", "streaming"})
      QTest::newRow(strategy) << strategy;
  }
  void everyStrategyDropsWhatItsDefinitionDrops() {
    QFETCH(QString, strategy);
    std::mt19937_64 generator(11);
    for (int round = 0; round < 6; ++round) {
      const std::int64_t kv_heads = 1 + round % 3, group = 1 + round % 2, prompt = round % 2 ? 30 : 7;
      const Run run =
          random_run(generator, {.heads = kv_heads * group, .kv_heads = kv_heads, .head_dim = 16}, prompt, 60);
      const bool p_eff = round >= 4;
      const Scope method =
          scope("prefill=streaming,prompt=16,w=4,window=20,recent=8,max_out=44,strategy=" + strategy.toStdString() +
                (p_eff ? ",p_eff=true" : ""));
      QCOMPARE(method.options().interval, std::int64_t{3});
      const auto cache = method.make_scope_cache(run.shape);
      run.start(*cache);
      Positions start(static_cast<std::size_t>(std::min<std::int64_t>(prompt, 16)));
      std::iota(start.begin(), start.end(), 0);
      for (std::int64_t i = 0; prompt >= 16 && i < 4; ++i) start[static_cast<std::size_t>(12 + i)] = prompt - 4 + i;
      std::vector<Reference> heads(static_cast<std::size_t>(kv_heads));
      for (Reference& head : heads) {
        head = {strategy.toStdString(), p_eff ? std::int64_t(start.size()) : 16, 12, 8, 3};
        head.held = start;
      }
      for (std::int64_t token = prompt; token < run.tokens(); ++token) {
        const at::Tensor before = cache->kept_positions();
        const at::Tensor seen = at::cat({before, at::full({kv_heads, 1}, token, at::kLong)}, 1);
        const at::Tensor out = run.step(*cache, token);
        QVERIFY(test::largest_difference(out, attention_over(run, run.key, run.value, seen, token)) < 1e-4);
        for (std::int64_t head = 0; head < kv_heads; ++head) {
          Reference& reference = heads[static_cast<std::size_t>(head)];
          reference.decode(run.query.select(1, token).narrow(0, head * group, group), run.key[head], token);
          QCOMPARE(row_of(cache->kept_positions(), head), reference.held);
        }
        QCOMPARE(cache->positions(), token + 1);
      }
      const auto [keys, values] = cache->materialize();
      const at::Tensor kept = cache->kept_positions();
      for (std::int64_t head = 0; head < kv_heads; ++head) {
        QVERIFY(at::equal(keys[head], run.key[head].index_select(0, kept[head])));
        QVERIFY(at::equal(values[head], run.value[head].index_select(0, kept[head])));
      }
    }
  }

  void promptsAreCutByTheirScores_data() {
    QTest::addColumn<QString>("params");
    for (const char* params : {"prefill=h2o", "prefill=h2o,h2o_mask=tail_block", "prefill=h2o,gqa=max",
                               "prefill=snapkv,kernel=1", "prefill=snapkv,pooling=avg,kernel=5",
                               "prefill=snapkv,gqa=max", "prefill=snapkv,gqa=sum", "prefill=pyramidkv"})
      QTest::newRow(params) << params;
  }
  void promptsAreCutByTheirScores() {
    QFETCH(QString, params);
    std::mt19937_64 generator(5);
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 16, .layer = 1, .layers = 3};
    const Run run = random_run(generator, shape, 60, 0);
    const Scope method = scope("prompt=20,w=4," + params.toStdString());
    const auto cache = method.make_scope_cache(shape);
    run.start(*cache);
    const bool h2o = params.contains("h2o"), tail = params.contains("tail_block"), max = params.contains("gqa=max");
    // Pyramid: smallest 16 / 20 = 0, largest 32, step 32 / 3 = 10; layer 1 keeps 22 and the window of 4.
    const std::int64_t wanted = params.contains("pyramid") ? 22 : 16;
    const int kernel = h2o ? 1 : params.contains("kernel=1") ? 1 : params.contains("avg") ? 5 : 7;
    QCOMPARE(cache->tokens(), wanted + 4);
    for (std::int64_t head = 0; head < 2; ++head) {
      std::vector<double> score(56, 0.0);
      for (std::int64_t q = 2 * head; q < 2 * head + 2; ++q) {
        std::vector<double> received(56, 0.0);
        for (std::int64_t row = h2o ? 0 : 56; row < 60; ++row) {
          at::Tensor logits = run.key[head].to(at::kDouble).mv(run.query[q][row].to(at::kDouble)) / 4.0;
          if (!tail || row >= 56) logits.narrow(0, row + 1, 59 - row).fill_(-1e300);
          const at::Tensor weights = at::softmax(logits, 0);
          for (std::int64_t j = 0; j < 56; ++j) received[static_cast<std::size_t>(j)] += weights[j].item<double>();
        }
        for (int j = 0; j < 56; ++j) {
          double pooled = 0.0;
          for (int k = std::max(0, j - kernel / 2); k <= std::min(55, j + kernel / 2); ++k) {
            const double value = received[static_cast<std::size_t>(k)];
            pooled = params.contains("avg") ? pooled + value / kernel : std::max(pooled, value);
          }
          double& total = score[static_cast<std::size_t>(j)];
          total = max ? std::max(total, pooled) : total + pooled;
        }
      }
      Positions order(56);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
        return score[static_cast<std::size_t>(a)] > score[static_cast<std::size_t>(b)];
      });
      order.resize(static_cast<std::size_t>(wanted));
      std::sort(order.begin(), order.end());
      for (std::int64_t j = 56; j < 60; ++j) order.push_back(j);
      QCOMPARE(row_of(cache->kept_positions(), head), order);
    }
  }

  void pyramidBudgetsFallFromLayerToLayer() {
    const SelectionOptions options{.prefill = PromptSelector::PyramidKv, .prompt = 108, .observation = 8};
    const auto kept = [&](std::int64_t tokens, std::int64_t layer) {
      return kept_prompt_tokens(options, tokens, {.layer = layer, .layers = 4});
    };
    QCOMPARE(kept(1000, 0), std::int64_t{195 + 8});           // 2 * 100 - 100 / 20
    QCOMPARE(kept(1000, 3), std::int64_t{195 - 3 * 47 + 8});  // steps of (195 - 5) / 4
    QCOMPARE(kept(200, 0), std::int64_t{192 + 8});            // no more than the prompt has
    QCOMPARE(kept(199, 0), std::int64_t{108});                // short of twice the budget: the plain one
    QCOMPARE(kept(107, 2), std::int64_t{107});
    QCOMPARE(best_indices(std::vector<float>{1, 2, 2, 2, 0}.data(), 5, 2), (Positions{1, 2}));
  }

  void nothingEvictedIsTheFullCache() {
    std::mt19937_64 generator(3);
    const Run run = random_run(generator, {.heads = 4, .kv_heads = 2, .head_dim = 32}, 50, 40);
    const auto full = make_full_precision_cache(run.shape, at::kHalf);
    const auto cache = make_kv_method(*parse_kv_setup("scope:prompt=64,window=32,recent=16"))->make_cache(run.shape);
    run.start(*full);
    run.start(*cache);
    for (std::int64_t token = 50; token < 90; ++token)
      QVERIFY(test::largest_difference(run.step(*cache, token), run.step(*full, token)) < 1e-6);
    QVERIFY(at::equal(cache->materialize().first, full->materialize().first));
    QCOMPARE(cache->stats().bytes() - 4 * 2 * 90, full->stats().bytes());
  }

  void behindKiviItIsTheKiviCacheUnderAMask_data() {
    QTest::addColumn<QString>("strategy");
    for (const char* strategy : {"slide", "adaptive", "discontinuous", "h2o", "streaming"})
      QTest::newRow(strategy) << strategy;
  }
  void behindKiviItIsTheKiviCacheUnderAMask() {
    QFETCH(QString, strategy);
    std::mt19937_64 generator(9);
    const Run run = random_run(generator, {.heads = 4, .kv_heads = 2, .head_dim = 32}, 40, 260);
    const std::string kivi = "kivi:k=2,v=2,g=16,r=32";
    const auto masked = make_kv_method(*parse_kv_setup(kivi))->make_cache(run.shape);
    const auto method = make_kv_method(*parse_kv_setup(
        kivi + "+scope:prompt=24,prefill=allkv,window=48,recent=24,max_out=168,reclaim=blocks,strategy=" +
        strategy.toStdString()));
    const auto cache = method->make_cache(run.shape);
    const auto& selecting = dynamic_cast<const ScopeCache&>(*cache);
    run.start(*masked);
    run.start(*cache);
    for (std::int64_t token = 40; token < run.tokens(); ++token) {
      const at::Tensor before = selecting.kept_positions();
      const at::Tensor seen = at::cat({before, at::full({2, 1}, token, at::kLong)}, 1);
      // The newest token is seen before the flush of its step: what KIVI shows then, with the token as it came.
      auto [keys, values] = masked->materialize();
      const auto append = [&](const at::Tensor& x, const at::Tensor& all) {
        return at::cat({x, all.select(1, token).unsqueeze(1).to(at::kHalf).to(at::kFloat)}, 1);
      };
      const at::Tensor out = run.step(*cache, token);
      const at::Tensor expected = attention_over(run, append(keys, run.key), append(values, run.value), seen, token);
      QVERIFY2(test::largest_difference(out, expected) < 2e-4, std::to_string(token).c_str());
      run.step(*masked, token);
      const auto [masked_keys, masked_values] = masked->materialize();
      const auto [held_keys, held_values] = cache->materialize();
      const at::Tensor kept = selecting.kept_positions();
      for (std::int64_t head = 0; head < 2; ++head) {
        QVERIFY(at::equal(held_keys[head], masked_keys[head].index_select(0, kept[head])));
        QVERIFY(at::equal(held_values[head], masked_values[head].index_select(0, kept[head])));
      }
    }
    const CacheStats stats = cache->stats();
    QCOMPARE(stats.tokens + stats.tokens_evicted, run.tokens());
    QCOMPARE(stats.requantized_tokens, std::int64_t{0});
    QVERIFY(stats.bytes() <= masked->stats().bytes() + 4 * 2 * run.tokens());
    if (strategy == "streaming") QVERIFY(stats.tokens_dead < 64);  // whole blocks die and leave
  }

  void compactionBoundsTheDeadAndCountsWhatItQuantizesAnew() {
    std::mt19937_64 generator(21);
    const Run run = random_run(generator, {.heads = 2, .kv_heads = 2, .head_dim = 32}, 40, 600);
    const std::string line = "kivi:k=4,v=4,g=16,r=32+scope:prompt=24,prefill=allkv,window=96,recent=32";
    const auto blocks = make_kv_method(*parse_kv_setup(line + ",reclaim=blocks"))->make_cache(run.shape);
    const auto compact = make_kv_method(*parse_kv_setup(line))->make_cache(run.shape);
    run.start(*blocks);
    run.start(*compact);
    for (std::int64_t token = 40; token < run.tokens(); ++token) {
      run.step(*blocks, token);
      run.step(*compact, token);
      const CacheStats stats = compact->stats();
      QCOMPARE(stats.tokens, blocks->stats().tokens);
      // No two neighbouring blocks of 16 hold 16 dead tokens; the two newest blocks' values may not be packed yet.
      QVERIFY(stats.tokens_dead <= stats.tokens + 64);
      QCOMPARE(stats.bytes_live() + stats.bytes_dead, stats.bytes());
    }
    const CacheStats stats = compact->stats();
    QVERIFY(stats.requantized_tokens > 0);
    QVERIFY(stats.bytes() < blocks->stats().bytes());
    QVERIFY(stats.bytes_dead > 0 && stats.bytes_dead < stats.bytes());
    // Values are never quantized anew: each is what KIVI made of its token.
    const auto kivi = make_kv_method(*parse_kv_setup("kivi:k=4,v=4,g=16,r=32"));
    const at::Tensor expected = as_cached(*kivi, run.value, KvRole::Value, {});
    const at::Tensor kept = dynamic_cast<const ScopeCache&>(*compact).kept_positions();
    const auto [keys, values] = compact->materialize();
    for (std::int64_t head = 0; head < 2; ++head) {
      QVERIFY(at::equal(values[head], expected[head].index_select(0, kept[head])));
      const at::Tensor original = run.key[head].index_select(0, kept[head]);
      QVERIFY((keys[head] - original).norm().item<double>() < 0.3 * original.norm().item<double>());
    }
  }

  void effectiveBitsOfTheFormulaAreThoseOfTheAllocations() {
    std::mt19937_64 generator(2);
    for (const char* line : {"scope:prompt=64", "scope:prompt=64,prefill=pyramidkv", "scope:store=f32,prefill=allkv",
                             "kivi:g=16,r=32+scope:prompt=64,window=48,recent=32"}) {
      for (const std::int64_t tokens : {10, 64, 200}) {
        const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32, .layer = 2, .layers = 4};
        const Run run = random_run(generator, shape, tokens, 0);
        const auto method = make_kv_method(*parse_kv_setup(line));
        const auto cache = method->make_cache(shape);
        run.start(*cache);
        QVERIFY2(std::abs(cache->stats().effective_bits() - method->effective_bits(shape, tokens)) < 1e-9, line);
        QCOMPARE(cache->stats().bytes_if_f16, tokens * 2 * 32 * 2 * 2);
      }
    }
  }

  void cachesKeepCountersOfTheirOwn() {
    std::mt19937_64 generator(31);
    const CacheShape shape{.heads = 2, .kv_heads = 1, .head_dim = 16};
    const Scope method = scope("strategy=discontinuous,prompt=16,w=4,window=20,recent=8,max_out=44");
    const Run first = random_run(generator, shape, 30, 50), second = random_run(generator, shape, 9, 50);
    const auto alone = [&](const Run& run) {
      const auto cache = method.make_scope_cache(shape);
      run.start(*cache);
      for (std::int64_t token = run.prompt; token < run.tokens(); ++token) run.step(*cache, token);
      return cache->kept_positions();
    };
    const auto a = method.make_scope_cache(shape), b = method.make_scope_cache(shape);
    first.start(*a);
    second.start(*b);
    for (std::int64_t step = 0; step < 50; ++step) {
      first.step(*a, 30 + step);
      second.step(*b, 9 + step);
    }
    QVERIFY(at::equal(a->kept_positions(), alone(first)));
    QVERIFY(at::equal(b->kept_positions(), alone(second)));
    DecodeSelector selector(method.options());
    std::vector<std::vector<int>> evictions(2);
    for (std::vector<int>& found : evictions) {
      selector.begin(16);
      for (int step = 0; step < 40; ++step)
        if (selector.step(17 + step)) found.push_back(step);
    }
    QVERIFY(!evictions[0].empty());
    QCOMPARE(evictions[0], evictions[1]);
  }

  void slidingLayersForgetByPosition() {
    std::mt19937_64 generator(4);
    Run run = random_run(generator, {.heads = 2, .kv_heads = 1, .head_dim = 16}, 20, 40);
    run.shape.sliding_window = 12;
    const auto cache = scope("prefill=allkv,strategy=slide,window=10,recent=4").make_scope_cache(run.shape);
    run.start(*cache);
    for (std::int64_t token = 20; token < 60; ++token) {
      Positions seen;
      for (const std::int64_t position : row_of(cache->kept_positions(), 0))
        if (position > token - 12) seen.push_back(position);
      seen.push_back(token);
      const at::Tensor out = run.step(*cache, token);
      QVERIFY(test::largest_difference(
                  out, attention_over(run, run.key, run.value, at::tensor(seen, at::kLong), token)) < 1e-4);
    }
  }

  void wrongSetupsSayWhatIsWrong() {
    const auto says = [](const std::string& setup, const std::string& expected) {
      const std::string message = error_of(setup);
      QVERIFY2(message.find(expected) != std::string::npos, message.c_str());
    };
    says("scope:window=256", "the nearest is 257");
    says("scope:kernel=4", "the nearest is 5");
    says("scope:prompt=8", "the nearest is 9");
    says("kivi+scope", "the nearest is 256");
    says("kivi:g=64,r=128+scope:recent=200,window=512", "the nearest is 256");
    says("rtn+scope", "cannot follow 'rtn'");
    says("scope+kivi", "'kivi' cannot follow 'scope'");
    says("kivi+scope:strategy=sideways", "slide");
  }

  void aPromptWithoutQueriesIsRefusedWhereTheyDecide() {
    const CacheShape shape{.heads = 2, .kv_heads = 1, .head_dim = 16};
    std::mt19937_64 generator(4);
    const Run run = random_run(generator, shape, 40, 0);
    QVERIFY_EXCEPTION_THROWN(scope("prompt=20").make_cache(shape)->prefill(run.key, run.value), Error);
    scope("prompt=20,prefill=streaming").make_cache(shape)->prefill(run.key, run.value);
    scope("prompt=50").make_cache(shape)->prefill(run.key, run.value);
  }
};

QTEST_APPLESS_MAIN(TestScope)
#include "tst_scope.moc"
