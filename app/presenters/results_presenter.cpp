#include "app/presenters/results_presenter.h"

#include <QFileInfo>
#include <algorithm>

#include "backend/evaluation/published_numbers.h"
#include "backend/method_registry.h"
#include "backend/storage/results_file.h"
#include "widgets/models/results_model.h"
#include "widgets/views/results_view.h"

namespace qs {

ResultsPresenter::ResultsPresenter(Workbench& workbench, ResultsView& view) : workbench_(workbench), view_(view) {
  connect(&workbench_, &Workbench::resultsChanged, this, &ResultsPresenter::read);
  connect(&workbench_, &Workbench::sessionReplaced, this, &ResultsPresenter::read);
  connect(&view_, &ResultsView::evaluateRequested, this,
          [this] { Q_EMIT view_.actionRequested(QStringLiteral("compare.evaluate")); });
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action == QLatin1String("view.retry")) read();
  });
  connect(&view_, &ResultsView::variantActivated, this, [this](const QString& label) {
    for (const VariantEntry& entry : workbench_.session().variants) {
      QStringList setups;
      if (!entry.weights.isEmpty()) setups << entry.weights;
      if (!entry.kv.isEmpty()) setups << entry.kv;
      const bool fits = setups.isEmpty() ? label.contains(QLatin1String("full precision"))
                                         : std::all_of(setups.begin(), setups.end(),
                                                       [&](const QString& s) { return label.contains(s); });
      if (!fits) continue;
      workbench_.selection().edit([&](Selection& s) { s.variantB = entry.id; });
      return;
    }
  });
  QMetaObject::invokeMethod(this, &ResultsPresenter::read, Qt::QueuedConnection);
  readPublished();
}

void ResultsPresenter::readPublished() {
  workbench_.jobs().compute(
      tr("Published numbers"), view_.viewId(), JobLane::Interactive,
      [folder = workbench_.resolvePath(QStringLiteral("sample:published"))](const JobContext&) {
        return read_published_numbers(std::filesystem::path(folder.toStdU16String()));
      },
      this, [this](std::vector<PublishedNumber> numbers) { view_.setPublished(std::move(numbers), all_methods()); },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT workbench_.message(status.message, status.detail);
      });
}

void ResultsPresenter::read() {
  const QString path = workbench_.resultsFile();
  const quint64 generation = ++generation_;
  if (path.isEmpty() || !QFileInfo::exists(path)) {
    view_.setReports({});
    view_.setState(ViewState::Empty, tr("No results yet. Evaluate the variants of this session to compare them."),
                   QStringLiteral("compare.evaluate"), tr("Evaluate…"));
    return;
  }
  workbench_.jobs().compute(
      tr("Read results"), view_.viewId(), JobLane::Interactive,
      [path](const JobContext&) { return read_results(std::filesystem::path(path.toStdU16String())); }, this,
      [this, generation, path](std::vector<EvalReport> reports) {
        if (generation != generation_) return;
        Provenance p;
        p.session = workbench_.session().title;
        p.data = QFileInfo(path).fileName();
        if (!reports.empty())
          p.data += tr(", protocol %1").arg(QString::fromStdString(reports.front().fingerprint).left(12));
        p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
        p.command = QStringLiteral("quantoscope-cli inspect %1").arg(path);
        view_.setProvenance(p);
        view_.setReports(std::move(reports));
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_ || status.state != JobState::Failed) return;
        view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Retry"), status.detail);
      });
}

}  // namespace qs
