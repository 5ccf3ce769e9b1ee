// Device code: what can be held against the CPU's on any machine, and, where there is a device, its results.
#include <QtTest>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/row_codes.h"
#include "kernels/float_formats.h"
#include "kernels/kv_attention.h"
#include "kernels/pack_bits.h"

using namespace qs::kernels;

namespace {

std::vector<std::uint8_t> random_codes(std::mt19937& generator, std::int64_t count, int levels) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(generator() % static_cast<unsigned>(levels));
  return codes;
}

/// A cache side with one row a token, on the host, and what it decodes to.
struct HostSide {
  std::int64_t tokens, kv_heads, head_dim, begin, end, groups;
  int bits;
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scale, group_min, sinks, recent;
  std::vector<std::int32_t> group_of;
  std::vector<double> values;  ///< [kv_heads][tokens][head_dim], before rotation

  HostSide(std::mt19937& generator, std::int64_t tokens_, std::int64_t kv_heads_, std::int64_t head_dim_, int bits_)
      : tokens(tokens_),
        kv_heads(kv_heads_),
        head_dim(head_dim_),
        begin(std::min<std::int64_t>(3, tokens_)),
        end(std::max(begin, tokens_ - 5)),
        groups(3),
        bits(bits_),
        values(static_cast<std::size_t>(tokens_ * kv_heads_ * head_dim_)) {
    std::normal_distribution<float> normal;
    const std::int64_t row = packed_row_bytes(head_dim, bits), coded = end - begin;
    codes.resize(static_cast<std::size_t>(coded * kv_heads * row));
    for (std::int64_t c = 0; c < kv_heads * head_dim; ++c)
      group_of.push_back(static_cast<std::int32_t>(generator() % 3));
    for (std::int64_t i = 0; i < coded * groups; ++i) {
      scale.push_back(f32_to_f16(0.1F + std::fabs(normal(generator))));
      group_min.push_back(f32_to_f16(normal(generator)));
    }
    for (std::int64_t h = 0; h < kv_heads; ++h)
      for (std::int64_t t = 0; t < tokens; ++t) {
        double* const to = values.data() + (h * tokens + t) * head_dim;
        if (t < begin || t >= end) {
          std::vector<std::uint16_t>& held = t < begin ? sinks : recent;
          for (std::int64_t d = 0; d < head_dim; ++d) {
            held.push_back(f32_to_f16(normal(generator)));
            to[d] = f16_to_f32(held.back());
          }
          continue;
        }
        const std::vector<std::uint8_t> line = random_codes(generator, head_dim, 1 << bits);
        pack_row(line.data(), head_dim, bits, codes.data() + ((t - begin) * kv_heads + h) * row);
        for (std::int64_t d = 0; d < head_dim; ++d) {
          const auto at = static_cast<std::size_t>((t - begin) * groups + group_of[h * head_dim + d]);
          to[d] = line[d] * double{f16_to_f32(scale[at])} + f16_to_f32(group_min[at]);
        }
      }
  }
};

template <typename T>
const T* on_device(std::vector<cuda::DeviceBuffer>& keep, const std::vector<T>& host) {
  if (host.empty()) return nullptr;
  keep.emplace_back();
  const std::size_t bytes = host.size() * sizeof(T);
  if (!keep.back().allocate(bytes) || !keep.back().upload(host.data(), bytes, nullptr)) return nullptr;
  return static_cast<const T*>(keep.back().data());
}

cuda::RowSide side_of(std::vector<cuda::DeviceBuffer>& keep, const HostSide& host) {
  const std::int64_t row = packed_row_bytes(host.head_dim, host.bits);
  cuda::RowSide side;
  side.begin = host.begin;
  side.end = host.end;
  side.bits = host.bits;
  side.codes = on_device(keep, host.codes);
  side.token_bytes = host.kv_heads * row;
  side.head_bytes = row;
  side.scale = on_device(keep, host.scale);
  side.group_min = on_device(keep, host.group_min);
  side.groups = host.groups;
  side.group_of = on_device(keep, host.group_of);
  side.sinks = on_device(keep, host.sinks);
  side.recent = on_device(keep, host.recent);
  return side;
}

}  // namespace

class TestKernelsCuda : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void elementsOfRowsAreThoseOfThePackers() {
    std::mt19937 generator(1);
    for (const int bits : {2, 3, 4, 8}) {
      const std::vector<std::uint8_t> codes = random_codes(generator, 72, 1 << bits);
      std::vector<std::uint8_t> row(static_cast<std::size_t>(packed_row_bytes(72, bits)));
      pack_row(codes.data(), 72, bits, row.data());
      for (std::int64_t i = 0; i < 72; ++i) QCOMPARE(cuda::row_code(row.data(), 72, bits, i), int{codes[i]});
    }
    for (int bits = 1; bits <= 8; ++bits) {
      const std::vector<std::uint8_t> codes = random_codes(generator, 61, 1 << bits);
      std::vector<std::uint8_t> stream(static_cast<std::size_t>(bit_stream_bytes(61, bits)));
      pack_bit_stream(codes.data(), 61, bits, stream.data());
      for (std::int64_t i = 0; i < 61; ++i) QCOMPARE(cuda::stream_code(stream.data(), bits, i), int{codes[i]});
    }
  }

  void tritsAreThoseOfTheGroupedRows() {
    std::mt19937 generator(2);
    constexpr std::int64_t kHeads = 3, kDim = 16, kBytes = (kHeads * kDim + 4) / 5;
    const std::vector<std::uint8_t> token = random_codes(generator, kBytes, 243);
    for (std::int64_t head = 0; head < kHeads; ++head) {
      Segment segment;
      segment.storage = Storage::Grouped;
      segment.bits = kTritBits;
      segment.data = token.data();
      segment.stride = kBytes;
      segment.grouped.first_channel = head * kDim;
      segment.grouped.plane_bytes = kBytes;
      std::array<std::uint8_t, kDim> codes{};
      unpack_grouped_row(segment, 0, kDim, codes.data());
      for (std::int64_t d = 0; d < kDim; ++d)
        QCOMPARE(cuda::trit_code(token.data(), kBytes, head * kDim + d), int{codes[d]});
    }
  }

  void smallFloatsAreThoseOfTheFormats() {
    for (int bits = 0; bits < 256; ++bits) {
      const auto byte = static_cast<std::uint8_t>(bits);
      if (std::isfinite(e4m3_to_f32(byte))) QCOMPARE(cuda::from_e4m3(byte), e4m3_to_f32(byte));
      if (std::isfinite(e5m2_to_f32(byte))) QCOMPARE(cuda::from_e5m2(byte), e5m2_to_f32(byte));
    }
  }

  void attentionOverRowsIsThatOfTheDecodedCache() {
    if (!cuda::cuda_available()) QSKIP("There is no CUDA device here.");
    std::mt19937 generator(3);
    std::normal_distribution<float> normal;
    for (const std::int64_t tokens : {1, 7, 130, 500}) {
      constexpr std::int64_t kHeads = 6, kKvHeads = 2, kDim = 64, kHalf = 24;
      const HostSide key(generator, tokens, kKvHeads, kDim, 2), value(generator, tokens, kKvHeads, kDim, 3);
      std::vector<float> query(kHeads * kDim), table(static_cast<std::size_t>(tokens * 2 * kHalf));
      for (float& q : query) q = 0.1F * normal(generator);
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t i = 0; i < kHalf; ++i) {
          const double angle = static_cast<double>(t) / std::pow(100.0, static_cast<double>(i) / kHalf);
          table[(t * 2) * kHalf + i] = static_cast<float>(std::cos(angle));
          table[(t * 2 + 1) * kHalf + i] = static_cast<float>(std::sin(angle));
        }
      std::vector<cuda::DeviceBuffer> keep;
      cuda::DeviceBuffer scratch, out;
      QVERIFY(scratch.allocate(cuda::row_attention_scratch_bytes(kHeads, kDim, tokens)));
      QVERIFY(out.allocate(kHeads * kDim * sizeof(float)));
      cuda::RowAttention args;
      args.query = on_device(keep, query);
      args.heads = kHeads;
      args.kv_heads = kKvHeads;
      args.head_dim = kDim;
      args.tokens = tokens;
      args.key = side_of(keep, key);
      args.value = side_of(keep, value);
      args.rotation = on_device(keep, table);
      args.half = kHalf;
      args.scratch = static_cast<float*>(scratch.data());
      args.out = static_cast<float*>(out.data());
      QCOMPARE(cuda::row_attention(args, nullptr), std::string());
      QCOMPARE(cuda::synchronize(nullptr), std::string());
      std::vector<float> found(kHeads * kDim);
      QVERIFY(out.download(found.data(), found.size() * sizeof(float), nullptr));
      for (std::int64_t head = 0; head < kHeads; ++head) {
        const std::int64_t kv = head / (kHeads / kKvHeads);
        std::vector<double> weight(static_cast<std::size_t>(tokens)), expected(kDim);
        double sum = 0.0;
        for (std::int64_t t = 0; t < tokens; ++t) {
          std::vector<double> row(key.values.begin() + (kv * tokens + t) * kDim,
                                  key.values.begin() + (kv * tokens + t + 1) * kDim);
          for (std::int64_t i = 0; t >= key.begin && t < key.end && i < kHalf; ++i) {
            const double c = table[(t * 2) * kHalf + i], s = table[(t * 2 + 1) * kHalf + i];
            const double a = row[i], b = row[i + kHalf];
            row[i] = a * c - b * s;
            row[i + kHalf] = b * c + a * s;
          }
          double score = 0.0;
          for (std::int64_t d = 0; d < kDim; ++d) score += row[d] * query[head * kDim + d];
          sum += weight[t] = std::exp(score);
        }
        for (std::int64_t t = 0; t < tokens; ++t)
          for (std::int64_t d = 0; d < kDim; ++d)
            expected[d] += weight[t] / sum * value.values[(kv * tokens + t) * kDim + d];
        for (std::int64_t d = 0; d < kDim; ++d)
          QVERIFY(std::fabs(found[head * kDim + d] - expected[d]) < 2e-3 * (1.0 + std::fabs(expected[d])));
      }
    }
  }
};

QTEST_GUILESS_MAIN(TestKernelsCuda)
#include "tst_kernels_cuda.moc"
