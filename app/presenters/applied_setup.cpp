#include "app/presenters/applied_setup.h"

#include <QDir>

#include "backend/method_registry.h"
#include "backend/storage/kv_artifact.h"
#include "backend/types/error.h"

namespace qs {

std::optional<KvArtifact> remembered_calibration(const Workbench& workbench, const Setup& setup,
                                                 const CaptureInfo& capture) {
  const Setup* const part = calibrated_kv_part(setup);
  if (part == nullptr || !needs_kv_calibration(setup)) return std::nullopt;
  Setup alone = *part;
  alone.then.clear();
  alone.range = {};
  const std::string line = format_setup(alone, kv_method_infos());
  const QDir folder(workbench.cacheFolder() + QStringLiteral("/kv-calibrations"));
  const QString files = QString::fromStdString(alone.method) + QStringLiteral("-*.h5");
  for (const QString& file : folder.entryList({files}, QDir::Files, QDir::Time)) {
    try {
      KvArtifact artifact = read_kv_artifact(folder.filePath(file).toStdU16String());
      if (artifact.model_fingerprint == capture.model_fingerprint && artifact.setup == line &&
          static_cast<std::int64_t>(artifact.layers.size()) == capture.layers)
        return artifact;
    } catch (const Error&) {
      // of another version or cut off: building the variant makes it again
    }
  }
  return std::nullopt;
}

AppliedLayer apply_line(const Workbench& workbench, const QString& line, CaptureReader& capture, std::int64_t layer,
                        const JobContext& job) {
  const auto setup = parse_kv_setup(line.toStdString());
  if (!setup)
    throw Error(ErrorCode::InvalidArgument, "The variant has no KV setup; choose one with a quantized KV cache.");
  const std::optional<KvArtifact> artifact = remembered_calibration(workbench, *setup, capture.info());
  return apply_to_capture(*setup, capture, layer, job, artifact ? &*artifact : nullptr);
}

}  // namespace qs
