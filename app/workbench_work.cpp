// The part of the workbench that turns entries into loaded models, captures and variants, and the jobs that do so.

#include <QCryptographicHash>
#include <QDir>
#include <QFileInfo>
#include <QLocale>

#include "app/layer_retry.h"
#include "app/variant_builder.h"
#include "app/workbench_impl.h"
#include "backend/evaluation/evaluate.h"
#include "backend/evaluation/kv_calibration.h"
#include "backend/method_registry.h"
#include "backend/model/decoder.h"
#include "backend/storage/capture.h"
#include "backend/storage/kv_artifact.h"
#include "backend/storage/results_file.h"

namespace qs {
namespace {

const QString kCalibrationFolder = QStringLiteral("/kv-calibrations");

[[noreturn]] void refuse_id(const char* kind, const QString& id) {
  throw Error(ErrorCode::NotFound, std::string("The session has no ") + kind + " '" + id.toStdString() + "'.");
}

std::filesystem::path file_path(const QString& path) { return std::filesystem::path(path.toStdU16String()); }

/// A capture that can be read and belongs to this text length; a half-written one does not.
bool usable(const QString& path) {
  try {
    return CaptureReader::open(file_path(path))->info().complete;
  } catch (const Error&) {
    return false;
  }
}

/// Where the finished blocks of a layer-by-layer run are kept: another folder for whatever the result depends on.
QString weight_run_folder(const QString& cache, const Model& model, const QString& weights, CaptureReader* capture) {
  QCryptographicHash hash(QCryptographicHash::Sha1);
  const auto add = [&](const std::string& text) { hash.addData(QByteArray::fromStdString(text) + '\n'); };
  add(model.info().fingerprint);
  add(model.options().dtype);
  add(weights.toStdString());
  if (capture) {
    add(capture->info().text_sha256);
    add(std::to_string(capture->info().tokens));
  }
  return cache + QStringLiteral("/weight-runs/") + QString::fromLatin1(hash.result().toHex().left(16));
}

/// Hooks that tell `runs`; the first word of a run begins it, so that other methods leave no trace.
WeightRunPlace weight_run_place(WeightRuns& runs, const QString& variantId, const QString& setup, const QString& folder,
                                const std::string& calibration, const Model& model) {
  QDir().mkpath(QFileInfo(folder).absolutePath());
  DecoderBlock block = model.weights().blocks.front();
  const auto linears = static_cast<std::int64_t>(linear_slots(block, 0).size());
  const auto begin = [&runs, variantId, setup, folder, calibration, linears, begun = std::make_shared<bool>(false)] {
    if (std::exchange(*begun, true)) return;
    WeightRun run;
    run.setup = setup;
    run.checkpoint = folder;
    run.linears_per_layer = linears;
    run.calibration = QString::fromStdString(calibration);
    runs.begin(variantId, std::move(run));
  };
  return {file_path(folder),
          [&runs, variantId, begin](const WeightForecast& forecast) {
            begin();
            runs.forecast(variantId, forecast);
          },
          [&runs, variantId, begin](const LayerProgress& progress) {
            begin();
            runs.linear(variantId, progress);
          }};
}

}  // namespace

QStringList bundled_texts() {
  return {QStringLiteral("sample:texts/sample-valid.txt"), QStringLiteral("sample:texts/wiki.test.raw")};
}

std::shared_ptr<const Model> Workbench::loadModel(const QString& modelId, const JobContext& job) {
  const auto entry = modelEntry(modelId);
  if (!entry) refuse_id("model", modelId);
  const QString path = resolvePath(entry->path);
  LoadOptions options;
  options.dtype = entry->dtype.toStdString();
  return impl_->models.get(path + u'\n' + entry->dtype, [&] {
    auto model = Model::load(file_path(path), options, job);
    const QString advice = QString::fromStdString(memory_advice(*model));
    QMetaObject::invokeMethod(this, [this, modelId, bytes = model->weight_bytes(), advice] {
      Q_EMIT modelLoaded(modelId, bytes);
      if (!advice.isEmpty()) Q_EMIT message(advice, {});
    });
    return model;
  });
}

std::shared_ptr<CaptureReader> Workbench::openCapture(const QString& captureId, const JobContext& job) {
  job.checkpoint(0, 1, "Open capture");
  const auto entry = captureEntry(captureId);
  if (!entry) refuse_id("capture", captureId);
  const QString path = resolvePath(entry->path);
  return impl_->captures.get(path, [&] { return CaptureReader::open(file_path(path)); });
}

QString Workbench::weightCalibration(const VariantEntry& entry) const {
  if (!needs_calibration(entry.weights.trimmed().toStdString())) return {};
  for (const CaptureEntry& capture : impl_->snapshot().captures) {
    if (capture.modelId == entry.modelId && QFileInfo::exists(resolvePath(capture.path))) return capture.id;
  }
  return {};
}

QString Workbench::variantKey(const VariantEntry& entry) const {
  return QStringList{entry.modelId, entry.weights.trimmed(), entry.kv.trimmed(), weightCalibration(entry),
                     calibrationText(entry)}
      .join(QLatin1Char('\n'));
}

quint64 Workbench::retryLayer(const QString& variantId, int layer, const QString& setup) {
  const auto entry = variantEntry(variantId);
  const auto run = impl_->weight_runs.run(variantId);
  if (!entry || !run || run->checkpoint.isEmpty()) return 0;
  return jobs().start(
      tr("Retry layer %1 of %2").arg(layer).arg(entry->name), QStringLiteral("weights"), JobLane::Compute,
      [=, this, entry = *entry, folder = file_path(run->checkpoint)](const JobContext& job) {
        const auto model = loadModel(entry.modelId, job.part(0.0, 0.1));
        const auto capture = openCapture(weightCalibration(entry), job.part(0.1, 0.15));
        retry_layer(*model, entry.weights.trimmed().toStdString(), setup.toStdString(), layer, *capture, folder,
                    job.part(0.15, 0.6));
        impl_->variants.drop(variantKey(entry));
        buildVariant(variantId, job.part(0.6, 1.0));
      },
      this,
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT failed(status.message, status.detail);
      });
}

std::shared_ptr<const Variant> Workbench::buildVariant(const QString& variantId, const JobContext& job) {
  auto entry = variantEntry(variantId);
  if (!entry) {
    // The full precision of a model may be asked for by the model's own id.
    if (!modelEntry(variantId)) refuse_id("variant", variantId);
    entry = VariantEntry{variantId, {}, variantId, {}, {}};
  }
  const QString weights = entry->weights.trimmed(), kv = entry->kv.trimmed();
  const QString calibration_id = weightCalibration(*entry);
  if (calibration_id.isEmpty() && needs_calibration(weights.toStdString())) {
    throw Error(ErrorCode::InvalidArgument, "'" + entry->name.toStdString() +
                                                "' needs a calibration, and no capture of its model is open. Capture a "
                                                "text with activation statistics first (Capture > Capture KV...).");
  }
  const auto model = loadModel(entry->modelId, job.part(0.0, 0.3));
  return impl_->variants.get(variantKey(*entry), [&] {
    std::shared_ptr<CaptureReader> capture;
    if (!calibration_id.isEmpty()) capture = openCapture(calibration_id, job);
    const KvCalibrationPlace place{file_path(resolvePath(calibrationText(*entry))),
                                   file_path(cacheFolder() + kCalibrationFolder)};
    const WeightRunPlace run = weight_run_place(impl_->weight_runs, variantId, weights,
                                                weight_run_folder(cacheFolder(), *model, weights, capture.get()),
                                                capture ? capture->info().text_source : std::string(), *model);
    try {
      auto variant =
          build_variant(model, weights.toStdString(), kv.toStdString(), capture.get(), place, job.part(0.3, 1.0), run);
      impl_->weight_runs.end(variantId, WeightRun::State::Finished);
      noteCalibration(*entry, *variant);
      return variant;
    } catch (const Cancelled&) {
      impl_->weight_runs.end(variantId, WeightRun::State::Stopped, tr("Cancelled."));
      throw;
    } catch (const Error& error) {
      impl_->weight_runs.end(variantId, WeightRun::State::Stopped, QString::fromUtf8(error.what()));
      throw;
    }
  });
}

std::shared_ptr<const KvArtifact> Workbench::kvCalibration(const VariantEntry& variant, const JobContext& job) {
  const std::optional<Setup> setup = parse_kv_setup(variant.kv.toStdString());
  if (!setup || !needs_kv_calibration(*setup)) return nullptr;
  const auto model = loadModel(variant.modelId, job.part(0.0, 0.2));
  return std::make_shared<const KvArtifact>(
      remembered_kv_calibration(*model, *setup, {.text = read_text(file_path(resolvePath(calibrationText(variant))))},
                                file_path(cacheFolder() + kCalibrationFolder), job.part(0.2, 1.0)));
}

void Workbench::noteCalibration(const VariantEntry& entry, const Variant& variant) {
  if (!variant.kv_setup() || !needs_kv_calibration(*variant.kv_setup())) return;
  const std::filesystem::path file = kv_calibration_file(
      variant.model(), *variant.kv_setup(), {.text = read_text(file_path(resolvePath(calibrationText(entry))))},
      file_path(cacheFolder() + kCalibrationFolder));
  const QFileInfo info(QString::fromStdU16String(file.u16string()));
  if (!info.exists()) return;
  const KvArtifact artifact = read_kv_artifact(file);
  {
    const std::scoped_lock lock(impl_->calibrations_mutex);
    impl_->calibrations[entry.id] = {QString::fromStdString(artifact.setup),
                                     QString::fromStdString(artifact.source),
                                     artifact.windows,
                                     artifact.tokens,
                                     artifact.seed,
                                     QLocale().toString(info.lastModified(), QLocale::ShortFormat)};
  }
  QMetaObject::invokeMethod(this, [this, id = entry.id] { Q_EMIT calibrated(id); });
}

std::optional<CalibrationNote> Workbench::calibrationNote(const QString& variantId) const {
  const std::scoped_lock lock(impl_->calibrations_mutex);
  const auto found = impl_->calibrations.constFind(variantId);
  return found == impl_->calibrations.constEnd() ? std::nullopt : std::optional<CalibrationNote>(*found);
}

QString CalibrationNote::line() const {
  return Workbench::tr("%1, calibrated on %2: %L3 windows, %L4 tokens, seed %5, %6")
      .arg(setup, text)
      .arg(windows)
      .arg(tokens)
      .arg(seed)
      .arg(made);
}

QString Workbench::evaluationText(const QString& modelId) const {
  QString text = bundled_texts().first();
  for (const CaptureEntry& capture : impl_->snapshot().captures) {
    if (capture.modelId == modelId && !capture.text.isEmpty()) text = capture.text;
  }
  return text;
}

QString Workbench::calibrationText(const VariantEntry& variant) const {
  if (!variant.calibration.isEmpty()) return variant.calibration;
  const QString evaluated = resolvePath(evaluationText(variant.modelId));
  const QStringList texts = bundled_texts();
  for (auto text = texts.crbegin(); text != texts.crend(); ++text) {
    if (resolvePath(*text) != evaluated) return *text;
  }
  return texts.last();
}

void Workbench::unloadModels() {
  impl_->clearCaches();
  Q_EMIT message(tr("Models, variants and captures were unloaded."), {});
}

void Workbench::addModel(const QString& path, const QString& dtype) {
  jobs().compute(
      tr("Open %1").arg(QFileInfo(path).fileName()), QStringLiteral("project"), JobLane::Interactive,
      [file = resolvePath(path)](const JobContext&) { return inspect_model(file_path(file)); }, this,
      [this, path, dtype](ModelInfo info) {
        const QString name = QString::fromStdString(info.name);
        const QString id = freshId(name);
        document().edit(tr("Open %1").arg(name), [&](SessionState& state) {
          state.models << ModelEntry{id, path, QString::fromStdString(info.fingerprint), dtype};
          state.variants << VariantEntry{freshId(id + QStringLiteral("-fp")), tr("Full precision"), id, {}, {}};
        });
        Q_EMIT message(tr("%1: %2, %L3 parameters, %4 layers, context %5.")
                           .arg(name, QString::fromStdString(info.architecture))
                           .arg(info.parameters)
                           .arg(info.layers)
                           .arg(info.max_context),
                       {});
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT failed(status.message, status.detail);
      });
}

void Workbench::addCapture(const QString& path) {
  jobs().compute(
      tr("Open %1").arg(QFileInfo(path).fileName()), QStringLiteral("project"), JobLane::Interactive,
      [file = resolvePath(path)](const JobContext&) { return CaptureReader::open(file_path(file))->info(); }, this,
      [this, path](CaptureInfo info) {
        QString model_id;
        for (const ModelEntry& model : session().models) {
          if (model.fingerprint == QString::fromStdString(info.model_fingerprint)) model_id = model.id;
        }
        const QString name = QFileInfo(path).completeBaseName();
        const CaptureEntry entry{freshId(name), path, model_id, {}, int(info.tokens)};
        document().edit(tr("Open %1").arg(name), [&](SessionState& state) { state.captures << entry; });
        selection().edit([&](Selection& chosen) { chosen.captureA = entry.id; });
        if (!info.complete) {
          Q_EMIT message(tr("%1 was not finished: it holds what was flushed, %2 tokens.").arg(path).arg(info.tokens),
                         {});
        }
        impl_->ready.insert(entry.id);
        Q_EMIT captureReady(entry.id);
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT failed(status.message, status.detail);
      });
}

void Workbench::makeCapture(const QString& captureId, bool again, const QStringList& taps, bool weights) {
  const auto entry = captureEntry(captureId);
  if (!entry || impl_->capturing.contains(captureId)) return;
  impl_->capturing.insert(captureId);
  impl_->ready.remove(captureId);
  const QString file = resolvePath(entry->path), text = resolvePath(entry->text);
  jobs().start(
      tr("Capture %1, %2 tokens").arg(entry->modelId).arg(entry->tokens), QStringLiteral("outliers"), JobLane::Compute,
      [this, entry = *entry, file, text, again, taps, weights](const JobContext& job) {
        if (!again && usable(file)) return;
        const auto model = loadModel(entry.modelId, job.part(0.0, 0.1));
        const CaptureText encoded = encode_text(*model, text.toStdString(), entry.tokens);
        CaptureRequest request;
        request.ids = encoded.ids;
        request.text_source = encoded.name;
        request.text_sha256 = encoded.sha256;
        request.weights = weights;
        if (!taps.isEmpty()) request.taps.clear();
        for (const QString& tap : taps) request.taps.insert(tap.toStdString());
        QDir().mkpath(QFileInfo(file).absolutePath());
        impl_->captures.drop(file);
        capture(*model, request, file_path(file), false, job.part(0.1, 1.0));
      },
      this,
      [this, captureId](const JobStatus& status) {
        impl_->capturing.remove(captureId);
        if (status.state == JobState::Succeeded) {
          impl_->ready.insert(captureId);
          Q_EMIT captureReady(captureId);
        } else {
          if (status.state == JobState::Failed) Q_EMIT failed(status.message, status.detail);
          Q_EMIT capturesChanged();  // what is there can be read again
        }
      });
}

bool Workbench::isCaptureReady(const QString& captureId) const { return impl_->ready.contains(captureId); }

bool Workbench::isReadable(const QString& captureId) const {
  if (isCaptureReady(captureId)) return true;
  const auto entry = captureEntry(captureId);
  return entry && !impl_->capturing.contains(captureId) && QFileInfo::exists(resolvePath(entry->path));
}

void Workbench::ensureCaptures() {
  for (const CaptureEntry& entry : session().captures) {
    if (QFileInfo::exists(resolvePath(entry.path)) || !entry.text.isEmpty()) makeCapture(entry.id);
  }
}

void Workbench::evaluate(const QStringList& variantIds, qint64 window, qint64 windows, const QStringList& tasks,
                         const QString& text) {
  for (const QString& id : variantIds) {
    const auto entry = variantEntry(id);
    if (!entry) continue;
    const QString text_file = resolvePath(text.isEmpty() ? evaluationText(entry->modelId) : text);
    const QString results = resultsFile();
    jobs().start(
        tr("Evaluate %1").arg(entry->name), QStringLiteral("results"), JobLane::Compute,
        [=, this, model_id = entry->modelId](const JobContext& job) {
          const auto variant = buildVariant(id, job.part(0.0, 0.1));
          const auto reference = buildVariant(model_id, job.part(0.1, 0.15));
          EvalRequest request;
          request.text = read_text(file_path(text_file));
          request.window = window;
          request.windows = windows;
          request.tasks.clear();
          for (const QString& task : tasks) request.tasks.push_back(task.toStdString());
          const EvalReport report = qs::evaluate(*variant, *reference, request, job.part(0.15, 1.0));
          std::vector<EvalReport> reports;
          if (QFileInfo::exists(results)) reports = read_results(file_path(results));
          std::erase_if(reports, [&](const EvalReport& old) {
            return old.variant == report.variant && old.fingerprint == report.fingerprint;
          });
          reports.push_back(report);
          write_results(file_path(results), reports);
        },
        this,
        [this](const JobStatus& status) {
          if (status.state == JobState::Succeeded) Q_EMIT resultsChanged();
          if (status.state == JobState::Failed) Q_EMIT failed(status.message, status.detail);
        });
  }
}

}  // namespace qs
