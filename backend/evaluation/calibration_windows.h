#pragma once

#include <cstdint>

#include "backend/evaluation/evaluate.h"
#include "backend/types/weight_run.h"

namespace qs {

/// `count` windows of `seqlen` tokens at random places of a text, as the published calibration loaders draw them:
/// CPython's random.seed(seed), then one randint(0, tokens - seqlen - 1) a window (weights specification 12.3). A
/// seqlen beyond the model's context is cut to it, with a note.
/// @param ids  the whole text, BOS at its beginning only
/// @throws Error InvalidArgument when the text has no window, saying how many tokens it has and what to set
CalibrationWindows calibration_windows(const Model& model, const std::vector<std::int64_t>& ids,
                                       const std::string& source, const std::string& source_sha256, std::int64_t count,
                                       std::int64_t seqlen, std::uint64_t seed);

/// The same with nsamples, seqlen and seed of the part of a setup that learns from windows (windows_part).
CalibrationWindows calibration_windows(const Model& model, const std::vector<std::int64_t>& ids,
                                       const std::string& source, const std::string& source_sha256, const Setup& setup);
CalibrationWindows calibration_windows(const Model& model, const EvalText& text, const Setup& setup);

}  // namespace qs
