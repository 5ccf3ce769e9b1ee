#pragma once

#include <QElapsedTimer>
#include <QHash>
#include <QObject>
#include <QSet>
#include <QString>
#include <QTimer>
#include <mutex>
#include <optional>
#include <vector>

#include "backend/types/weight_run.h"

namespace qs {

/// One layer-by-layer quantization of a variant's weights, as far as it went.
struct WeightRun {
  enum class State { Running, Finished, Stopped };
  State state = State::Running;
  QString setup;
  QString checkpoint;   ///< folder of the finished blocks
  QString calibration;  ///< text and windows
  std::int64_t linears_per_layer = 0;
  std::optional<WeightForecast> forecast;
  std::vector<LayerProgress> linears;  ///< in the order in which they were finished
  double elapsed_seconds = 0.0;
  QString reason;  ///< why it stopped
};

/// The runs of this session, by variant. Told by the working thread, read by anyone.
class WeightRuns : public QObject {
  Q_OBJECT
 public:
  explicit WeightRuns(QObject* parent = nullptr);

  // By the thread that quantizes.
  void begin(const QString& variantId, WeightRun run);
  void forecast(const QString& variantId, const WeightForecast& forecast);
  void linear(const QString& variantId, const LayerProgress& progress);
  void end(const QString& variantId, WeightRun::State state, const QString& reason = {});

  std::optional<WeightRun> run(const QString& variantId) const;
  void clear();

 Q_SIGNALS:
  /// On this object's thread, at most 20 times a second for one variant.
  void changed(const QString& variantId);

 private:
  struct Entry {
    WeightRun run;
    QElapsedTimer clock;
  };
  void touched(const QString& variantId);

  mutable std::mutex mutex_;
  QHash<QString, Entry> runs_;
  QSet<QString> dirty_;
  QTimer soon_;
};

}  // namespace qs
