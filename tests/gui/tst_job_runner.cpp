#include <QElapsedTimer>
#include <QSignalSpy>
#include <QTest>
#include <QThread>
#include <QTimer>
#include <atomic>
#include <stdexcept>

#include "app/job_runner.h"
#include "backend/model/generate.h"
#include "backend/model/model.h"
#include "backend/model/threads.h"
#include "backend/model/variant.h"

using namespace qs;

namespace {

/// Runs one job to its end and returns how it ended.
JobStatus ended(JobRunner& runner, JobRunner::Work work) {
  JobStatus result;
  bool done = false;
  QObject context;
  runner.start(QStringLiteral("test"), QStringLiteral("here"), JobLane::Compute, std::move(work), &context,
               [&](const JobStatus& status) {
                 result = status;
                 done = true;
               });
  [&] { QTRY_VERIFY_WITH_TIMEOUT(done, 10000); }();
  return result;
}

void until_stopped(const JobContext& job) {
  for (int i = 0; i < 100000; ++i) {
    job.checkpoint(i, 100000, "Working");
    QThread::msleep(1);
  }
}

}  // namespace

class TestJobRunner : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void resultsArriveOnTheGuiThread() {
    JobRunner runner;
    QThread* worker = nullptr;
    int value = 0;
    runner.compute(
        QStringLiteral("answer"), {}, JobLane::Interactive,
        [&worker](const JobContext&) {
          worker = QThread::currentThread();
          return 42;
        },
        this,
        [&](int result) {
          QCOMPARE(QThread::currentThread(), qApp->thread());
          value = result;
        },
        {});
    QTRY_COMPARE(value, 42);
    QVERIFY(worker != qApp->thread());
    QVERIFY(!runner.busy());
    QCOMPARE(runner.jobs().last().state, JobState::Succeeded);
  }

  void everyWayToFailIsShownWithItsCause() {
    JobRunner runner;
    const JobStatus told =
        ended(runner, [](const JobContext&) { throw Error(ErrorCode::Io, "The disk is full.", "errno 28"); });
    QCOMPARE(told.state, JobState::Failed);
    QCOMPARE(told.message, QStringLiteral("The disk is full."));
    QCOMPARE(told.detail, QStringLiteral("errno 28"));
    QCOMPARE(told.place, QStringLiteral("here"));
    const JobStatus odd = ended(runner, [](const JobContext&) { throw std::logic_error("index"); });
    QCOMPARE(odd.state, JobState::Failed);
    QCOMPARE(odd.detail, QStringLiteral("index"));
    QCOMPARE(ended(runner, [](const JobContext&) { throw std::bad_alloc(); }).state, JobState::Failed);
    QCOMPARE(ended(runner, [](const JobContext&) { throw 1; }).state, JobState::Failed);
    QCOMPARE(ended(runner, [](const JobContext&) { throw Cancelled{}; }).state, JobState::Cancelled);
    QCOMPARE(ended(runner, [](const JobContext&) {}).state, JobState::Succeeded);
  }

  void cancelIsNoticedWithinASecond() {
    JobRunner runner;
    JobState state = JobState::Running;
    const quint64 id = runner.start(QStringLiteral("long"), {}, JobLane::Compute, until_stopped, this,
                                    [&](const JobStatus& status) { state = status.state; });
    QTRY_COMPARE(runner.jobs().last().state, JobState::Running);
    QElapsedTimer clock;
    clock.start();
    runner.cancel(id);
    QVERIFY2(clock.elapsed() < 20, "cancel() itself must not wait");
    QTRY_COMPARE_WITH_TIMEOUT(state, JobState::Cancelled, 1000);
  }

  void aQueuedJobIsCancelledWithoutRunning() {
    JobRunner runner;
    const quint64 first = runner.start(QStringLiteral("first"), {}, JobLane::Compute, until_stopped, nullptr, {});
    bool ran = false;
    JobState state = JobState::Queued;
    const quint64 second = runner.start(
        QStringLiteral("second"), {}, JobLane::Compute, [&](const JobContext&) { ran = true; }, this,
        [&](const JobStatus& status) { state = status.state; });
    runner.cancel(second);
    QTRY_COMPARE_WITH_TIMEOUT(state, JobState::Cancelled, 1000);
    runner.cancel(first);
    QTRY_VERIFY(!runner.busy());
    QVERIFY(!ran);
  }

  void viewsAreServedWhileALongJobRuns() {
    JobRunner runner;
    const quint64 slow = runner.start(QStringLiteral("long"), {}, JobLane::Compute, until_stopped, nullptr, {});
    bool served = false;
    runner.start(
        QStringLiteral("view"), {}, JobLane::Interactive, [](const JobContext&) {}, this,
        [&](const JobStatus&) { served = true; });
    QTRY_VERIFY_WITH_TIMEOUT(served, 1000);
    runner.cancel(slow);
    QTRY_VERIFY(!runner.busy());
  }

  void theNewestViewRequestIsServedFirst() {
    JobRunner runner;
    std::atomic<bool> go = false;
    QStringList order;
    runner.start({}, {}, JobLane::Interactive,
                 [&](const JobContext&) {
                   while (!go) QThread::msleep(1);
                 },
                 this, {});
    QTRY_COMPARE(runner.jobs().last().state, JobState::Running);
    for (const char* name : {"old", "newer", "newest"}) {
      runner.start(
          QLatin1String(name), {}, JobLane::Interactive, [](const JobContext&) {}, this,
          [&](const JobStatus& status) { order << status.title; });
    }
    go = true;
    QTRY_COMPARE(order.size(), 3);
    QCOMPARE(order, (QStringList{QStringLiteral("newest"), QStringLiteral("newer"), QStringLiteral("old")}));
  }

  void progressIsReportedAtMostThirtyTimesASecondWithATimeLeft() {
    JobRunner runner;
    int reports = 0;
    qint64 left = -1;
    connect(&runner, &JobRunner::jobChanged, this, [&](const JobStatus& status) {
      if (status.state != JobState::Running || status.step.isEmpty()) return;
      ++reports;
      left = std::max(left, status.leftMs);
    });
    QElapsedTimer clock;
    clock.start();
    ended(runner, [](const JobContext& job) {
      for (int i = 0; i < 2000; ++i) {
        job.checkpoint(i, 2000, "Working");
        QThread::usleep(500);
      }
    });
    QVERIFY(reports > 5);
    QVERIFY2(reports <= 2 + clock.elapsed() * 30 / 1000, qPrintable(QString::number(reports)));
    QVERIFY(left > 0);
  }

  void anAnswerForADestroyedContextIsDropped() {
    JobRunner runner;
    bool called = false;
    auto context = std::make_unique<QObject>();
    runner.start(
        {}, {}, JobLane::Compute, [](const JobContext&) { QThread::msleep(20); }, context.get(),
        [&](const JobStatus&) { called = true; });
    context.reset();
    QTRY_VERIFY(!runner.busy());
    QVERIFY(!called);
  }

  void closingStopsWhatRunsAndWhatWaits() {
    QElapsedTimer clock;
    {
      JobRunner runner;
      for (int i = 0; i < 5; ++i) runner.start({}, {}, JobLane::Compute, until_stopped, nullptr, {});
      QTest::qWait(20);
      clock.start();
    }
    QVERIFY(clock.elapsed() < 1000);
  }

  void theEventLoopIsNeverBlockedWhileAModelGenerates() {
    set_threads(1);
    JobRunner runner;
    bool done = false;
    qint64 worst_us = 0, ticks = 0;
    QElapsedTimer since;
    QTimer tick;
    tick.setTimerType(Qt::PreciseTimer);
    connect(&tick, &QTimer::timeout, this, [&] {
      worst_us = std::max(worst_us, since.nsecsElapsed() / 1000);
      ++ticks;
      since.restart();
    });
    JobStatus status;
    runner.start(
        QStringLiteral("generate"), {}, JobLane::Compute,
        [](const JobContext& job) {
          const auto model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, job);
          const auto variant = make_variant(model, {}, {}, nullptr, WeightExecution::Simulated, job);
          SamplingOptions options;
          options.max_tokens = 300;
          options.stop_at_eos = false;
          generate(*variant, encode_with_bos(model->tokenizer(), "Once upon a time"), options, {}, job);
        },
        this,
        [&](const JobStatus& ended) {
          status = ended;
          done = true;
        });
    since.start();
    tick.start(5);
    QTRY_VERIFY_WITH_TIMEOUT(done, 60000);
    QVERIFY2(status.state == JobState::Succeeded, qPrintable(status.message + status.detail));
    QVERIFY(ticks > 3);
    QVERIFY2(worst_us < 50'000, qPrintable(QStringLiteral("longest gap %1 ms").arg(worst_us / 1000.0)));
  }
};

QTEST_MAIN(TestJobRunner)
#include "tst_job_runner.moc"
