#pragma once

#include <QString>
#include <optional>

#include "app/workbench.h"
#include "backend/evaluation/apply.h"

namespace qs {

/// The remembered calibration of a KV setup on the model of `capture`: what building a variant of it left behind.
/// Nothing where the setup needs none or no variant of it was built yet.
std::optional<KvArtifact> remembered_calibration(const Workbench& workbench, const Setup& setup,
                                                 const CaptureInfo& capture);

/// apply_to_capture with the remembered calibration where there is one; else the layer calibrates itself, and the
/// report says so. Call inside a job. @throws Error as parse_kv_setup and apply_to_capture
AppliedLayer apply_line(const Workbench& workbench, const QString& line, CaptureReader& capture, std::int64_t layer,
                        const JobContext& job);

}  // namespace qs
