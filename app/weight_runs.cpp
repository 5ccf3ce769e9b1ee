#include "app/weight_runs.h"

#include <utility>

namespace qs {

namespace {

constexpr int kCoalesceMs = 50;

}  // namespace

WeightRuns::WeightRuns(QObject* parent) : QObject(parent) {
  soon_.setSingleShot(true);
  soon_.setInterval(kCoalesceMs);
  connect(&soon_, &QTimer::timeout, this, [this] {
    QSet<QString> ids;
    {
      const std::scoped_lock lock(mutex_);
      ids = std::exchange(dirty_, {});
    }
    for (const QString& id : ids) Q_EMIT changed(id);
  });
}

/// The caller holds the mutex.
void WeightRuns::touched(const QString& variantId) {
  if (dirty_.isEmpty())
    QMetaObject::invokeMethod(
        this, [this] { soon_.start(); }, Qt::QueuedConnection);
  dirty_.insert(variantId);
}

void WeightRuns::begin(const QString& variantId, WeightRun run) {
  const std::scoped_lock lock(mutex_);
  Entry& entry = runs_[variantId];
  entry.run = std::move(run);
  entry.clock.start();
  touched(variantId);
}

void WeightRuns::forecast(const QString& variantId, const WeightForecast& forecast) {
  const std::scoped_lock lock(mutex_);
  runs_[variantId].run.forecast = forecast;
  touched(variantId);
}

void WeightRuns::linear(const QString& variantId, const LayerProgress& progress) {
  const std::scoped_lock lock(mutex_);
  std::vector<LayerProgress>& linears = runs_[variantId].run.linears;
  // A run that starts over without packed products tells of the same linears again.
  for (LayerProgress& known : linears) {
    if (known.linear != progress.linear) continue;
    const bool resumed = known.resumed && progress.resumed;
    known = progress;
    known.resumed = resumed;
    return touched(variantId);
  }
  linears.push_back(progress);
  touched(variantId);
}

void WeightRuns::end(const QString& variantId, WeightRun::State state, const QString& reason) {
  const std::scoped_lock lock(mutex_);
  const auto entry = runs_.find(variantId);
  if (entry == runs_.end()) return;
  entry->run.elapsed_seconds = static_cast<double>(entry->clock.elapsed()) / 1000.0;
  entry->run.state = state;
  entry->run.reason = reason;
  touched(variantId);
}

std::optional<WeightRun> WeightRuns::run(const QString& variantId) const {
  const std::scoped_lock lock(mutex_);
  const auto entry = runs_.constFind(variantId);
  if (entry == runs_.constEnd()) return std::nullopt;
  WeightRun run = entry->run;
  if (run.state == WeightRun::State::Running)
    run.elapsed_seconds = static_cast<double>(entry->clock.elapsed()) / 1000.0;
  return run;
}

void WeightRuns::clear() {
  const std::scoped_lock lock(mutex_);
  runs_.clear();
  dirty_.clear();
}

}  // namespace qs
