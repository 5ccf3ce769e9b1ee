#include <ATen/ATen.h>

#include <string>

#include "backend/methods/golden_kv_support.h"
#include "backend/methods/rtn_kv.h"

namespace qs {
namespace {

using nlohmann::json;

GoldenOutput run_rtn(const GoldenCase& golden, const JobContext& job) {
  const json params = golden.entry.value("params", json::object());
  GoldenOutput output;
  for (const auto& [name, expected] : golden.expected) {
    const std::string input = name.substr(0, name.find('_'));
    if (!golden.inputs.count(input)) continue;
    const bool per_channel = name.find("per_channel") != std::string::npos;
    const bool symmetric = name.find("_sym") != std::string::npos;
    ParamSet set = precision_params(params);
    set["scheme"] = std::string(per_channel ? "channel_asym" : symmetric ? "token_sym" : "token_asym");
    set["bits"] = params.at("bits").get<int>();
    set["group_size"] = per_channel ? params.value("block", 0) : params.value("group_size", 0);
    const RtnKv method(set);
    std::vector<at::Tensor> sequences;
    for (const at::Tensor& sequence : golden.inputs.at(input).unbind(0)) {
      sequences.push_back(
          method.quantize(sequence.to(at::kFloat), per_channel ? KvRole::Key : KvRole::Value, job).values);
    }
    output.tensors[name] = at::stack(sequences);
  }
  return output;
}

}  // namespace

GoldenRunner golden_rtn() { return {"rtn", run_rtn}; }

}  // namespace qs
