#include "backend/evaluation/calibration_windows.h"

#include <algorithm>

#include "backend/evaluation/python_random.h"
#include "backend/method_registry.h"
#include "backend/model/model.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"

namespace qs {
namespace {

std::int64_t int_param(const Setup& setup, const char* key, std::int64_t absent) {
  const auto found = setup.params.find(key);
  return found == setup.params.end() ? absent : std::get<int>(found->second);
}

}  // namespace

CalibrationWindows calibration_windows(const Model& model, const std::vector<std::int64_t>& ids,
                                       const std::string& source, const std::string& source_sha256, std::int64_t count,
                                       std::int64_t seqlen, std::uint64_t seed) {
  CalibrationWindows result;
  result.source = source;
  result.source_sha256 = source_sha256;
  result.seed = seed;
  result.text_tokens = static_cast<std::int64_t>(ids.size());
  result.seqlen = std::min(seqlen, model.info().max_context);
  if (result.seqlen < seqlen) {
    result.notes.push_back("Windows were cut from " + std::to_string(seqlen) + " to the context of " +
                           std::to_string(result.seqlen) + " tokens.");
  }
  const std::int64_t last = result.text_tokens - result.seqlen - 1;
  if (last < 0 || result.seqlen < 2) {
    throw Error(ErrorCode::InvalidArgument,
                "The calibration text '" + source + "' has " + std::to_string(result.text_tokens) +
                    " tokens for this model; windows of " + std::to_string(result.seqlen) + " tokens need at least " +
                    std::to_string(result.seqlen + 1) + ". Use a longer text or set seqlen=" +
                    std::to_string(std::max<std::int64_t>(2, result.text_tokens - 1)) + " or less.");
  }
  PythonRandom random(seed);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t start = random.randint(0, last);
    result.starts.push_back(start);
    result.windows.emplace_back(ids.begin() + start, ids.begin() + start + result.seqlen);
  }
  return result;
}

CalibrationWindows calibration_windows(const Model& model, const std::vector<std::int64_t>& ids,
                                       const std::string& source, const std::string& source_sha256,
                                       const Setup& setup) {
  const Setup* from = windows_part(setup);
  if (!from) from = &setup;
  return calibration_windows(model, ids, source, source_sha256, int_param(*from, "nsamples", 128),
                             int_param(*from, "seqlen", 2048), static_cast<std::uint64_t>(int_param(*from, "seed", 0)));
}

CalibrationWindows calibration_windows(const Model& model, const EvalText& text, const Setup& setup) {
  return calibration_windows(model, encode_with_bos(model.tokenizer(), text.text), text.name, text.sha256, setup);
}

}  // namespace qs
