#include "app/workbench.h"

#include <QCoreApplication>
#include <QDateTime>
#include <QDir>
#include <QFileInfo>
#include <QStandardPaths>
#include <algorithm>
#include <map>
#include <mutex>

#include "app/variant_builder.h"
#include "app/workbench_impl.h"
#include "sessions/session_document.h"
#include "sessions/session_file.h"

namespace qs {
namespace {

/// The folder that holds sample/ and texts/: beside an installed program, or where this build put it.
QString share_folder() {
  const QString named = qEnvironmentVariable("QUANTOSCOPE_SHARE");
  if (!named.isEmpty()) return named;
  const QString beside = QCoreApplication::applicationDirPath() + QStringLiteral("/../share/quantoscope");
  return QDir::cleanPath(QFileInfo::exists(beside) ? beside : QStringLiteral(QS_SHARE));
}

template <typename Entry>
std::optional<Entry> find_entry(const QList<Entry>& entries, const QString& id) {
  for (const Entry& entry : entries) {
    if (entry.id == id) return entry;
  }
  return std::nullopt;
}

}  // namespace

Workbench::Workbench(QObject* parent) : QObject(parent), impl_(std::make_unique<Impl>()) {
  impl_->document.emplace();
  impl_->selection.emplace();
  impl_->jobs.emplace();
  connect(&document(), &SessionDocument::changed, this, [this] {
    const SessionState before = impl_->snapshot();
    const SessionState& now = document().state();
    impl_->setSnapshot(now);
    if (impl_->replacing) return;
    if (before.models != now.models) Q_EMIT modelsChanged();
    if (before.captures != now.captures) Q_EMIT capturesChanged();
    if (before.variants != now.variants) Q_EMIT variantsChanged();
    if (before.resultsPath != now.resultsPath) Q_EMIT resultsChanged();
  });
  connect(&selection(), &SelectionHub::changed, this,
          [this](const Selection& chosen) { document().note([&](SessionState& state) { state.selection = chosen; }); });
}

Workbench::~Workbench() {
  impl_->jobs.reset();  // joins: no job may look at what goes next
}

JobRunner& Workbench::jobs() { return *impl_->jobs; }
WeightRuns& Workbench::weightRuns() { return impl_->weight_runs; }
SelectionHub& Workbench::selection() { return *impl_->selection; }
SessionDocument& Workbench::document() { return *impl_->document; }
const SessionState& Workbench::session() const { return impl_->document->state(); }

std::optional<ModelEntry> Workbench::modelEntry(const QString& id) const {
  return find_entry(impl_->snapshot().models, id);
}
std::optional<CaptureEntry> Workbench::captureEntry(const QString& id) const {
  return find_entry(impl_->snapshot().captures, id);
}
std::optional<VariantEntry> Workbench::variantEntry(const QString& id) const {
  return find_entry(impl_->snapshot().variants, id);
}

QString Workbench::sampleFolder() const { return share_folder(); }

QString Workbench::dataFolder() const {
  QString folder = qEnvironmentVariable("QUANTOSCOPE_DATA");
  if (folder.isEmpty())
    folder = QStandardPaths::writableLocation(QStandardPaths::GenericDataLocation) + QStringLiteral("/quantoscope");
  QDir().mkpath(folder);
  return folder;
}

QString Workbench::cacheFolder() const {
  if (qEnvironmentVariableIsSet("QUANTOSCOPE_DATA")) return dataFolder() + QStringLiteral("/cache");
  return QStandardPaths::writableLocation(QStandardPaths::GenericCacheLocation) + QStringLiteral("/quantoscope");
}

QString Workbench::resolvePath(const QString& storedPath) const {
  if (storedPath.startsWith(QStringLiteral("data:")))
    return QDir::cleanPath(dataFolder() + QLatin1Char('/') + storedPath.mid(5));
  if (storedPath.startsWith(QStringLiteral("sample:"))) {
    const QString name = storedPath.mid(7);
    const QStringList places = {
        sampleFolder() + QStringLiteral("/sample/") + name, sampleFolder() + QLatin1Char('/') + name,
        QStringLiteral(QS_RESOURCES "/sample/") + name, QStringLiteral(QS_RESOURCES "/") + name};
    for (const QString& place : places) {
      if (QFileInfo::exists(place)) return QDir::cleanPath(place);
    }
    return QDir::cleanPath(places.first());
  }
  if (storedPath.isEmpty() || QDir::isAbsolutePath(storedPath)) return storedPath;
  return absolute_path(storedPath, QFileInfo(impl_->document->path()).absolutePath());
}

QString Workbench::resultsFile() const {
  const QString stored = impl_->snapshot().resultsPath;
  return resolvePath(stored.isEmpty() ? QStringLiteral("data:results.h5") : stored);
}

QString Workbench::freshId(const QString& prefix) const {
  const SessionState state = impl_->snapshot();
  const auto taken = [&](const QString& id) {
    return find_entry(state.models, id) || find_entry(state.captures, id) || find_entry(state.variants, id);
  };
  QString clean;
  for (const QChar c : prefix.toLower()) clean += c.isLetterOrNumber() ? c : QLatin1Char('-');
  if (!taken(clean)) return clean;
  for (int number = 2;; ++number) {
    const QString id = clean + QLatin1Char('-') + QString::number(number);
    if (!taken(id)) return id;
  }
}

void Workbench::newSession() {
  SessionState state;
  state.title = tr("Untitled");
  state.resultsPath = QStringLiteral("data:results-%1.h5")
                          .arg(QDateTime::currentDateTimeUtc().toString(QStringLiteral("yyyyMMdd-hhmmss")));
  for (const char* type : {"outliers", "error", "attention", "alpha", "chat"})
    state.views << ViewEntry{QLatin1String(type), true, {}};
  replaceSession(state, {}, false);
}

void Workbench::openSession(const QString& path) { replaceSession(read_session(path), path, false); }

void Workbench::openSample() {
  replaceSession(read_session(resolvePath(QStringLiteral("sample:sample.qsession"))), {}, false);
}

void Workbench::saveSession(const QString& path) {
  write_session(path, document().state());
  document().markSaved(path);
}

void Workbench::replaceSession(const SessionState& state, const QString& path, bool modified) {
  jobs().cancelAll();
  impl_->clearCaches();
  impl_->weight_runs.clear();
  impl_->ready.clear();
  impl_->capturing.clear();
  impl_->replacing = true;
  document().reset(state, path, modified);
  impl_->replacing = false;
  selection().set(state.selection);
  Q_EMIT sessionReplaced();
  Q_EMIT modelsChanged();
  Q_EMIT capturesChanged();
  Q_EMIT variantsChanged();
  Q_EMIT resultsChanged();
  ensureCaptures();
}

QString Workbench::addVariant(VariantEntry entry) {
  if (entry.id.isEmpty()) entry.id = freshId(entry.name);
  document().edit(tr("Add %1").arg(entry.name), [&](SessionState& state) { state.variants << entry; });
  return entry.id;
}

void Workbench::changeVariant(const VariantEntry& entry, const QString& mergeKey) {
  document().edit(
      tr("Change %1").arg(entry.name),
      [&](SessionState& state) {
        for (VariantEntry& variant : state.variants) {
          if (variant.id == entry.id) variant = entry;
        }
      },
      mergeKey);
}

void Workbench::removeVariant(const QString& variantId) {
  const auto entry = variantEntry(variantId);
  if (!entry) return;
  document().edit(tr("Remove %1").arg(entry->name), [&](SessionState& state) {
    state.variants.removeIf([&](const VariantEntry& variant) { return variant.id == variantId; });
    state.chat.variantIds.removeAll(variantId);
  });
  selection().edit([&](Selection& chosen) {
    if (chosen.variantA == variantId) chosen.variantA.clear();
    if (chosen.variantB == variantId) chosen.variantB.clear();
  });
}

}  // namespace qs
