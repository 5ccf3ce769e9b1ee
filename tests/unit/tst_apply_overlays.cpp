#include <ATen/ATen.h>

#include <QtTest>
#include <cmath>
#include <random>
#include <set>

#include "backend/evaluation/apply.h"
#include "backend/method_registry.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kTokens = 160, kDim = 64, kChannels = kKvHeads * kDim;

const CacheShape kShape{.heads = kHeads, .kv_heads = kKvHeads, .head_dim = kDim};

KvPrompt prompt() {
  std::mt19937_64 generator(7);
  return {test::random_kv(generator, {kHeads, kTokens, kDim}),
          test::random_kv(generator, {kKvHeads, kTokens, kDim}, 6.0),
          test::random_kv(generator, {kKvHeads, kTokens, kDim}), kShape};
}

AppliedLayer apply(const std::string& line, const KvPrompt& sample) {
  const auto setup = parse_kv_setup(line);
  const auto method = make_kv_method_for(*setup, sample, 42);
  return apply_to_prompt(*method, sample, {}, {});
}

float at_place(const TensorView& x, std::int64_t token, std::int64_t channel) {
  return x.data[(channel / kDim * kTokens + token) * kDim + channel % kDim];
}

bool is_coded(const AppliedTensor& tensor, std::int64_t token, std::int64_t channel) {
  const KvOverlay& o = tensor.overlay;
  if (token < o.quantized_begin || token >= o.quantized_end) return false;
  if (!o.picks.empty() && o.picks.data[token * kChannels + channel] > 0) return false;
  return tensor.codes.empty() || at_place(tensor.codes, token, channel) != 255.0f;
}

}  // namespace

class ApplyOverlaysTest : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyMethod_data() {
    QTest::addColumn<QString>("setup");
    QTest::addColumn<bool>("hasLevels");
    const auto row = [](const char* line, bool levels) { QTest::newRow(line) << QString::fromLatin1(line) << levels; };
    row("rtn:bits=4,group_size=32", true);
    row("rtn:scheme=channel_asym,bits=2,group_size=32", true);
    row("rtn:scheme=token_sym,bits=4", true);
    row("kivi:bits=2,group_size=32,residual_length=32", true);
    row("skvq:k_bits=2,v_bits=1.5,group_size=32,window=32,sink_tokens=5,pre_rope=false", true);
    row("skvq:group_size=32,window=32,store=e4m3,clip=0.9,reorder=false", true);
    row("skvq:group_size=32,window=32,smooth=true,reorder=false,pre_rope=false", false);
    row("qaq", true);
    row("qaq:level=layer,use_attentions=false,n_bits_uniform=3", true);
    row("qaq:use_attentions=false,n_bits_uniform=2,method=normal", true);
    row("decoquant:bits=4,n2=16", false);
    row("kvquant:bits=3", true);
    row("kvquant:bits=2,datatype=nf", true);
    row("kvquant:bits=4,datatype=int,q_norm=off", true);
    row("scope:prompt=64,window=32,recent=16", false);
    row("kivi:bits=2,group_size=32,residual_length=32+scope:prompt=96,window=32,recent=16", false);
    row("layers:*=none", false);
  }

  /// Brute force over all elements: what the overlay says of an element is what was done to it.
  void everyMethod() {
    QFETCH(QString, setup);
    QFETCH(bool, hasLevels);
    const KvPrompt sample = prompt();
    const auto parsed = parse_kv_setup(setup.toStdString());
    const auto method = make_kv_method_for(setup_of_layer(*parsed, 0), sample, 42);
    const AppliedLayer layer = apply_to_prompt(*method, sample, {}, {});
    for (const AppliedTensor* tensor : {&layer.key, &layer.value}) {
      const KvOverlay& o = tensor->overlay;
      QCOMPARE(o.channels(), kChannels);
      QCOMPARE(o.has_levels(), hasLevels);
      const at::Tensor held =
          method->held_in_full_precision(tensor == &layer.key ? sample.key : sample.value).contiguous();
      const float* const held_values = held.data_ptr<float>();
      std::map<std::pair<std::int64_t, float>, std::set<float>> values_of_code;
      std::int64_t coded = 0, picked = 0;
      for (std::int64_t t = 0; t < kTokens; ++t)
        for (std::int64_t c = 0; c < kChannels; ++c) {
          const float seen = at_place(tensor->reconstructed, t, c);
          if (!is_coded(*tensor, t, c)) {
            QCOMPARE(seen, held_values[(c / kDim * kTokens + t) * kDim + c % kDim]);
            picked += !o.picks.empty() && o.picks.data[t * kChannels + c] > 0;
            continue;
          }
          ++coded;
          const std::int64_t group = o.group_of(t, c);
          QVERIFY(group >= 0);
          const auto [low, high] = o.range_of(t, c);
          QVERIFY2(seen >= low - 1e-5f * std::fabs(low) && seen <= high + 1e-5f * std::fabs(high),
                   qPrintable(QStringLiteral("%1 not in %2..%3").arg(seen).arg(low).arg(high)));
          if (hasLevels) values_of_code[{group, at_place(tensor->codes, t, c)}].insert(seen);
        }
      QCOMPARE(o.coded, coded);
      QCOMPARE(o.picked, picked);
      // One scale and one grid a group: a code means one value in all of the group, and that value is a level of it.
      for (const auto& [place, values] : values_of_code) {
        QVERIFY(*values.rbegin() - *values.begin() <= 1e-5f * (std::fabs(*values.begin()) + 1e-3f));
        const std::vector<float> levels = o.levels_of(place.first);
        const auto near = [&](float level) {
          return std::fabs(level - *values.begin()) <= 1e-3f * (levels.back() - levels.front()) + 1e-5f;
        };
        QVERIFY(std::any_of(levels.begin(), levels.end(), near));
      }
    }
  }

  void groupsAreWhatThePapersShare() {
    const KvPrompt sample = prompt();
    const AppliedLayer kivi = apply("kivi:bits=2,group_size=32,residual_length=32", sample);
    // Keys: 32 tokens of a channel. Values: 32 channels of a token.
    QCOMPARE(kivi.key.overlay.group_of(0, 5), kivi.key.overlay.group_of(31, 5));
    QVERIFY(kivi.key.overlay.group_of(31, 5) != kivi.key.overlay.group_of(32, 5));
    QVERIFY(kivi.key.overlay.group_of(0, 5) != kivi.key.overlay.group_of(0, 6));
    QCOMPARE(kivi.value.overlay.group_of(3, 32), kivi.value.overlay.group_of(3, 63));
    QVERIFY(kivi.value.overlay.group_of(3, 31) != kivi.value.overlay.group_of(3, 32));
    QVERIFY(kivi.value.overlay.group_of(3, 32) != kivi.value.overlay.group_of(4, 32));
    QCOMPARE(kivi.key.overlay.quantized_end, std::int64_t{160});
    QCOMPARE(kivi.value.overlay.quantized_end, std::int64_t{128});
    const AppliedLayer skvq = apply("skvq:k_bits=2,group_size=32,window=32,sink_tokens=5,pre_rope=false", sample);
    const KvOverlay& o = skvq.key.overlay;
    QCOMPARE(o.quantized_begin, std::int64_t{5});
    QCOMPARE(o.quantized_end, kTokens - 32);
    QCOMPARE(static_cast<std::int64_t>(o.groups.order.size()), kChannels);
    for (std::size_t place = 0; place + 1 < o.groups.order.size(); ++place)
      QVERIFY(o.run_of_channel[static_cast<std::size_t>(o.groups.order[place])] <=
              o.run_of_channel[static_cast<std::size_t>(o.groups.order[place + 1])]);
  }

  void rangesAreThoseOfTheGrid() {
    // A ramp from 0 to 3 at 2 bits: the levels are 0, 1, 2, 3 in every group.
    KvPrompt sample = prompt();
    sample.key = (at::arange(kChannels, at::kFloat) % 4)
                     .view({kKvHeads, 1, kDim})
                     .expand({kKvHeads, kTokens, kDim})
                     .contiguous();
    const AppliedLayer layer = apply("rtn:bits=2,group_size=32", sample);
    QCOMPARE(layer.key.overlay.levels_of(0), (std::vector<float>{0.0f, 1.0f, 2.0f, 3.0f}));
    QCOMPARE(layer.key.overlay.range_of(17, 40), std::pair(0.0f, 3.0f));
    QCOMPARE(layer.key.overlay.clipped_fraction, 0.0);
    QCOMPARE(layer.key.overlay.mean_code_bits, 2.0);
    // A clip ratio of 0.6 cuts both ends: of 0..3 the grid spans 0..1.8, and 3 lies beyond half a step of it.
    const AppliedLayer clipped = apply(
        "skvq:k_bits=2,group_size=32,window=0,sink_tokens=0,clip=0.6,reorder=false,"
        "pre_rope=false",
        sample);
    QVERIFY(std::fabs(clipped.key.overlay.range_of(17, 40).second - 1.8f) < 1e-2f);
    QCOMPARE(clipped.key.overlay.clipped_fraction, 0.25);
  }

  void mixedWidthsAreCounted() {
    const KvPrompt sample = prompt();
    const AppliedLayer layer = apply("qaq:n_bits_min=1,n_bits_max=6,outliers_ratio=0.05", sample);
    const KvOverlay& o = layer.value.overlay;
    std::set<std::int32_t> widths(o.levels.begin(), o.levels.end());
    for (const std::int32_t levels : widths)
      QVERIFY2((levels & (levels - 1)) == 0, qPrintable(QString::number(levels)));
    QVERIFY(o.mean_code_bits >= 1.0 && o.mean_code_bits <= 6.0);
    QVERIFY(o.picked > 0);
    // Q1 keeps at least the given share of every vector.
    QVERIFY(static_cast<double>(o.picked) / static_cast<double>(o.picked + o.coded) >= 0.04);
    const double bits = o.mean_code_bits * 0.95 + 16.0 * 0.05 + 32.0 / kDim;
    QVERIFY(std::fabs(o.published_bits - bits) < 1e-9);
  }

  void publishedBitsAreThePapers() {
    const KvPrompt sample = prompt();
    QCOMPARE(apply("kivi:bits=2,group_size=32,residual_length=32", sample).key.overlay.published_bits, 3.0);
    const AppliedLayer skvq = apply("skvq:k_bits=2,v_bits=1.5,group_size=64,store=e4m3,reorder=false", sample);
    QCOMPARE(skvq.key.overlay.published_bits, 2.25);
    QCOMPARE(skvq.value.overlay.published_bits, 1.75);
  }

  void evictedTokensAreMarkedAndCounted() {
    const KvPrompt sample = prompt();
    const AppliedLayer layer = apply("scope:prompt=64,window=32,recent=16", sample);
    const KvOverlay& o = layer.key.overlay;
    QVERIFY(!o.kept.empty());
    std::int64_t gone = 0;
    for (const float kept : o.kept.values()) gone += kept == 0.0f;
    QCOMPARE(gone, kKvHeads * (kTokens - 64));
    QCOMPARE(o.evicted_tokens, gone);
    QCOMPARE(layer.key.report.relative_error < 1e-3, true);  // what is held is held in f16
    QVERIFY(layer.key.report.functional_error > 0.05);       // but attention misses what left
  }

  /// Behind a selection groups are counted in the slots of a head: as many coded tokens as the packed cache has.
  void codesBehindASelectionAreThoseOfTheCache() {
    const KvPrompt sample = prompt();
    const AppliedLayer layer =
        apply("kivi:bits=2,group_size=32,residual_length=32+scope:prompt=100,window=32,recent=16", sample);
    for (std::int64_t head = 0; head < kKvHeads; ++head) {
      std::int64_t coded = 0;
      for (std::int64_t t = 0; t < kTokens; ++t) coded += is_coded(layer.key, t, head * kDim);
      QCOMPARE(coded, std::int64_t{96});
    }
  }
};

QTEST_GUILESS_MAIN(ApplyOverlaysTest)
#include "tst_apply_overlays.moc"
