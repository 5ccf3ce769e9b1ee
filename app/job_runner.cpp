#include "app/job_runner.h"

#include <QElapsedTimer>
#include <QPointer>
#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <stop_token>
#include <thread>

namespace qs {
namespace {

constexpr qint64 kReportEveryMs = 34;  // at most 30 a second
constexpr int kEndedKept = 200;
constexpr std::size_t kLanes = 2;

struct Job {
  JobStatus status;
  JobRunner::Work work;
  JobRunner::Done done;
  QPointer<QObject> context;
  bool has_context = false;
  std::stop_source stop;
  QElapsedTimer clock;
  qint64 reported_ms = -kReportEveryMs;
};

/// What the worker found out, carried to the GUI thread.
struct Outcome {
  JobState state = JobState::Succeeded;
  QString message, detail;
};

Outcome run(Job& job, const JobContext& context) {
  try {
    job.work(context);
    return {};
  } catch (const Cancelled&) {
    return {JobState::Cancelled, {}, {}};
  } catch (const Error& error) {
    return {JobState::Failed, QString::fromUtf8(error.what()), QString::fromStdString(error.detail())};
  } catch (const std::bad_alloc& error) {
    return {JobState::Failed,
            JobRunner::tr("There was not enough memory. Use fewer tokens, layers or variants, or close others."),
            QString::fromUtf8(error.what())};
  } catch (const std::exception& error) {
    return {JobState::Failed, JobRunner::tr("Something unexpected went wrong."), QString::fromUtf8(error.what())};
  } catch (...) {
    return {JobState::Failed, JobRunner::tr("Something unexpected went wrong."), {}};
  }
}

}  // namespace

struct JobRunner::Impl {
  explicit Impl(JobRunner* runner) : owner(runner) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      threads[lane] = std::thread([this, lane] { serve(lane); });
    }
  }

  void serve(std::size_t lane) {
    while (true) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return closing || !queues[lane].empty(); });
        if (closing) return;
        // Interactive answers the newest request first: the older ones are usually out of date.
        if (lane == static_cast<std::size_t>(JobLane::Interactive)) {
          job = queues[lane].back();
          queues[lane].pop_back();
        } else {
          job = queues[lane].front();
          queues[lane].pop_front();
        }
        job->clock.start();
      }
      post([this, id = job->status.id] { started(id); });
      const JobContext context(job->stop.get_token(), [this, &job](double fraction, std::string_view step) {
        const qint64 now = job->clock.elapsed();
        if (now - job->reported_ms < kReportEveryMs) return;
        job->reported_ms = now;
        post([this, id = job->status.id, fraction, now, text = QString::fromUtf8(step.data(), qsizetype(step.size()))] {
          progressed(id, fraction, now, text);
        });
      });
      Outcome outcome = job->stop.stop_requested() ? Outcome{JobState::Cancelled, {}, {}} : run(*job, context);
      job->work = nullptr;
      post([this, id = job->status.id, elapsed = job->clock.elapsed(), outcome = std::move(outcome)] {
        ended(id, elapsed, outcome);
      });
    }
  }

  /// Events that are still queued when the runner goes are dropped with it.
  template <typename Function>
  void post(Function function) {
    QMetaObject::invokeMethod(owner, std::move(function), Qt::QueuedConnection);
  }

  void started(quint64 id) {
    const auto found = active.find(id);
    if (found == active.end()) return;
    found->second->status.state = JobState::Running;
    Q_EMIT owner->jobChanged(found->second->status);
  }

  void progressed(quint64 id, double fraction, qint64 elapsed, const QString& step) {
    const auto found = active.find(id);
    if (found == active.end()) return;
    JobStatus& status = found->second->status;
    status.fraction = std::clamp(fraction, 0.0, 1.0);
    status.elapsedMs = elapsed;
    status.step = step;
    status.leftMs = elapsed > 300 && status.fraction > 0.01
                        ? qint64(double(elapsed) * (1.0 - status.fraction) / status.fraction)
                        : -1;
    Q_EMIT owner->jobChanged(status);
  }

  void ended(quint64 id, qint64 elapsed, const Outcome& outcome) {
    const auto found = active.find(id);
    if (found == active.end()) return;
    const std::shared_ptr<Job> job = found->second;
    active.erase(found);
    JobStatus& status = job->status;
    status.state = outcome.state;
    status.message = outcome.message;
    status.detail = outcome.detail;
    status.elapsedMs = elapsed;
    status.leftMs = -1;
    if (outcome.state == JobState::Succeeded) status.fraction = 1.0;
    past.push_back(status);
    if (past.size() > kEndedKept) past.pop_front();
    Q_EMIT owner->jobChanged(status);
    if (job->done && (!job->has_context || job->context)) job->done(status);
  }

  JobRunner* owner;
  std::mutex mutex;  // guards queues and closing
  std::condition_variable wake;
  bool closing = false;
  std::array<std::deque<std::shared_ptr<Job>>, kLanes> queues;
  std::array<std::thread, kLanes> threads;

  // GUI thread only
  quint64 next_id = 1;
  std::map<quint64, std::shared_ptr<Job>> active;
  std::deque<JobStatus> past;
};

JobRunner::JobRunner(QObject* parent) : QObject(parent), impl_(std::make_unique<Impl>(this)) {
  qRegisterMetaType<JobStatus>("qs::JobStatus");
}

JobRunner::~JobRunner() {
  for (auto& [id, job] : impl_->active) job->stop.request_stop();
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->closing = true;
  }
  impl_->wake.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

quint64 JobRunner::start(const QString& title, const QString& place, JobLane lane, Work work, QObject* context,
                         Done done) {
  auto job = std::make_shared<Job>();
  job->status.id = impl_->next_id++;
  job->status.title = title;
  job->status.place = place;
  job->status.lane = lane;
  job->work = std::move(work);
  job->done = std::move(done);
  job->context = context;
  job->has_context = context != nullptr;
  impl_->active.emplace(job->status.id, job);
  Q_EMIT jobChanged(job->status);
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->queues[static_cast<std::size_t>(lane)].push_back(job);
  }
  impl_->wake.notify_all();
  return job->status.id;
}

void JobRunner::cancel(quint64 id) {
  const auto found = impl_->active.find(id);
  if (found == impl_->active.end()) return;
  const std::shared_ptr<Job> job = found->second;
  job->stop.request_stop();
  bool was_queued = false;
  {
    const std::scoped_lock lock(impl_->mutex);
    auto& queue = impl_->queues[static_cast<std::size_t>(job->status.lane)];
    const auto position = std::find(queue.begin(), queue.end(), job);
    if (position != queue.end()) {
      queue.erase(position);
      was_queued = true;
    }
  }
  if (was_queued) {
    impl_->post([impl = impl_.get(), id] { impl->ended(id, 0, {JobState::Cancelled, {}, {}}); });
  }
}

void JobRunner::cancelAll() {
  QList<quint64> ids;
  for (const auto& [id, job] : impl_->active) ids << id;
  for (const quint64 id : ids) cancel(id);
}

QList<JobStatus> JobRunner::jobs() const {
  QList<JobStatus> result(impl_->past.begin(), impl_->past.end());
  for (const auto& [id, job] : impl_->active) result << job->status;
  return result;
}

bool JobRunner::busy() const { return !impl_->active.empty(); }

}  // namespace qs
