#pragma once

#include <QObject>
#include <QString>
#include <functional>
#include <memory>
#include <optional>

#include "app/job_runner.h"
#include "backend/model/model.h"
#include "backend/model/variant.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/eval_result.h"
#include "sessions/session_state.h"
#include "widgets/selection_hub.h"

namespace qs {

class SessionDocument;

/// What is open: the session document, its loaded models, captures and variants, the jobs and the selection. Presenters
/// (one per view, app/presenters) take what they need from here; nothing is computed here.
class Workbench : public QObject {
  Q_OBJECT
 public:
  explicit Workbench(QObject* parent = nullptr);
  ~Workbench() override;

  JobRunner& jobs();
  SelectionHub& selection();
  SessionDocument& document();
  const SessionState& session() const;

  /// Loaded on first use and kept; call inside a job, from any thread. @throws Error as Model::load, or NotFound for the id
  std::shared_ptr<const Model> loadModel(const QString& modelId, const JobContext& job);
  std::shared_ptr<CaptureReader> openCapture(const QString& captureId, const JobContext& job);
  /// Builds model, calibration and quantized weights as needed; an empty id of the same model is its full precision.
  std::shared_ptr<const Variant> buildVariant(const QString& variantId, const JobContext& job);

  /// Entry of the session by id; empty when it is not there.
  std::optional<ModelEntry> modelEntry(const QString& id) const;
  std::optional<CaptureEntry> captureEntry(const QString& id) const;
  std::optional<VariantEntry> variantEntry(const QString& id) const;
  QString resolvePath(const QString& storedPath) const;  ///< session-relative and `sample:` paths to absolute ones
  QString sampleFolder() const;                          ///< resources installed beside the program
  QString dataFolder() const;                            ///< where captures made by the program go

 Q_SIGNALS:
  void sessionReplaced();     ///< another document was opened
  void modelsChanged();
  void captureReady(const QString& captureId);  ///< a capture was made or found and can be read
  void variantsChanged();
  void resultsChanged();
  void message(const QString& text, const QString& detail);  ///< for the log

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qs
