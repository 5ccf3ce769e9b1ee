#include <QtTest>
#include <cmath>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/dispatch.h"
#include "tests/support/bit_planes.h"

using namespace qs::kernels;

namespace {

std::vector<float> normal_inputs(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

std::vector<double> brute_force(const BitPlanes& planes, const std::vector<float>& x, std::int64_t tokens) {
  const std::int64_t rows = planes.weight.out_features, columns = planes.weight.in_features;
  std::vector<double> y;
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t row = 0; row < rows; ++row) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < columns; ++i)
        sum += planes.at(row, i) * static_cast<double>(x[static_cast<std::size_t>(t * columns + i)]);
      y.push_back(sum);
    }
  return y;
}

/// ||a - b|| / ||b||
template <typename Other>
double difference(const std::vector<float>& a, const std::vector<Other>& b) {
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / size);
}

std::vector<float> product(const KernelSet& set, const BitPlaneWeight& weight, const std::vector<float>& x,
                           std::int64_t tokens, LutArithmetic arithmetic = LutArithmetic::F32) {
  std::vector<float> y(static_cast<std::size_t>(tokens * weight.out_features), 99.0F);
  // Two calls, as two threads make them; the border is a multiple of nothing.
  const std::int64_t border = weight.out_features * 3 / 7;
  set.lut_gemm(weight, {x.data(), tokens, y.data(), 0, border}, arithmetic);
  set.lut_gemm(weight, {x.data(), tokens, y.data(), border, weight.out_features}, arithmetic);
  return y;
}

}  // namespace

class TestLutGemm : public QObject {
  Q_OBJECT

  std::vector<const KernelSet*> sets_;

 private Q_SLOTS:
  void initTestCase() {
    for (const SetName id : {SetName::Scalar, SetName::Avx2, SetName::Avx512})
      if (const KernelSet* const set = kernel_set(id)) sets_.push_back(set);
  }

  void tableHoldsEverySignedSum() {
    const auto x = normal_inputs(8, 3);
    float table[256];
    lut_table(x.data(), table);
    for (int p = 0; p < 256; ++p) {
      double sum = 0.0;
      for (int k = 0; k < 8; ++k)
        sum += (p >> k & 1) != 0 ? static_cast<double>(x[static_cast<std::size_t>(k)])
                                 : -static_cast<double>(x[static_cast<std::size_t>(k)]);
      QVERIFY(std::fabs(sum - static_cast<double>(table[p])) < 1e-5);
      QVERIFY(std::fabs(static_cast<double>(table[p]) + static_cast<double>(table[255 - p])) < 1e-5);
    }
  }

  void everySetEqualsTheBruteForce_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("rows");
    QTest::addColumn<int>("columns");
    QTest::addColumn<int>("group");
    std::mt19937 random(5);
    for (const int group : {8, 24, 32, 64, 96, 128, 160, 256, 384}) {
      const int bits = 1 + static_cast<int>(random() % 8), rows = 1 + static_cast<int>(random() % 90),
                columns = group * (1 + static_cast<int>(random() % 4));
      QTest::addRow("b%d %dx%d g%d", bits, rows, columns, group) << bits << rows << columns << group;
    }
    for (const int columns : {1, 7, 8, 31, 33, 100, 129, 515})
      QTest::addRow("one group, %d columns", columns) << 3 << 37 << columns << columns;
  }

  void everySetEqualsTheBruteForce() {
    QFETCH(int, bits);
    QFETCH(int, rows);
    QFETCH(int, columns);
    QFETCH(int, group);
    for (const bool offset : {false, true}) {
      const BitPlanes planes(bits, rows, columns, group, offset, 7);
      for (const std::int64_t tokens : {1, 2, 7}) {
        const auto x = normal_inputs(tokens * columns, 11);
        const auto expected = brute_force(planes, x, tokens);
        for (const KernelSet* const set : sets_)
          for (const DenseType type : {DenseType::F32, DenseType::F16, DenseType::BF16}) {
            const double error = difference(product(*set, planes.stored_as(type), x, tokens), expected);
            QVERIFY2(error < 5e-6, qPrintable(QString("%1: %2").arg(set->name).arg(error)));
          }
      }
    }
  }

  void integerTablesStayNearTheF32Sums() {
    for (const std::int64_t group : {32, 128, 256, 300}) {
      const std::int64_t rows = 77, tokens = 3, columns = group == 300 ? 300 : 2 * group;
      const BitPlanes planes(3, rows, columns, group, true, 9);
      const auto x = normal_inputs(tokens * columns, 2);
      const auto exact = brute_force(planes, x, tokens);
      const auto bytes = product(*sets_.front(), planes.weight, x, tokens, LutArithmetic::Int8),
                 words = product(*sets_.front(), planes.weight, x, tokens, LutArithmetic::Int16);
      QVERIFY2(difference(bytes, exact) < 2e-2, qPrintable(QString::number(difference(bytes, exact))));
      QVERIFY2(difference(words, exact) < 1e-4, qPrintable(QString::number(difference(words, exact))));
      QVERIFY(difference(bytes, exact) > 1e-4 && difference(words, exact) > 1e-6);  // they are rounded
      for (const KernelSet* const set : sets_) {
        QVERIFY(difference(product(*set, planes.weight, x, tokens, LutArithmetic::Int8), bytes) < 2e-6);
        const auto same = product(*set, planes.weight, x, tokens, LutArithmetic::Int16);
        QVERIFY(difference(same, set->id == SetName::Avx512 ? product(*set, planes.weight, x, tokens) : words) < 2e-6);
      }
    }
  }

  /// One input far above the others takes the resolution of its strip only.
  void outliersOfTheInputDoNotSpoil16Bits() {
    const BitPlanes planes(4, 96, 512, 128, false, 12);
    auto x = normal_inputs(512, 3);
    x[200] = 1000.0F;
    for (const KernelSet* const set : sets_)
      QVERIFY(difference(product(*set, planes.weight, x, 1, LutArithmetic::Int16), brute_force(planes, x, 1)) < 3e-4);
  }

  void zeroInputsGiveZeroWhateverTheArithmetic() {
    const BitPlanes planes(4, 40, 96, 32, true, 1);
    const std::vector<float> x(96, 0.0F), zeros(40, 0.0F);
    for (const KernelSet* const set : sets_)
      for (const LutArithmetic arithmetic : {LutArithmetic::F32, LutArithmetic::Int16, LutArithmetic::Int8})
        QCOMPARE(product(*set, planes.weight, x, 1, arithmetic), zeros);
  }

  void otherRowsAreLeftAlone() {
    const BitPlanes planes(2, 64, 64, 64, true, 1);
    const auto x = normal_inputs(64, 2);
    for (const KernelSet* const set : sets_)
      for (const LutArithmetic arithmetic : {LutArithmetic::F32, LutArithmetic::Int16, LutArithmetic::Int8}) {
        std::vector<float> y(64, 99.0F);
        set->lut_gemm(planes.weight, {x.data(), 1, y.data(), 13, 50}, arithmetic);
        for (std::size_t row = 0; row < 64; ++row) QCOMPARE(y[row] == 99.0F, row < 13 || row >= 50);
      }
  }

  void cudaEqualsTheScalarForm() {
    if (!cuda::cuda_available()) QSKIP(qPrintable(QString::fromStdString(cuda::cuda_problem())));
    for (const bool offset : {false, true})
      for (const std::int64_t columns : {100, 256, 2048}) {
        const std::int64_t rows = 700, tokens = 3, group = columns == 100 ? 100 : 64;
        const BitPlanes planes(3, rows, columns, group, offset, 4);
        const auto x = normal_inputs(tokens * columns, 6);
        const auto upload = [](const auto& values) {
          cuda::DeviceBuffer buffer;
          const std::size_t bytes = values.size() * sizeof(values[0]);
          if (bytes > 0 && (!buffer.allocate(bytes) || !buffer.upload(values.data(), bytes, nullptr)))
            qFatal("no device memory");
          return buffer;
        };
        const cuda::DeviceBuffer words = upload(planes.planes), alpha = upload(planes.alpha_half),
                                 offsets = upload(planes.offset_half), input = upload(x);
        cuda::DeviceBuffer scratch, output;
        std::vector<float> y(static_cast<std::size_t>(tokens * rows));
        QVERIFY(scratch.allocate(cuda::lut_scratch_bytes(tokens, rows, columns)));
        QVERIFY(output.allocate(y.size() * sizeof(float)));
        cuda::LutProduct args;
        args.bits = 3;
        args.out_features = rows, args.in_features = columns, args.group_size = group, args.tokens = tokens;
        args.planes = static_cast<const std::uint32_t*>(words.data());
        args.alpha = static_cast<const std::uint16_t*>(alpha.data());
        args.offset = offset ? static_cast<const std::uint16_t*>(offsets.data()) : nullptr;
        args.x = static_cast<const float*>(input.data());
        args.scratch = static_cast<float*>(scratch.data());
        args.y = static_cast<float*>(output.data());
        QCOMPARE(cuda::lut_gemm(args, nullptr), std::string());
        QVERIFY(output.download(y.data(), y.size() * sizeof(float), nullptr));
        QVERIFY(difference(y, brute_force(planes, x, tokens)) < 5e-6);
        std::vector<float> again(y.size());
        QCOMPARE(cuda::lut_gemm(args, nullptr), std::string());
        QVERIFY(output.download(again.data(), y.size() * sizeof(float), nullptr));
        QCOMPARE(again, y);
      }
  }
};

QTEST_GUILESS_MAIN(TestLutGemm)
#include "tst_lut_gemm.moc"
