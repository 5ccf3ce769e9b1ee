#include "app/presenters/model_presenter.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "app/model_forecast.h"
#include "backend/model/module_tree.h"
#include "backend/storage/capture_reader.h"
#include "widgets/views/model_view.h"

namespace qs {
namespace {

std::filesystem::path file_path(const QString& path) { return std::filesystem::path(path.toStdU16String()); }

QVector<ModelView::Statistic> statistics() {
  const auto tr = [](const char* text) { return ModelView::tr(text); };
  return {
      {QStringLiteral("bytes"), tr("Bytes"), QStringLiteral("B"), tr("Bytes of the tensor as stored"), true},
      {QStringLiteral("weight_absmax"), tr("Weight maximum"), {}, tr("Largest magnitude of the tensor's values"), true},
      {QStringLiteral("weight_std"), tr("Weight deviation"), {}, tr("Standard deviation of the tensor's values"), true},
      {QStringLiteral("weight_peak"), tr("Weight peak"), QStringLiteral("σ"),
       tr("Largest magnitude divided by the standard deviation: how far the largest value sticks out"), true},
      {QStringLiteral("weight_kurtosis"),
       tr("Weight kurtosis"),
       {},
       tr("Excess kurtosis of the tensor's values; 0 for a normal distribution"),
       false},
      {QStringLiteral("weight_zeros"), tr("Zero weights"), QStringLiteral("%"), tr("Share of values that are 0"),
       false},
      {QStringLiteral("input_absmax"),
       tr("Input maximum"),
       {},
       tr("Largest magnitude of the linear's input in the capture of this model"),
       true},
      {QStringLiteral("input_outliers"),
       tr("Input outlier ratio"),
       {},
       tr("Largest channel maximum of the linear's input divided by the median one: what SmoothQuant moves into the "
          "weights"),
       true}};
}

double value_of(const TensorStatistics& tensor, const QString& statistic, double elements) {
  if (statistic == QLatin1String("weight_absmax")) return tensor.absmax;
  if (statistic == QLatin1String("weight_std")) return tensor.standard_deviation;
  if (statistic == QLatin1String("weight_peak")) return tensor.peak;
  if (statistic == QLatin1String("weight_kurtosis")) return tensor.kurtosis;
  return elements > 0 ? 100.0 * static_cast<double>(tensor.zeros) / elements : 0.0;
}

void visit_tensors(const ModuleInfo& module, const std::function<void(const ModuleInfo&)>& visit) {
  if (module.is_tensor()) return visit(module);
  for (const ModuleInfo& child : module.children) visit_tensors(child, visit);
}

double input_value(const ActivationStats& stats, bool ratio) {
  std::vector<float> maxima = stats.absmax;
  if (maxima.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double largest = *std::max_element(maxima.begin(), maxima.end());
  if (!ratio) return largest;
  const auto middle = maxima.begin() + static_cast<std::ptrdiff_t>(maxima.size() / 2);
  std::nth_element(maxima.begin(), middle, maxima.end());
  return *middle > 0.0f ? largest / static_cast<double>(*middle) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

ModelPresenter::ModelPresenter(Workbench& workbench, ModelView& view) : workbench_(workbench), view_(view) {
  view_.setStatistics(statistics());
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    weights_.clear();
    model_.clear();
    showModels();
  });
  connect(&workbench_, &Workbench::modelsChanged, this, &ModelPresenter::showModels);
  connect(&workbench_, &Workbench::captureReady, this, [this] {
    if (view_.statistic().startsWith(QLatin1String("input_"))) showStatistic();
  });
  connect(&workbench_, &Workbench::modelLoaded, this, [this](const QString& id, qint64 bytes) {
    if (id != model_) return;
    forecast_.measuredWeights = bytes;
    showForecast();
  });
  connect(&workbench_, &Workbench::cacheMeasured, this,
          [this](const QString& variant, const QString& kv, qint64 bytes, qint64, qint64 tokens) {
            const auto entry = workbench_.variantEntry(variant);
            if (!kv.isEmpty() || !entry || entry->modelId != model_) return;
            forecast_.measuredKv = bytes;
            forecast_.measuredKvTokens = tokens;
            showForecast();
          });
  connect(&view_, &ModelView::modelChosen, this, &ModelPresenter::showModel);
  connect(&view_, &ModelView::statisticChosen, this, &ModelPresenter::showStatistic);
  connect(&view_, &ModelView::forecastWanted, this, &ModelPresenter::showForecast);
  connect(&view_, &ModelView::linearActivated, this, [this](const QString& linear) {
    const int layer = linear.section(u'.', 1, 1).toInt();
    workbench_.selection().edit([&](Selection& s) { s.layer = layer; });
    Q_EMIT view_.readoutChanged(ModelView::tr("Layer %1 is selected in all linked views").arg(layer));
  });
  connect(&view_, &ViewBase::cancelRequested, this, [this] { workbench_.jobs().cancel(statistic_job_); });
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action == QLatin1String("view.retry")) showModel(model_);
  });
  QMetaObject::invokeMethod(this, &ModelPresenter::showModels, Qt::QueuedConnection);
}

QString ModelPresenter::fileOf(const QString& modelId) const {
  const auto entry = workbench_.modelEntry(modelId);
  return entry ? workbench_.resolvePath(entry->path) : QString();
}

void ModelPresenter::showModels() {
  QStringList ids;
  for (const ModelEntry& entry : workbench_.session().models) ids << entry.id;
  if (ids.isEmpty()) {
    model_.clear();
    view_.setModels({}, {});
    view_.setState(ViewState::Empty, ModelView::tr("No model is open."), QStringLiteral("model.load"),
                   ModelView::tr("Open a model…"));
    return;
  }
  QString chosen = ids.contains(model_) ? model_ : view_.saveSettings().value(QStringLiteral("model")).toString();
  if (!ids.contains(chosen)) chosen = ids.last();
  view_.setModels(ids, chosen);
  if (chosen != model_) showModel(chosen);
}

void ModelPresenter::showModel(const QString& id) {
  model_ = id;
  const QString path = fileOf(id);
  const quint64 generation = ++generation_;
  forecast_ = {};
  view_.setState(ViewState::Loading, ModelView::tr("Reading the headers of %1…").arg(id));
  workbench_.jobs().compute(
      ModelView::tr("Describe %1").arg(id), view_.viewId(), JobLane::Interactive,
      [path](const JobContext&) { return describe_model(file_path(path)); }, this,
      [this, generation, id, path](ModelDescription described) {
        if (generation != generation_) return;
        modules_ = described.modules;
        Provenance p;
        p.session = workbench_.session().title;
        p.data = QString::fromStdString(described.info.path);
        p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
        p.command = QStringLiteral("quantoscope-cli inspect %1 --modules").arg(path);
        view_.setProvenance(p);
        view_.setInfo(described.info, described.modules);
        showForecast();
        showStatistic();
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_ || status.state != JobState::Failed) return;
        view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), ModelView::tr("Retry"),
                       status.detail);
      });
}

void ModelPresenter::showForecast() {
  if (!view_.card().info()) return;
  const quint64 generation = ++forecast_generation_;
  workbench_.jobs().compute(
      ModelView::tr("Forecast of %1").arg(model_), view_.viewId(), JobLane::Interactive,
      [info = *view_.card().info(), dtype = view_.card().dtype(), context = view_.card().context()](const JobContext&) {
        return forecast_of(info, dtype, context);
      },
      this,
      [this, generation](MemoryForecast forecast) {
        if (generation != forecast_generation_) return;
        forecast.measuredWeights = forecast_.measuredWeights;
        forecast.measuredKv = forecast_.measuredKv;
        forecast.measuredKvTokens = forecast_.measuredKvTokens;
        forecast_ = forecast;
        view_.setForecast(forecast_);
      },
      {});
}

void ModelPresenter::showStatistic() {
  if (!view_.card().info()) return;
  const QString statistic = view_.statistic();
  workbench_.jobs().cancel(statistic_job_);
  if (statistic == QLatin1String("bytes")) {
    QHash<QString, double> values;
    visit_tensors(modules_, [&](const ModuleInfo& tensor) {
      values.insert(QString::fromStdString(tensor.path), static_cast<double>(tensor.bytes));
    });
    view_.setStatisticState({});
    view_.setValues(statistic, values);
  } else if (statistic.startsWith(QLatin1String("weight_"))) {
    showWeightStatistic(statistic);
  } else {
    showInputStatistic(statistic);
  }
}

void ModelPresenter::showWeightStatistic(const QString& statistic) {
  const auto show = [this, statistic] {
    QHash<QString, double> elements, values;
    visit_tensors(modules_, [&](const ModuleInfo& tensor) {
      elements.insert(QString::fromStdString(tensor.path), static_cast<double>(tensor.parameters));
    });
    for (const TensorStatistics& tensor : weights_.value(model_)) {
      const QString path = QString::fromStdString(tensor.path);
      values.insert(path, value_of(tensor, statistic, elements.value(path)));
    }
    view_.setStatisticState({});
    view_.setValues(statistic, values);
  };
  if (weights_.contains(model_)) return show();
  view_.setStatisticState(ModelView::tr("reading every weight…"));
  const QString id = model_;
  statistic_job_ = workbench_.jobs().compute(
      ModelView::tr("Weight statistics of %1").arg(id), view_.viewId(), JobLane::Interactive,
      [path = fileOf(id)](const JobContext& job) { return weight_statistics(file_path(path), job); }, this,
      [this, id, show](std::vector<TensorStatistics> found) {
        weights_.insert(id, QVector<TensorStatistics>(found.begin(), found.end()));
        if (id == model_) show();
      },
      [this](const JobStatus& status) {
        view_.setStatisticState(status.state == JobState::Failed ? status.message : QString());
      });
}

void ModelPresenter::showInputStatistic(const QString& statistic) {
  QString capture;
  for (const CaptureEntry& entry : workbench_.session().captures)
    if (entry.modelId == model_ && workbench_.isReadable(entry.id)) capture = entry.id;
  view_.setValues(statistic, {});
  if (capture.isEmpty())
    return view_.setStatisticState(ModelView::tr("needs a capture of this model (Capture › Capture KV…)"));
  view_.setStatisticState(ModelView::tr("reading the capture…"));
  QHash<QString, QString> tensor_of;  // linear in the capture -> tensor path
  visit_tensors(modules_, [&](const ModuleInfo& tensor) {
    if (!tensor.linear.empty())
      tensor_of.insert(QString::fromStdString(tensor.linear), QString::fromStdString(tensor.path));
  });
  const bool ratio = statistic == QLatin1String("input_outliers");
  statistic_job_ = workbench_.jobs().compute(
      ModelView::tr("Input statistics of %1").arg(model_), view_.viewId(), JobLane::Interactive,
      [this, capture, tensor_of, ratio](const JobContext& job) {
        QHash<QString, double> values;
        const auto reader = workbench_.openCapture(capture, job);
        for (const std::string& linear : reader->info().linears) {
          job.checkpoint(0, 1, "Reading input statistics");
          const QString path = tensor_of.value(QString::fromStdString(linear));
          if (!path.isEmpty()) values.insert(path, input_value(reader->activation_stats(linear), ratio));
        }
        return values;
      },
      this,
      [this, statistic](QHash<QString, double> values) {
        view_.setStatisticState(values.isEmpty() ? ModelView::tr("the capture has no input statistics") : QString());
        view_.setValues(statistic, values);
      },
      [this](const JobStatus& status) {
        view_.setStatisticState(status.state == JobState::Failed ? status.message : QString());
      });
}

}  // namespace qs
