#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backend/types/job.h"
#include "backend/types/verify_report.h"

namespace qs {

using GoldenTensors = std::map<std::string, at::Tensor>;

/// One entry of a golden manifest with its tensors in their stored types.
struct GoldenCase {
  std::string method, name;      ///< "kivi", "k2v2_g32_mha320"
  std::filesystem::path folder;  ///< of the manifest
  const nlohmann::json& entry;   ///< "params", "kind", "expected" ... as the manifest has them
  GoldenTensors inputs;          ///< role input and info
  GoldenTensors expected;        ///< role expected: only to learn shapes from; comparing is the caller's work
};

/// What a method makes of a case. Everything expected that is neither in `tensors` nor in `numbers` counts as failed.
struct GoldenOutput {
  GoldenTensors tensors;                  ///< by the name of the expected tensor; any shape with as many elements
  std::map<std::string, double> numbers;  ///< by the key of "expected" of a case without tensors (kind formula)
  struct Check {                          ///< for cases without compare rules (kind json): compared by the runner
    std::string name, rule;
    bool passed = false;
    double worst = 0.0;
  };
  std::vector<Check> checks;
  std::string skipped;  ///< why the case does not apply here; everything else is ignored then
};

/// Runs the cases of one method of the manifest.
struct GoldenRunner {
  std::string method;
  std::function<GoldenOutput(const GoldenCase&, const JobContext&)> run;
};

std::vector<GoldenRunner> golden_kv_runners();      ///< one a method: golden_kv.cpp lists them
std::vector<GoldenRunner> golden_weight_runners();  ///< rtn (weight family), smoothquant, stats: golden_weights.cpp

// Runners that have a file of their own.
GoldenOutput run_golden_gptq(const GoldenCase& golden, const JobContext& job);       ///< golden_gptq.cpp
GoldenOutput run_golden_spqr(const GoldenCase& golden, const JobContext& job);       ///< golden_spqr.cpp
GoldenOutput run_golden_bcq(const GoldenCase& golden, const JobContext& job);        ///< golden_bcq.cpp
GoldenOutput run_golden_lut_gemm(const GoldenCase& golden, const JobContext& job);   ///< golden_bcq.cpp
GoldenOutput run_golden_zeroquant(const GoldenCase& golden, const JobContext& job);  ///< golden_zeroquant.cpp

/// An input of a case. @throws Error BadFormat naming what the case lacks
at::Tensor golden_input(const GoldenCase& golden, const std::string& name);

/// Runs every case of `dir`/manifest.json whose method has a runner and compares under the rule of each expected
/// tensor: exact, abs, rel_fro, abs_frac, set, le. A method that both families have (rtn) is run by the side whose
/// cases these are: a manifest with key and value tensors is the KV side. Cases without a runner are listed as skipped.
/// @param extra  runners of layers above this one, such as evaluation; they come first
/// @throws Error NotFound or BadFormat for the manifest itself; a broken case is a failure in the report
VerifyReport verify_golden(const std::filesystem::path& dir, const JobContext& job,
                           const std::vector<GoldenRunner>& extra = {});

/// Compares one tensor under a manifest rule. NaN equals NaN. @return empty when it holds, else the failure without its
/// case
struct GoldenComparison {
  bool passed = false;
  std::string rule;
  double worst = 0.0;
};
GoldenComparison compare_golden(const at::Tensor& actual, const at::Tensor& expected, const nlohmann::json& compare);

}  // namespace qs
