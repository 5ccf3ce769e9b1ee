#include "app/presenters/alpha_presenter.h"

#include <QFileInfo>
#include <QPointer>
#include <algorithm>
#include <cmath>

#include "backend/evaluation/alpha_sweep.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"
#include "widgets/views/alpha_sweep_view.h"

namespace qs {

namespace {

constexpr std::size_t kLayerTokens = 256;  // enough for stable layer errors, a fraction of a second
constexpr std::int64_t kWindows = 8;
const std::vector<std::pair<int, int>> kSchemes = {{8, 8}, {6, 6}};

std::vector<double> grid() {
  std::vector<double> alphas;
  for (int i = 35; i <= 90; i += 5) alphas.push_back(i / 100.0);
  return alphas;
}

std::vector<double> united(std::vector<double> alphas, const AlphaSweepResult& known) {
  if (!known.schemes.empty()) {
    for (const AlphaPoint& point : known.schemes.front().points) {
      if (point.state == AlphaPoint::State::Done || point.state == AlphaPoint::State::Cached)
        alphas.push_back(point.alpha);
    }
  }
  std::sort(alphas.begin(), alphas.end());
  alphas.erase(std::unique(alphas.begin(), alphas.end(), [](double a, double b) { return std::abs(a - b) < 1e-9; }),
               alphas.end());
  return alphas;
}

}  // namespace

QString with_layer_alphas(const QString& line, const std::vector<double>& alphas) {
  const auto setup = parse_weight_setup(line.toStdString());
  struct Run {
    std::string line;
    std::size_t first = 0, last = 0;
  };
  std::vector<Run> runs;  // neighbours with one setup
  for (std::size_t layer = 0; layer < alphas.size(); ++layer) {
    Setup own = setup ? setup_of_layer(*setup, static_cast<std::int64_t>(layer)) : Setup{"smoothquant", {}};
    own.range = {};
    if (!std::isnan(alphas[layer])) {
      const auto alpha = own.params.find("alpha");
      if (own.method != "smoothquant" || alpha == own.params.end())
        throw Error(ErrorCode::InvalidArgument, "Layer " + std::to_string(layer) + " of '" + line.toStdString() +
                                                    "' is not smoothed, so that it has no alpha.");
      alpha->second = alphas[layer];
    }
    std::string text = own.method == "none" ? own.method : format_setup(own, weight_method_infos());
    if (runs.empty() || runs.back().line != text)
      runs.push_back({std::move(text), layer, layer});
    else
      runs.back().last = layer;
  }
  if (runs.empty()) return line;
  if (runs.size() == 1) return QString::fromStdString(runs.front().line);
  std::string joined = "layers:";
  for (const Run& run : runs) {
    if (joined.back() != ':') joined += ';';
    joined += std::to_string(run.first);
    if (run.last > run.first) joined += "-" + std::to_string(run.last);
    joined += "=" + run.line;
  }
  return QString::fromStdString(format_setup(*parse_weight_setup(joined), weight_method_infos()));
}

AlphaPresenter::AlphaPresenter(Workbench& workbench, AlphaSweepView& view) : workbench_(workbench), view_(view) {
  connect(&view_, &AlphaSweepView::sweepRequested, this, [this](bool modelMode) { sweep(grid(), modelMode); });
  connect(&view_, &AlphaSweepView::pointsRequested, this, &AlphaPresenter::sweep);
  connect(&view_, &AlphaSweepView::layerAlphasRequested, this, &AlphaPresenter::useAlphas);
  connect(&view_, &ViewBase::cancelRequested, this, [this] {
    if (job_) workbench_.jobs().cancel(job_);
  });
  connect(&view_, &ViewBase::settingsChanged, this, &AlphaPresenter::showKnown);
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action == QLatin1String("alpha.sweep") || action == QLatin1String("view.retry")) {
      capture_.clear();
      follow();
    }
  });
  connect(&workbench_.selection(), &SelectionHub::changed, this, [this] {
    if (view_.isLinked()) follow();
  });
  connect(&workbench_, &Workbench::captureReady, this, &AlphaPresenter::follow);
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    capture_.clear();
    known_.clear();
    follow();
  });
  QMetaObject::invokeMethod(this, &AlphaPresenter::follow, Qt::QueuedConnection);
}

QString AlphaPresenter::captureId() const {
  const QString chosen = workbench_.session().selection.captureA;
  const QString live = workbench_.selection().selection().captureA;
  for (const QString& id : {live, chosen}) {
    if (!id.isEmpty() && workbench_.captureEntry(id)) return id;
  }
  return workbench_.session().captures.isEmpty() ? QString() : workbench_.session().captures.first().id;
}

QString AlphaPresenter::resultKey(bool modelMode) const {
  return capture_ + (modelMode ? QStringLiteral("/model") : QStringLiteral("/layer"));
}

void AlphaPresenter::provenance(bool modelMode) {
  const auto entry = workbench_.captureEntry(capture_);
  if (!entry) return;
  Provenance p;
  p.session = workbench_.session().title;
  p.data = tr("%1 on %2").arg(entry->modelId, QFileInfo(entry->text).fileName());
  p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
  const auto model = workbench_.modelEntry(entry->modelId);
  p.command =
      QStringLiteral("quantoscope-cli alpha-sweep %1 --text %2 --alphas 0.35:0.90:0.05%3")
          .arg(model ? workbench_.resolvePath(model->path) : entry->modelId, workbench_.resolvePath(entry->text),
               modelMode ? QStringLiteral(" --windows %1").arg(kWindows) : QString());
  view_.setProvenance(p);
}

void AlphaPresenter::follow() {
  const QString id = captureId();
  if (id.isEmpty()) {
    capture_.clear();
    view_.setState(ViewState::Empty, tr("A sweep needs a model and the channel maxima of a capture."),
                   QStringLiteral("capture.kv"), tr("Capture KV…"));
    return;
  }
  const auto entry = workbench_.captureEntry(id);
  if (id == capture_ || !workbench_.isReadable(id)) return;
  capture_ = id;
  const quint64 generation = ++generation_;
  view_.setState(ViewState::Loading, tr("Reading channel maxima"));
  workbench_.jobs().compute(
      tr("Channel maxima"), view_.viewId(), JobLane::Interactive,
      [&workbench = workbench_, id, modelId = entry->modelId](const JobContext& job) {
        const auto capture = workbench.openCapture(id, job);
        const auto model = workbench.loadModel(modelId, job);
        return migration_inputs(*model, calibration_from_capture(*capture));
      },
      this,
      [this, generation](std::vector<MigrationInput> inputs) {
        if (generation != generation_) return;
        view_.setMigrationInputs(std::move(inputs));
        view_.setState(ViewState::Ready);
        showKnown();
        if (!known_.contains(resultKey(view_.modelMode()))) sweep(grid(), false);  // layer errors take a moment only
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_) return;
        capture_.clear();
        if (status.state == JobState::Failed) {
          view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Retry"), status.detail);
        } else {
          view_.setState(ViewState::Cancelled);
        }
      });
}

void AlphaPresenter::showKnown() {
  const auto known = known_.constFind(resultKey(view_.modelMode()));
  if (known == known_.constEnd() || (view_.result().fingerprint == known->fingerprint &&
                                     view_.result().model == known->model && view_.result().metric == known->metric)) {
    return;
  }
  view_.setResult(*known);
  provenance(view_.modelMode());
}

void AlphaPresenter::useAlphas(const std::vector<double>& alphas) {
  const auto capture = workbench_.captureEntry(capture_);
  if (!capture) return;
  // What is changed: the chosen SmoothQuant plan, else the model's first; its per-layer form keeps its id.
  std::optional<VariantEntry> from;
  const Selection chosen = workbench_.selection().selection();
  for (const VariantEntry& entry : workbench_.session().variants) {
    if (entry.modelId != capture->modelId || !entry.weights.contains(QLatin1String("smoothquant"))) continue;
    const bool better =
        !from || entry.id == chosen.variantB || entry.id == chosen.variantA ||
        (entry.weights.startsWith(QLatin1String("layers:")) && !from->weights.startsWith(QLatin1String("layers:")));
    if (better) from = entry;
  }
  try {
    const QString line = with_layer_alphas(from ? from->weights : QStringLiteral("smoothquant"), alphas);
    if (from && from->weights.startsWith(QLatin1String("layers:"))) {
      VariantEntry changed = *from;
      changed.weights = line;
      workbench_.changeVariant(changed, QStringLiteral("alpha-per-layer"));
      Q_EMIT workbench_.message(tr("%1: %2").arg(changed.name, line), {});
    } else {
      VariantEntry added;
      added.name = tr("SmoothQuant, alpha per layer · %1").arg(capture->modelId);
      added.modelId = capture->modelId;
      added.weights = line;
      const QString id = workbench_.addVariant(added);
      workbench_.selection().edit([&](Selection& s) { s.variantB = id; });
      Q_EMIT workbench_.message(tr("%1: %2").arg(added.name, line), {});
    }
  } catch (const Error& error) {
    Q_EMIT workbench_.failed(QString::fromUtf8(error.what()), QString::fromStdString(error.detail()));
  }
}

void AlphaPresenter::sweep(const std::vector<double>& alphas, bool modelMode) {
  const auto entry = workbench_.captureEntry(capture_);
  if (!entry || job_) return;
  const QString key = resultKey(modelMode);
  const auto known = std::make_shared<AlphaSweepResult>(known_.value(key));
  AlphaSweepRequest request;
  request.alphas = united(alphas, *known);
  request.bits = kSchemes;
  request.model_mode = modelMode;
  request.evaluation.windows = kWindows;
  const QString text = workbench_.resolvePath(entry->text);
  view_.setSweeping(true);
  provenance(modelMode);
  const QPointer<AlphaPresenter> self(this);
  JobRunner* runner = &workbench_.jobs();
  const auto show = [runner, self, key](const AlphaSweepResult& result) {
    QMetaObject::invokeMethod(runner, [self, key, result] {
      if (!self) return;
      self->known_[key] = result;
      if (self->resultKey(result.metric != "layer_mse") == key) self->view_.setResult(result);
    });
  };
  job_ = runner->start(
      modelMode ? tr("Alpha sweep, perplexity") : tr("Alpha sweep, layer error"), view_.viewId(),
      modelMode ? JobLane::Compute : JobLane::Interactive,
      [&workbench = workbench_, id = capture_, modelId = entry->modelId, request, known, text,
       show](const JobContext& job) mutable {
        const auto capture = workbench.openCapture(id, job);
        const auto model = workbench.loadModel(modelId, job);
        const Calibration calibration = calibration_from_capture(*capture);
        request.calibration_ids = capture->token_ids();
        if (request.calibration_ids.size() > kLayerTokens) request.calibration_ids.resize(kLayerTokens);
        if (request.model_mode) request.evaluation.text = read_text(std::filesystem::path(text.toStdU16String()));
        const AlphaSweepResult result =
            alpha_sweep(model, calibration, request, known->schemes.empty() ? nullptr : known.get(), show, job);
        show(result);
      },
      this,
      [this](const JobStatus& status) {
        job_ = 0;
        view_.setSweeping(false);
        if (status.state == JobState::Failed) {
          view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Retry"), status.detail);
        } else {
          view_.setState(ViewState::Ready);
        }
      });
}

}  // namespace qs
