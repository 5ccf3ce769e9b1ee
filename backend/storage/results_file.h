#pragma once

#include <filesystem>
#include <vector>

#include "backend/types/eval_result.h"

namespace qs {

/// Results in HDF5: one group a run under /runs, the report as JSON in attribute `report`, per-item values as datasets,
/// so that h5py reads the numbers without us. Written beside its target and renamed when whole.
void write_results(const std::filesystem::path& path, const std::vector<EvalReport>& reports);

/// @throws Error NotFound, BadFormat, Io
std::vector<EvalReport> read_results(const std::filesystem::path& path);

}  // namespace qs
