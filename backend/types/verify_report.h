#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs {

/// One expected tensor or number that was not met.
struct VerifyFailure {
  std::string case_name;  ///< "kivi/k2v2_g32_mha320"
  std::string tensor;     ///< "k_scale"; empty when the case itself could not run
  std::string rule;       ///< "abs 1e-06", or what went wrong
  double worst = 0.0;     ///< the figure that the rule limits, as found
};

struct VerifySkip {
  std::string case_name, why;
};

/// What running a folder of golden cases gave. cases = passed + distinct failed cases + skipped.
struct VerifyReport {
  std::int64_t cases = 0, passed = 0;
  std::vector<VerifyFailure> failed;
  std::vector<VerifySkip> skipped;
};

}  // namespace qs
