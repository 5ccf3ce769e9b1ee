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
struct KvArtifact;

/// Stored paths of the texts that come with the program; the first is the one captures and evaluations start with.
QStringList bundled_texts();

/// What a calibrated KV setup of a variant learned from.
struct CalibrationNote {
  QString setup;  ///< the part of the setup that was calibrated
  QString text;   ///< name of the text
  qint64 windows = 0, tokens = 0;
  quint64 seed = 0;
  QString made;  ///< local date and time
  QString line() const;
};
class WeightRuns;

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

  /// Loaded on first use and kept; call inside a job, from any thread. @throws Error as Model::load, or NotFound for
  /// the id
  std::shared_ptr<const Model> loadModel(const QString& modelId, const JobContext& job);
  std::shared_ptr<CaptureReader> openCapture(const QString& captureId, const JobContext& job);
  /// Builds model, calibration and quantized weights as needed; an empty id of the same model is its full precision.
  std::shared_ptr<const Variant> buildVariant(const QString& variantId, const JobContext& job);
  /// What layer-by-layer methods told while buildVariant ran.
  WeightRuns& weightRuns();
  /// Quantizes one layer of a run that left a checkpoint again, with another setup line of the same method, and builds
  /// the variant anew. @return the job; 0 when there is no such run
  quint64 retryLayer(const QString& variantId, int layer, const QString& setup);

  /// The calibration that the KV setup of a variant needs, made on its calibrationText() or remembered; null when it
  /// needs none. Call inside a job.
  std::shared_ptr<const KvArtifact> kvCalibration(const VariantEntry& variant, const JobContext& job);
  /// Where the variant's calibration came from, once it was built; any thread.
  std::optional<CalibrationNote> calibrationNote(const QString& variantId) const;
  /// Stored path of the text that evaluations of a model read when none is chosen: that of its last capture.
  QString evaluationText(const QString& modelId) const;
  /// Stored path of the text that a calibrated KV setup learns from: the variant's own choice, else a bundled text that
  /// evaluations of its model do not read.
  QString calibrationText(const VariantEntry& variant) const;

  /// Entry of the session by id; empty when it is not there.
  std::optional<ModelEntry> modelEntry(const QString& id) const;
  std::optional<CaptureEntry> captureEntry(const QString& id) const;
  std::optional<VariantEntry> variantEntry(const QString& id) const;
  QString resolvePath(const QString& storedPath) const;  ///< session-relative and `sample:` paths to absolute ones
  QString sampleFolder() const;                          ///< resources installed beside the program
  QString dataFolder() const;                            ///< where captures made by the program go
  QString cacheFolder() const;                           ///< what can be made again: calibrations

  // Documents. What is open stays open when one of these throws.
  void newSession();
  void openSession(const QString& path);  ///< @throws Error as read_session
  void openSample();                      ///< a fresh copy of the bundled sample session. @throws Error as read_session
  void saveSession(const QString& path);  ///< @throws Error as write_session
  void replaceSession(const SessionState& state, const QString& path, bool modified);

  // Work that the user starts; each queues a job and returns at once. Failures arrive as message() and in the job list.
  /// Reads the headers, adds the model with its full-precision variant. @param dtype  compute type
  void addModel(const QString& path, const QString& dtype = QStringLiteral("float32"));
  void addCapture(const QString& path);  ///< reads the headers, adds the capture and selects it
  /// Runs the text of a capture entry through its model and fills its file; makes nothing again unless `again` is set.
  /// @param taps  empty: all that captures have by default
  void makeCapture(const QString& captureId, bool again = false, const QStringList& taps = {}, bool weights = false);
  bool isCaptureReady(const QString& captureId) const;  ///< captureReady() was said of it; GUI thread
  bool isReadable(const QString& captureId) const;      ///< its file is there and nobody writes it now; GUI thread
  void ensureCaptures();                                ///< makes those of the session that are missing and have a text
  /// Evaluates each variant in its own job and adds the report to the results file.
  /// @param text  stored path; empty: evaluationText() of each variant's model
  void evaluate(const QStringList& variantIds, qint64 window, qint64 windows, const QStringList& tasks,
                const QString& text = {});
  void unloadModels();  ///< frees models, variants and open captures; they are loaded again when needed

  // Undoable changes of the session.
  QString addVariant(VariantEntry entry);  ///< gives it an id when it has none; returns the id
  void changeVariant(const VariantEntry& entry, const QString& mergeKey = {});
  void removeVariant(const QString& variantId);

  QString resultsFile() const;  ///< absolute path; the file need not exist yet
  QString freshId(const QString& prefix) const;

 Q_SIGNALS:
  void sessionReplaced();  ///< another document was opened
  void modelsChanged();
  void modelLoaded(const QString& modelId, qint64 weightBytes);  ///< its weights were mapped for the first time
  void captureReady(const QString& captureId);                   ///< a capture was made or found and can be read
  void variantsChanged();
  void resultsChanged();
  void capturesChanged();  ///< entries were added or removed; see captureReady for their content
  /// A generation ended: what the cache of `variantId` under its setup `kv` had allocated, and what f16 would take.
  void cacheMeasured(const QString& variantId, const QString& kv, qint64 bytes, qint64 bytesIfF16, qint64 tokens);
  void calibrated(const QString& variantId);                 ///< calibrationNote() has something to say of it
  void message(const QString& text, const QString& detail);  ///< for the log
  void failed(const QString& text, const QString& detail);   ///< for the log and the banner

 private:
  void noteCalibration(const VariantEntry& entry, const Variant& variant);
  QString weightCalibration(const VariantEntry& entry) const;  ///< capture that its weights learn from; may be empty
  QString variantKey(const VariantEntry& entry) const;         ///< two variants of one key are the same
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qs
