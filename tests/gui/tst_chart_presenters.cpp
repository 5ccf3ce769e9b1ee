#include <QElapsedTimer>
#include <QFileInfo>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>
#include <QTextBrowser>

#include "app/presenters/alpha_presenter.h"
#include "app/presenters/chat_presenter.h"
#include "app/presenters/distribution_presenter.h"
#include "app/presenters/results_presenter.h"
#include "app/workbench.h"
#include "widgets/views/alpha_sweep_view.h"
#include "widgets/views/chat_view.h"
#include "widgets/views/distribution_view.h"
#include "widgets/views/results_view.h"

using namespace qs;

/// The presenters on the bundled sample: real model, real capture, real runs.
class ChartPresentersTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() {
    qputenv("XDG_DATA_HOME", folder_.path().toUtf8());
    workbench_ = std::make_unique<Workbench>();
    workbench_->openSample();
    QVERIFY(!workbench_->session().variants.isEmpty());
  }
  void cleanupTestCase() { workbench_.reset(); }

  void theChatGeneratesInEveryColumnAndReplays() {
    ChatView view(workbench_->selection());
    ChatPresenter presenter(*workbench_, view);
    QStringList ids;
    const QString model = workbench_->session().variants.first().modelId;
    for (const VariantEntry& entry : workbench_->session().variants) {
      if (entry.modelId == model && entry.weights.isEmpty() && ids.size() < 3) ids << entry.id;
    }
    view.setColumns(ids);
    view.setPrompt(QStringLiteral("Once upon a time"));
    SamplingOptions options;
    options.max_tokens = 48;
    view.setSampling(options);
    Q_EMIT view.sendRequested(view.request());
    QVERIFY(view.running());
    QTRY_VERIFY_WITH_TIMEOUT(!view.running(), 60000);
    for (int i = 0; i < view.columnCount(); ++i) {
      QVERIFY2(view.column(i)->state() == ChatColumn::State::Done, qPrintable(view.column(i)->message()));
      QVERIFY(!view.column(i)->steps().empty());
      QVERIFY(view.column(i)->stats().kvBytes > 0);
      if (i > 0) QCOMPARE(view.column(i)->replaySteps().size(), view.column(0)->steps().size());
      qInfo("%s: %s", qPrintable(view.column(i)->variant().name), qPrintable(view.column(i)->statsText()));
    }
  }

  void aStoppedMessageEndsWithinASecond() {
    ChatView view(workbench_->selection());
    ChatPresenter presenter(*workbench_, view);
    view.setPrompt(QStringLiteral("Once upon a time"));
    SamplingOptions options;
    options.max_tokens = 100000;
    view.setSampling(options);
    Q_EMIT view.sendRequested(view.request());
    QTRY_VERIFY_WITH_TIMEOUT(!view.column(0)->steps().empty(), 20000);
    QElapsedTimer timer;
    timer.start();
    Q_EMIT view.stopRequested(-1);
    QTRY_VERIFY_WITH_TIMEOUT(!view.running(), 5000);
    QVERIFY2(timer.elapsed() < 1500, qPrintable(QString::number(timer.elapsed())));
  }

  void thePromptIsPreviewedWithTheTokenizersIds() {
    ChatView view(workbench_->selection());
    ChatPresenter presenter(*workbench_, view);
    view.setPrompt(QStringLiteral("Once upon a time"));
    Q_EMIT view.promptPreviewRequested(view.request());
    QTRY_VERIFY_WITH_TIMEOUT(view.findChild<QTextBrowser*>(QStringLiteral("prompt_preview_text")), 20000);
    QVERIFY(view.findChild<QTextBrowser*>(QStringLiteral("prompt_preview_text"))->toPlainText().contains(u"Once"));
  }

  void aMissingVariantFailsInItsColumnOnly() {
    ChatView view(workbench_->selection());
    ChatPresenter presenter(*workbench_, view);
    ChatRequest request = view.request();
    request.prompt = QStringLiteral("Once");
    request.sampling.max_tokens = 4;
    request.variantIds = {view.columns().first(), QStringLiteral("not there")};
    view.setColumns(request.variantIds);
    Q_EMIT view.sendRequested(request);
    QTRY_VERIFY_WITH_TIMEOUT(!view.running(), 30000);
    QCOMPARE(view.column(0)->state(), ChatColumn::State::Done);
    QCOMPARE(view.column(1)->state(), ChatColumn::State::Failed);
    QVERIFY(view.column(1)->message().contains(QStringLiteral("not there")));
  }

  void captureViewsFillFromTheSample() {
    AlphaSweepView alpha(workbench_->selection());
    AlphaPresenter alphaPresenter(*workbench_, alpha);
    DistributionView distribution(workbench_->selection());
    DistributionPresenter distributionPresenter(*workbench_, distribution);
    workbench_->ensureCaptures();
    QTRY_VERIFY_WITH_TIMEOUT(distribution.state() == ViewState::Ready, 90000);
    QTRY_VERIFY_WITH_TIMEOUT(!alpha.result().schemes.empty() &&
                                 alpha.result().schemes.back().points.back().state != AlphaPoint::State::Pending,
                             90000);
    QCOMPARE(alpha.result().metric, std::string("layer_mse"));
    QVERIFY(alpha.layerMap() != nullptr);
    for (const AlphaPoint& point : alpha.result().schemes.front().points)
      QVERIFY2(point.value > 0.0, point.failure.c_str());
    QVERIFY(distribution.dataTable()->rowCount() > 10);
  }

  void noResultsIsAnEmptyStateWithItsAction() {
    ResultsView view(workbench_->selection());
    ResultsPresenter presenter(*workbench_, view);
    QTest::qWait(50);
    if (!QFileInfo::exists(workbench_->resultsFile())) {
      QCOMPARE(view.state(), ViewState::Empty);
      QCOMPARE(view.stateActionId(), QStringLiteral("compare.evaluate"));
    }
  }

 private:
  QTemporaryDir folder_;
  std::unique_ptr<Workbench> workbench_;
};

QTEST_MAIN(ChartPresentersTest)
#include "tst_chart_presenters.moc"
