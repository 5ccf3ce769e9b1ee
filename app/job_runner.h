#pragma once

#include <QObject>
#include <QString>
#include <functional>
#include <memory>
#include <type_traits>

#include "backend/types/error.h"
#include "backend/types/job.h"

namespace qs {

enum class JobState { Queued, Running, Succeeded, Failed, Cancelled };

/// Which thread works: Compute runs heavy jobs one after another; Interactive serves views, newest request first, and
/// is never behind a long job.
enum class JobLane { Compute, Interactive };

struct JobStatus {
  quint64 id = 0;
  QString title, place;  ///< `place`: the view or panel that started it, where a failure is shown
  JobLane lane = JobLane::Compute;
  JobState state = JobState::Queued;
  double fraction = 0.0;
  QString step;
  qint64 elapsedMs = 0, leftMs = -1;  ///< leftMs -1: unknown yet
  QString message, detail;            ///< of a failure
};

/// The only code that knows both threads and signals (style section 7). Lives on the GUI thread.
class JobRunner : public QObject {
  Q_OBJECT
 public:
  explicit JobRunner(QObject* parent = nullptr);
  ~JobRunner() override;  ///< requests a stop of everything and joins

  using Work = std::function<void(const JobContext&)>;
  using Done = std::function<void(const JobStatus&)>;

  /// Queues `work`. `done` is called on the GUI thread when it ended in any way, unless `context` was destroyed before.
  quint64 start(const QString& title, const QString& place, JobLane lane, Work work, QObject* context, Done done);

  /// The same for work that returns a value: `succeeded(value)` or `ended(status)` for failure and cancel.
  template <typename Make, typename Succeeded>
  quint64 compute(const QString& title, const QString& place, JobLane lane, Make make, QObject* context,
                  Succeeded succeeded, Done ended) {
    using Value = std::invoke_result_t<Make, const JobContext&>;
    auto slot = std::make_shared<std::unique_ptr<Value>>();
    return start(
        title, place, lane,
        [slot, make = std::move(make)](const JobContext& job) { *slot = std::make_unique<Value>(make(job)); }, context,
        [slot, succeeded = std::move(succeeded), ended = std::move(ended)](const JobStatus& status) mutable {
          if (status.state == JobState::Succeeded) {
            succeeded(std::move(**slot));
          } else if (ended) {
            ended(status);
          }
        });
  }

  void cancel(quint64 id);  ///< requests a stop and returns at once
  void cancelAll();
  QList<JobStatus> jobs() const;  ///< queued, running and the last 200 ended ones, oldest first
  bool busy() const;

 Q_SIGNALS:
  void jobChanged(const qs::JobStatus& status);  ///< at most 30 a second for progress of one job

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qs
