#include "app/presenters/weights_presenter.h"

#include <QFileInfo>
#include <algorithm>
#include <utility>

#include "analysis/weight_error.h"
#include "analysis/weight_progress.h"
#include "app/presenters/retry_layer_dialog.h"
#include "app/weight_runs.h"
#include "backend/evaluation/layer_statistics.h"
#include "backend/evaluation/weight_comparison.h"
#include "backend/method_registry.h"
#include "backend/model/model.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {
namespace {

// Weights of a model that are quantized and compared without being asked for: what takes seconds.
constexpr std::int64_t kMostAtOnce = 300'000'000;
constexpr std::int64_t kMostLayerByLayer = 20'000'000;

struct Answer {
  analysis::WeightOverview overview;
  bool too_large = false;
  std::int64_t parameters = 0;
};

bool is_layer_by_layer(const QString& line) {
  try {
    const auto setup = parse_weight_setup(line.toStdString());
    return setup && weight_calibration_needs(*setup).token_windows;
  } catch (const Error&) {
    return false;
  }
}

bool needs_capture(const QString& line) {
  try {
    const auto setup = parse_weight_setup(line.toStdString());
    return setup && weight_calibration_needs(*setup).any();
  } catch (const Error&) {
    return false;
  }
}

/// The part of a variant's name that its model does not say.
QString short_name(const VariantEntry& entry) {
  const QString model = QStringLiteral(" · ") + entry.modelId;
  return entry.name.endsWith(model) ? entry.name.chopped(model.size()) : entry.name;
}

analysis::WeightOverview compare_all(const WeightComparison& comparison, const std::vector<LayerProgress>& run,
                                     const JobContext& job) {
  const std::vector<std::string> names = comparison.names();
  std::vector<analysis::LinearReport> reports;
  for (std::size_t i = 0; i < names.size(); ++i) {
    job.checkpoint(static_cast<std::int64_t>(i), static_cast<std::int64_t>(names.size()), "Comparing weights");
    const ComparedLinear linear = comparison.compare(names[i]);
    analysis::LinearReport report;
    report.name = linear.name;
    report.kind = analysis::linear_kind(linear.name);
    report.layer = linear.layer;
    report.out_features = linear.original.shape[0];
    report.in_features = linear.original.shape[1];
    report.error = analysis::weight_error(linear.original, linear.quantized, linear.input_second_moment);
    report.effective_bits = linear.effective_bits;
    for (const LayerProgress& progress : run)
      if (progress.linear == linear.name) report.loss_ratio = analysis::loss_ratio(progress);
    reports.push_back(std::move(report));
  }
  return analysis::weight_overview(std::move(reports));
}

WeightSide side_of(const std::shared_ptr<const Variant>& variant, CaptureReader* capture, const QString& label,
                   std::int64_t layer, const std::string& kind, const JobContext& job) {
  WeightSide side;
  side.label = label;
  const WeightComparison comparison(variant, capture, job.part(0.0, 0.4));
  std::string chosen;
  for (const std::string& name : comparison.names()) {
    const bool here = name.compare(0, 8 + std::to_string(layer).size(), "layers." + std::to_string(layer) + ".") == 0;
    if (here && (chosen.empty() || analysis::linear_kind(name) == kind)) chosen = name;
  }
  if (chosen.empty()) {
    side.why = WeightsView::tr("The model has no linear in layer %1.").arg(layer);
    return side;
  }
  job.part(0.4, 0.5).checkpoint(0, 1, "Reading the weight");
  ComparedLinear linear = comparison.compare(chosen);
  side.report.name = linear.name;
  side.report.kind = analysis::linear_kind(linear.name);
  side.report.layer = linear.layer;
  side.report.out_features = linear.original.shape[0];
  side.report.in_features = linear.original.shape[1];
  side.report.effective_bits = linear.effective_bits;
  side.report.error = analysis::weight_error(linear.original, linear.quantized, linear.input_second_moment);
  job.part(0.5, 0.7).checkpoint(0, 1, "Error map");
  analysis::WeightErrorMap map = analysis::weight_error_map(linear.original, linear.quantized);
  side.absolute = std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(map.absolute_error));
  job.part(0.7, 0.9).checkpoint(0, 1, "Error map");
  side.signedError = std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(map.signed_error));
  side.byInput = std::move(map.by_input);
  side.byOutput = std::move(map.by_output);
  side.original = std::move(linear.original);
  side.quantized = std::move(linear.quantized);
  job.part(0.9, 1.0).checkpoint(0, 1, "Reading the grid");
  side.histogram =
      analysis::weight_histogram(side.original.values(), side.quantized.values(), WeightsView::kHistogramBins);
  side.grid = comparison.grid(chosen);
  if (!side.grid.kept.empty()) {
    side.kept = std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(side.grid.kept));
    side.keptShares = analysis::mask_shares(side.grid.kept);
  }
  return side;
}

}  // namespace

WeightsPresenter::WeightsPresenter(Workbench& workbench, WeightsView& view)
    : TensorPresenter(workbench, view, &view), view_(view) {
  connect(&view_, &WeightsView::linearChosen, this, &TensorPresenter::refresh);
  connect(&view_, &WeightsView::pageChanged, this, [this] {
    showState();
    showRun();
  });
  connect(&workbench.weightRuns(), &WeightRuns::changed, this, [this](const QString& id) {
    if (id == view_.run().variant()) showRun();
  });
  connect(&workbench.jobs(), &JobRunner::jobChanged, this, [this](const JobStatus& status) {
    if (status.id == build_job_) view_.setProgress(status.fraction, status.step);
    if (status.id != retry_job_ || status.state == JobState::Queued || status.state == JobState::Running) return;
    retry_job_ = 0;
    const QString key = std::exchange(retried_, {});
    if (status.state == JobState::Failed) {
      view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Show the weights"),
                     status.detail);
      return;
    }
    known_.remove(key);  // its weights are others now
    linear_shown_.clear();
    refresh();
  });
  connect(&view_.run(), &WeightRunPage::variantChosen, this, [this] {
    showRun();
    Q_EMIT view_.settingsChanged();
  });
  connect(&view_.run(), &WeightRunPage::startRequested, this, &WeightsPresenter::start);
  connect(&view_.layers(), &WeightLayersPage::measureRequested, this, &WeightsPresenter::measure);
  connect(&view_.run(), &WeightRunPage::retryLayerRequested, this, &WeightsPresenter::retryLayer);
  const auto cancel = [this] {
    for (const quint64 job : {build_job_, retry_job_, measure_job_})
      if (job) this->workbench().jobs().cancel(job);
  };
  connect(&view_.run(), &WeightRunPage::cancelRequested, this, cancel);
  connect(&view_.layers(), &WeightLayersPage::cancelRequested, this, cancel);
  connect(&view_, &ViewBase::cancelRequested, this, cancel);
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action != QLatin1String("weights.build")) return;
    for (const VariantEntry& entry : candidates()) {
      const auto known = known_.constFind(keyOf(entry));
      if (known != known_.constEnd() && !known->overview) return start(entry.id);
    }
  });
}

void WeightsPresenter::forget() {
  known_.clear();
  linear_shown_.clear();
  view_.layers().clear();
  measured_.clear();
  if (build_job_) workbench().jobs().cancel(build_job_);
  ++build_generation_;
  build_job_ = 0;
  building_.clear();
}

QString WeightsPresenter::modelId() const {
  Workbench& bench = const_cast<WeightsPresenter*>(this)->workbench();
  const Selection& s = view_.selection();
  for (const QString& id : {s.variantB, s.variantA}) {
    const auto entry = bench.variantEntry(id);
    if (entry && !entry->weights.isEmpty()) return entry->modelId;
  }
  if (const auto capture = bench.captureEntry(captureA())) return capture->modelId;
  return bench.session().models.isEmpty() ? QString() : bench.session().models.first().id;
}

QString WeightsPresenter::calibrationCapture(const QString& modelId) const {
  Workbench& bench = const_cast<WeightsPresenter*>(this)->workbench();
  const QString chosen = captureA();
  if (const auto entry = bench.captureEntry(chosen); entry && entry->modelId == modelId && bench.isReadable(chosen))
    return chosen;
  for (const CaptureEntry& entry : bench.session().captures)
    if (entry.modelId == modelId && bench.isReadable(entry.id)) return entry.id;
  return {};
}

QList<VariantEntry> WeightsPresenter::candidates() const {
  Workbench& bench = const_cast<WeightsPresenter*>(this)->workbench();
  const QString model = modelId();
  QList<VariantEntry> found;
  for (const VariantEntry& entry : bench.session().variants)
    if (entry.modelId == model && !entry.weights.isEmpty()) found << entry;
  // The chosen ones first, when there are more than the view can show.
  const Selection& s = view_.selection();
  std::stable_partition(found.begin(), found.end(), [&](const VariantEntry& entry) {
    return found.size() > WeightsView::kMostVariants && (entry.id == s.variantA || entry.id == s.variantB);
  });
  return found.mid(0, WeightsView::kMostVariants);
}

QString WeightsPresenter::keyOf(const VariantEntry& entry) const {
  return QStringList{entry.modelId, entry.weights, calibrationCapture(entry.modelId)}.join(QLatin1Char('|'));
}

void WeightsPresenter::update() {
  QList<std::pair<QString, QString>> names;
  const QList<VariantEntry> entries = candidates();
  for (const VariantEntry& entry : entries) {
    names.append({entry.id, short_name(entry)});
    if (measured_.contains(entry.id) && measured_.value(entry.id) != entry.weights) {
      measured_.remove(entry.id);  // a plan with other settings
      view_.layers().setStatistics(entry.id, std::nullopt);
      view_.layers().setDistance(entry.id, std::nullopt);
    }
  }
  view_.run().setVariants(names);
  view_.layers().setVariants(names);
  showVariants();
  showState();
  showRun();
  buildNext();
  askLinear();
}

void WeightsPresenter::showVariants() {
  std::vector<WeightVariant> shown;
  for (const VariantEntry& entry : candidates()) {
    WeightVariant variant{entry.id, short_name(entry), entry.weights, {}, {}};
    const QString key = keyOf(entry);
    if (const auto known = known_.constFind(key); known != known_.constEnd()) {
      variant.overview = known->overview;
      variant.why = known->why;
    } else {
      variant.why = key == building_ ? tr("Quantizing and comparing.") : tr("Waiting for the plans before it.");
    }
    shown.push_back(std::move(variant));
  }
  view_.setVariants(std::move(shown));
}

void WeightsPresenter::showState() {
  const QList<VariantEntry> entries = candidates();
  if (entries.isEmpty()) {
    view_.setState(ViewState::Empty,
                   tr("No plan with quantized weights yet. Make one to see what it does to each linear."),
                   QStringLiteral("quantize.new"), tr("New Plan..."));
    return;
  }
  if (view_.page() != WeightsView::Errors) return view_.setState(ViewState::Ready);  // those pages tell themselves
  const Known* open = nullptr;
  QString open_name;
  for (const VariantEntry& entry : entries) {
    const auto known = known_.constFind(keyOf(entry));
    if (known == known_.constEnd()) continue;
    if (known->overview) {
      if (!isAsking(QStringLiteral("linear"))) view_.setState(ViewState::Ready);
      return;
    }
    if (!open) open = &*known, open_name = short_name(entry);
  }
  if (!building_.isEmpty()) return view_.setState(ViewState::Loading, tr("Quantizing and comparing the weights"));
  if (!open) return;
  if (open->failed) {
    view_.setState(ViewState::Failed, tr("%1: %2").arg(open_name, open->why), QStringLiteral("view.retry"),
                   tr("Retry"));
  } else {
    view_.setState(ViewState::Empty, tr("%1: %2").arg(open_name, open->why), QStringLiteral("weights.build"),
                   tr("Quantize %1").arg(open_name));
  }
}

void WeightsPresenter::buildNext() {
  if (!building_.isEmpty()) return;
  for (const VariantEntry& entry : candidates()) {
    if (known_.contains(keyOf(entry))) continue;
    if (needs_capture(entry.weights) && calibrationCapture(entry.modelId).isEmpty()) {
      known_.insert(
          keyOf(entry),
          {{}, tr("It learns from a text. Capture one with this model first (Capture › Capture KV)."), true, false});
      showVariants();
      showState();
      continue;
    }
    return build(entry, false);
  }
}

void WeightsPresenter::start(const QString& variantId) {
  const auto entry = workbench().variantEntry(variantId);
  if (!entry || !building_.isEmpty()) return;
  known_.remove(keyOf(*entry));
  build(*entry, true);
}

void WeightsPresenter::retryLayer(const QString& variantId, int layer) {
  const auto entry = workbench().variantEntry(variantId);
  const auto run = workbench().weightRuns().run(variantId);
  if (!entry || !run || retry_job_) return;
  const auto layers = run->linears.empty() ? 1 : static_cast<int>(run->linears.front().layers);
  auto* dialog = new RetryLayerDialog(short_name(*entry), entry->weights, layer, layers, &view_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog, variantId] {
    const auto retried = workbench().variantEntry(variantId);
    if (!retried) return;
    retry_job_ = workbench().retryLayer(variantId, dialog->layer(), dialog->setup());
    retried_ = keyOf(*retried);
    showRun();
  });
  dialog->open();
}

void WeightsPresenter::build(const VariantEntry& entry, bool asked) {
  building_ = keyOf(entry);
  const quint64 generation = ++build_generation_;
  Workbench* bench = &workbench();
  const QString capture = calibrationCapture(entry.modelId);
  const bool by_layer = is_layer_by_layer(entry.weights);
  const QString key = building_;
  build_job_ = workbench().jobs().compute(
      tr("Quantize %1").arg(short_name(entry)), view_.viewId(), JobLane::Compute,
      [bench, id = entry.id, model_id = entry.modelId, capture, asked, by_layer](const JobContext& job) {
        Answer answer;
        const auto model = bench->loadModel(model_id, job.part(0.0, 0.1));
        answer.parameters = model->info().parameters;
        answer.too_large = !asked && answer.parameters > (by_layer ? kMostLayerByLayer : kMostAtOnce);
        if (answer.too_large) return answer;
        const auto variant = bench->buildVariant(id, job.part(0.1, 0.8));
        const auto reader = capture.isEmpty() ? nullptr : bench->openCapture(capture, job.part(0.8, 0.81));
        const WeightComparison comparison(variant, reader.get(), job.part(0.81, 0.85));
        const auto run = bench->weightRuns().run(id);
        answer.overview =
            compare_all(comparison, run ? run->linears : std::vector<LayerProgress>{}, job.part(0.85, 1.0));
        return answer;
      },
      this,
      [this, generation, key, entry, by_layer](Answer answer) {
        if (generation != build_generation_) return;
        building_.clear();
        build_job_ = 0;
        Known known;
        if (answer.too_large) {
          known.asks_first = true;
          known.why = by_layer ? tr("Quantizing %L1 parameters layer by layer takes a while. Run shows how far it is.")
                                     .arg(answer.parameters)
                               : tr("Comparing %L1 parameters takes a while.").arg(answer.parameters);
        } else {
          known.overview = std::make_shared<const analysis::WeightOverview>(std::move(answer.overview));
          describeShown(entry);
        }
        known_.insert(key, known);
        update();
      },
      [this, generation, key](const JobStatus& status) {
        if (generation != build_generation_) return;
        building_.clear();
        build_job_ = 0;
        const bool failed = status.state == JobState::Failed;
        known_.insert(key, {{}, failed ? status.message : tr("Cancelled. Finished layers were kept."), true, failed});
        update();
      });
  showVariants();
  showState();
  showRun();
}

void WeightsPresenter::measure(const QString& variantId, bool accumulated, int windows) {
  const auto entry = workbench().variantEntry(variantId);
  if (!entry || measure_job_) return;
  Workbench* bench = &workbench();
  const QString capture = calibrationCapture(entry->modelId),
                text = workbench().resolvePath(workbench().evaluationText(entry->modelId));
  struct Measured {
    std::optional<LayerStatistics> statistics;
    std::optional<LayerDistance> distance;
  };
  view_.layers().setBusy(variantId, true);
  measure_job_ = workbench().jobs().compute(
      accumulated ? tr("Accumulated errors of %1").arg(short_name(*entry))
                  : tr("Local errors of %1").arg(short_name(*entry)),
      view_.viewId(), JobLane::Compute,
      [bench, variantId, capture, text, accumulated, windows](const JobContext& job) {
        const auto variant = bench->buildVariant(variantId, job.part(0.0, 0.4));
        const auto reader = capture.isEmpty() ? nullptr : bench->openCapture(capture, job.part(0.4, 0.41));
        const auto unrounded = unrounded_weights(*variant, reader.get(), job.part(0.41, 0.5));
        Measured measured;
        if (accumulated) {
          DistanceRequest request;
          request.text = read_text(std::filesystem::path(text.toStdU16String()));
          request.windows = windows;
          measured.distance = layer_distance(*variant, *unrounded, request, job.part(0.5, 1.0));
        } else {
          EvalRequest request;
          request.text = read_text(std::filesystem::path(text.toStdU16String()));
          request.windows = windows;
          measured.statistics = layer_statistics(*variant, *unrounded, request, job.part(0.5, 1.0));
        }
        return measured;
      },
      this,
      [this, variantId, weights = entry->weights](Measured measured) {
        measure_job_ = 0;
        measured_.insert(variantId, weights);
        view_.layers().setBusy(variantId, false);
        if (measured.statistics) view_.layers().setStatistics(variantId, std::move(measured.statistics));
        if (measured.distance) view_.layers().setDistance(variantId, std::move(measured.distance));
      },
      [this, variantId](const JobStatus& status) {
        measure_job_ = 0;
        view_.layers().setBusy(
            variantId, false,
            status.state == JobState::Failed ? status.message : tr("Cancelled. Press Measure to start again."));
      });
}

void WeightsPresenter::describeShown(const VariantEntry& entry) {
  Provenance provenance;
  provenance.session = workbench().session().title;
  provenance.variant = entry.name;
  const auto capture = workbench().captureEntry(calibrationCapture(entry.modelId));
  provenance.data =
      capture ? tr("%1, inputs from %2").arg(entry.modelId, QFileInfo(capture->text).fileName()) : entry.modelId;
  provenance.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
  const QString text = workbench().resolvePath(workbench().evaluationText(entry.modelId));
  if (const auto model = workbench().modelEntry(entry.modelId))
    provenance.command = QStringLiteral("quantoscope-cli layers %1 --weights '%2' --what statistics --text %3")
                             .arg(workbench().resolvePath(model->path), entry.weights, text);
  view_.setProvenance(provenance);
}

void WeightsPresenter::askLinear() {
  const QList<VariantEntry> entries = candidates();
  const Selection& s = view_.selection();
  const auto compared = [&](const VariantEntry& entry) {
    const auto known = known_.constFind(keyOf(entry));
    return known != known_.constEnd() && known->overview;
  };
  // A is the chosen variant A where it has quantized weights, else the first; B the chosen B, else the next.
  const auto pick = [&](const QString& wanted, const QString& other) -> std::optional<VariantEntry> {
    for (const VariantEntry& entry : entries)
      if (entry.id == wanted && entry.id != other) return entry;
    for (const VariantEntry& entry : entries)
      if (entry.id != other && entry.id != s.variantB && entry.id != s.variantA && compared(entry)) return entry;
    for (const VariantEntry& entry : entries)
      if (entry.id != other && compared(entry)) return entry;
    return std::nullopt;
  };
  const auto a = pick(s.variantA, {});
  const auto b = pick(s.variantB, a ? a->id : QString());
  if (!a || (!compared(*a) && !(b && compared(*b)))) return;
  const QString id_a = compared(*a) ? a->id : QString(), id_b = b && compared(*b) ? b->id : QString();
  const QString name_a = short_name(*a), name_b = b ? short_name(*b) : QString();
  QString kind = view_.kind();
  if (kind.isEmpty()) kind = QStringLiteral("self_attn.q_proj");
  const QString capture = calibrationCapture(a->modelId);
  const int layer = std::max(0, s.layer);
  const QString wanted = QStringList{a->id,  a->weights, id_b, b ? b->weights : QString(), id_a,
                                     name_a, name_b,     kind, QString::number(layer),     capture}
                             .join(QLatin1Char('|'));
  if (wanted == linear_shown_) return;
  linear_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("linear"), tr("Reading the weights of layer %1").arg(layer), false,
      [=](const JobContext& job) {
        std::pair<WeightSide, WeightSide> sides;
        const auto reader = capture.isEmpty() ? nullptr : bench->openCapture(capture, job);
        const auto fill = [&](WeightSide& side, const QString& id, const QString& name, const JobContext& part) {
          side.label = name;
          if (id.isEmpty()) {
            side.why = name.isEmpty() ? tr("There is no second plan with quantized weights to compare with.")
                                      : tr("%1 is not quantized yet.").arg(name);
            return;
          }
          const auto variant = bench->buildVariant(id, part.part(0.0, 0.5));
          const std::int64_t last = static_cast<std::int64_t>(variant->model().info().layers) - 1;
          side = side_of(variant, reader.get(), name, std::min<std::int64_t>(layer, last), kind.toStdString(),
                         part.part(0.5, 1.0));
        };
        fill(sides.first, id_a, name_a, job.part(0.0, 0.5));
        fill(sides.second, id_b, name_b, job.part(0.5, 1.0));
        return sides;
      },
      [this](std::pair<WeightSide, WeightSide> sides) {
        const WeightSide& known = sides.first.shown() ? sides.first : sides.second;
        const int shown_layer = static_cast<int>(known.report.layer);
        const QString shown_kind = QString::fromStdString(known.report.kind);
        const bool only_b = !sides.first.shown() && sides.second.shown();
        view_.setLinear(shown_layer, shown_kind, std::move(sides.first), std::move(sides.second));
        if (only_b && view_.compareMode() == HeatmapView::A && !view_.isBlinking())
          view_.setCompareMode(HeatmapView::B);
        showState();
      });
}

void WeightsPresenter::showRun() {
  const QString id = view_.run().variant();
  const auto entry = workbench().variantEntry(id);
  ShownWeightRun shown;
  if (!entry) return view_.run().setRun(shown);
  shown.setup = entry->weights;
  shown.layer_by_layer = is_layer_by_layer(entry->weights);
  const QString key = keyOf(*entry);
  const bool waits = key == building_ || (retry_job_ && key == retried_);
  if (const auto run = workbench().weightRuns().run(id); run && run->setup == entry->weights.trimmed()) {
    switch (run->state) {
      case WeightRun::State::Running:
        shown.state = ShownWeightRun::State::Running;
        break;
      case WeightRun::State::Finished:
        shown.state = retry_job_ && waits ? ShownWeightRun::State::Waiting : ShownWeightRun::State::Finished;
        break;
      case WeightRun::State::Stopped:
        shown.state = waits ? ShownWeightRun::State::Waiting : ShownWeightRun::State::Stopped;
        break;
    }
    shown.calibration = run->calibration;
    shown.checkpoint = run->checkpoint;
    shown.reason = run->reason;
    shown.forecast = run->forecast;
    shown.linears = run->linears;
    shown.elapsed_seconds = run->elapsed_seconds;
    shown.linears_per_layer = run->linears_per_layer;
  } else if (waits) {
    shown.state = ShownWeightRun::State::Waiting;
  } else if (const auto known = known_.constFind(key); known != known_.constEnd() && !known->overview) {
    shown.reason = known->why;
  }
  view_.run().setRun(shown);
}

}  // namespace qs
