#pragma once

#include <QFileInfo>
#include <QHash>
#include <QSet>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "app/weight_runs.h"
#include "app/workbench.h"
#include "sessions/session_document.h"

namespace qs {

/// Values made once per key; who comes second while the first still works waits for it. Any thread.
template <typename Value>
class SharedCache {
 public:
  template <typename Make>
  std::shared_ptr<Value> get(const QString& key, Make make) {
    const std::shared_ptr<Slot> slot = slot_of(key);
    const std::scoped_lock lock(slot->mutex);
    if (!slot->value) slot->value = make();
    return slot->value;
  }
  void drop(const QString& key) {
    const std::scoped_lock lock(mutex_);
    slots_map_.erase(key);
  }
  void clear() {
    const std::scoped_lock lock(mutex_);
    slots_map_.clear();
  }

 private:
  struct Slot {
    std::mutex mutex;
    std::shared_ptr<Value> value;
  };
  std::shared_ptr<Slot> slot_of(const QString& key) {
    const std::scoped_lock lock(mutex_);
    std::shared_ptr<Slot>& slot = slots_map_[key];
    if (!slot) slot = std::make_shared<Slot>();
    return slot;
  }
  std::mutex mutex_;
  std::map<QString, std::shared_ptr<Slot>> slots_map_;
};

struct Workbench::Impl {
  std::optional<SessionDocument> document;
  std::optional<SelectionHub> selection;
  std::optional<JobRunner> jobs;
  WeightRuns weight_runs;
  bool replacing = false;
  QSet<QString> ready;      ///< captures that can be read; GUI thread only
  QSet<QString> capturing;  ///< ids with a job under way; GUI thread only

  SharedCache<const Model> models;
  SharedCache<const Variant> variants;
  SharedCache<CaptureReader> captures;
  SharedCache<int> capture_files;                ///< one writer a file
  QHash<QString, CalibrationNote> calibrations;  ///< by variant; with calibrations_mutex
  mutable std::mutex calibrations_mutex;

  /// Jobs read entries from this copy, never from the document.
  SessionState snapshot() const {
    const std::scoped_lock lock(mutex_);
    return state_;
  }
  void setSnapshot(const SessionState& state) {
    const std::scoped_lock lock(mutex_);
    state_ = state;
  }
  void clearCaches() {
    models.clear();
    variants.clear();
    captures.clear();
    capture_files.clear();
    const std::scoped_lock lock(calibrations_mutex);
    calibrations.clear();
  }

 private:
  mutable std::mutex mutex_;
  SessionState state_;
};

}  // namespace qs
