#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <cmath>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/kv_cache_base.h"
#include "backend/model/decoder.h"
#include "kernels/dispatch.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

/// Attention of one query per head in double precision under the rules of `shape`. @param key  rotated
at::Tensor brute_force(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const CacheShape& shape) {
  const at::Tensor q = query.to(at::kDouble), k = key.to(at::kDouble), v = value.to(at::kDouble);
  const std::int64_t tokens = k.size(1), per_kv_head = q.size(0) / k.size(0);
  const double scale = shape.score_scale > 0 ? shape.score_scale : 1.0 / std::sqrt(static_cast<double>(q.size(1)));
  at::Tensor out = at::empty_like(q);
  for (std::int64_t head = 0; head < q.size(0); ++head) {
    at::Tensor scores = k[head / per_kv_head].mv(q[head]) * scale;
    if (shape.score_softcap > 0) scores = at::tanh(scores / shape.score_softcap) * shape.score_softcap;
    if (shape.sliding_window > 0 && tokens > shape.sliding_window)
      scores.narrow(0, 0, tokens - shape.sliding_window).fill_(-INFINITY);
    out[head] = v[head / per_kv_head].t().mv(at::softmax(scores, 0));
  }
  return out;
}

/// Keys before rotation in f32, optionally dropping every third token.
class UnrotatedCache final : public StoreCache {
 public:
  UnrotatedCache(const CacheShape& shape, bool drops)
      : StoreCache(shape, at::kFloat, KeyDomain::PreRope),
        drops_(drops),
        keys_(shape.kv_heads, shape.head_dim, at::kFloat),
        values_(shape.kv_heads, shape.head_dim, at::kFloat) {}
  TokenRange quantized(KvRole) const override { return {}; }
  const std::vector<std::int64_t>& kept() const { return positions_; }

 protected:
  Stores stores(KvRole role) const override { return {role == KvRole::Key ? &keys_ : &values_}; }
  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    for (std::int64_t t = 0; t < tokens; ++t) add(key + t * width(), value + t * width());
  }
  void before_attention(const float* key, const float* value) override { add(key, value); }
  const std::int64_t* original_positions() const override { return drops_ ? positions_.data() : nullptr; }

 private:
  void add(const float* key, const float* value) {
    const std::int64_t position = next_++;
    if (drops_ && position % 3 == 1) return;
    keys_.append(key, 1);
    values_.append(value, 1);
    positions_.push_back(position);
  }

  bool drops_;
  std::int64_t next_ = 0;
  std::vector<std::int64_t> positions_;
  FloatRows keys_, values_;
};

}  // namespace

class TestKvAttentionRules : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  /// Every kind of store under every mix of scale, soft cap and window against the definition.
  void scaleSoftCapAndWindowHoldForAllStores() {
    std::mt19937_64 generator(11);
    const char* const setups[] = {
        "full",
        "kivi:bits=2,g=32,r=64",
        "kivi:k=3,v=8,g=16,r=32",
        "rtn:bits=4,g=32",
        "rtn:scheme=token_sym,bits=3",
        "rtn:scheme=channel_asym,bits=1,g=16",
        "rtn:bits=4,g=32,store=f32",
    };
    for (const char* text : setups) {
      for (const auto& [scale, cap, window] :
           {std::tuple{0.0, 0.0, 0}, std::tuple{0.3, 0.0, 0}, std::tuple{0.0, 2.0, 0}, std::tuple{0.0, 0.0, 1},
            std::tuple{0.0, 0.0, 77}, std::tuple{0.11, 5.0, 150}, std::tuple{0.0, 0.0, 5000}}) {
        const CacheShape shape{.heads = 6,
                               .kv_heads = 2,
                               .head_dim = 32,
                               .score_scale = scale,
                               .score_softcap = cap,
                               .sliding_window = window};
        const bool full = std::string(text) == "full";
        const auto method = full ? nullptr : make_kv_method(parse_kv_setup(text).value());
        const auto cache = full ? make_full_precision_cache(shape, at::kFloat) : method->make_cache(shape);
        const at::Tensor key = test::random_kv(generator, {2, 300, 32}, 3.0);
        const at::Tensor value = test::random_kv(generator, {2, 300, 32});
        cache->prefill(key.narrow(1, 0, 290), value.narrow(1, 0, 290));
        for (std::int64_t token = 290; token < 300; ++token) {
          const at::Tensor query = test::random_kv(generator, {6, 32}) * 2;
          const auto before = cache->materialize();
          const at::Tensor out = cache->append_and_attend(query, key.select(1, token), value.select(1, token));
          if (token + 1 < 300) continue;
          auto [seen_key, seen_value] = cache->materialize();
          if (std::string(text).starts_with(
                  "kivi")) {  // attends before it flushes: the new token joined what was there
            const auto with_new = [&](const at::Tensor& seen, const at::Tensor& x) {
              return at::cat({seen, x.narrow(1, token, 1).to(at::kHalf).to(at::kFloat)}, 1);
            };
            seen_key = with_new(before.first, key);
            seen_value = with_new(before.second, value);
          }
          const double error = test::largest_difference(out, brute_force(query, seen_key, seen_value, shape));
          QVERIFY2(error < 2e-5,
                   (std::string(text) + " scale " + std::to_string(scale) + " cap " + std::to_string(cap) + " window " +
                    std::to_string(window) + ": " + std::to_string(error))
                       .c_str());
        }
      }
    }
  }

  /// Keys held before rotation give the attention of rotated keys, at their original positions also when tokens are
  /// gone.
  void unrotatedKeysAreRotatedAtTheirOriginalPositions() {
    std::mt19937_64 generator(5);
    for (const bool drops : {false, true}) {
      for (const std::int64_t head_dim : {8, 20, 64}) {
        for (const std::int64_t window : {0, 100}) {
          const CacheShape shape{
              .heads = 4, .kv_heads = 2, .head_dim = head_dim, .rope = {.theta = 500.0}, .sliding_window = window};
          UnrotatedCache cache(shape, drops);
          const at::Tensor key = test::random_kv(generator, {2, 700, head_dim});
          const at::Tensor value = test::random_kv(generator, {2, 700, head_dim});
          const at::Tensor query = test::random_kv(generator, {4, head_dim});
          cache.prefill(key.narrow(1, 0, 600), value.narrow(1, 0, 600));
          at::Tensor out;
          for (std::int64_t token = 600; token < 700; ++token)
            out = cache.append_and_attend(query, key.select(1, token), value.select(1, token));
          const std::vector<std::int64_t> kept = cache.kept();
          std::vector<std::int64_t> seen;
          for (const std::int64_t position : kept)
            if (window == 0 || position > kept.back() - window) seen.push_back(position);
          const at::Tensor index = at::tensor(seen, at::kLong);
          CacheShape all = shape;
          all.sliding_window = 0;
          const at::Tensor expected = brute_force(query, apply_rope(key, 0, shape.rope).index_select(1, index),
                                                  value.index_select(1, index), all);
          QVERIFY(test::largest_difference(out, expected) < 2e-5);
          QVERIFY(cache.materialize().first.equal(key.index_select(1, at::tensor(kept, at::kLong))));
        }
      }
    }
  }

  void aTableOfRotationsIsSharedAndGrows() {
    const RopeSpec rope{.theta = 777.0};
    const auto table = RotationTable::shared(rope, 16);
    QVERIFY(table == RotationTable::shared(rope, 16));
    QVERIFY(table != RotationTable::shared(rope, 32));
    QVERIFY(table != RotationTable::shared({.theta = 778.0}, 16));
    const auto few = table->rows(10);
    const std::int64_t before = few->positions;
    const auto more = table->rows(before + 1);
    QVERIFY(more->positions > before && few->positions == before);
    for (std::int64_t i = 0; i < before * 16; ++i) QCOMPARE(few->values[i], more->values[i]);
    const double angle = 9.0 * std::pow(777.0, -2.0 * 3 / 16);
    QVERIFY(std::fabs(more->values[9 * 16 + 3] - std::cos(angle)) < 1e-6);
    QVERIFY(std::fabs(more->values[9 * 16 + 8 + 3] - std::sin(angle)) < 1e-6);
  }

  void kernelSetsRotateAlike() {
    std::mt19937_64 generator(3);
    for (const std::int64_t half : {1, 4, 8, 16, 24, 64}) {
      const std::int64_t stride = 2 * half + 8;
      const at::Tensor table = test::random_kv(generator, {40, 2, half});
      const at::Tensor rows = test::random_kv(generator, {9, stride});
      const std::int64_t positions[] = {0, 3, 4, 9, 17, 18, 19, 30, 39};
      at::Tensor expected;
      for (const auto id : {kernels::SetName::Scalar, kernels::SetName::Avx2, kernels::SetName::Avx512}) {
        const kernels::KernelSet* const set = kernels::kernel_set(id);
        if (set == nullptr) continue;
        for (const bool listed : {false, true}) {
          at::Tensor turned = rows.clone();
          set->rotate_rows({.rows = turned.data_ptr<float>(),
                            .count = 9,
                            .row_stride = stride,
                            .half = half,
                            .table = table.data_ptr<float>(),
                            .positions = listed ? positions : nullptr,
                            .first_position = listed ? 0 : 21});
          at::Tensor scalar = rows.clone();
          kernels::rotate_rows_scalar({.rows = scalar.data_ptr<float>(),
                                       .count = 9,
                                       .row_stride = stride,
                                       .half = half,
                                       .table = table.data_ptr<float>(),
                                       .positions = listed ? positions : nullptr,
                                       .first_position = listed ? 0 : 21});
          QVERIFY(turned.equal(scalar));
          QVERIFY(turned.narrow(1, 2 * half, 8).equal(rows.narrow(1, 2 * half, 8)));
        }
      }
    }
  }
};

QTEST_GUILESS_MAIN(TestKvAttentionRules)
#include "tst_kv_attention_rules.moc"
