#include "sessions/session_file.h"

#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QJsonArray>
#include <QJsonDocument>
#include <QSaveFile>
#include <QSet>
#include <cmath>
#include <limits>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr auto kFormat = "quantoscope-session";
constexpr qsizetype kMaxEntries = 10000;
constexpr qint64 kMaxBytes = 64LL << 20;

QString join(const QString& path, const QString& key) { return path.isEmpty() ? key : path + QLatin1Char('.') + key; }

/// Reads an object field by field and refuses what nobody asked for.
class FieldReader {
 public:
  FieldReader(const QJsonValue& value, QString path, QString source)
      : path_(std::move(path)), source_(std::move(source)) {
    if (!value.isObject()) refuse({}, QStringLiteral("an object"), value);
    object_ = value.toObject();
  }

  QString text(const QString& key, const QString& fallback = {}) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return fallback;
    if (!value.isString()) refuse(key, QStringLiteral("a text"), value);
    return value.toString();
  }
  bool flag(const QString& key, bool fallback) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return fallback;
    if (!value.isBool()) refuse(key, QStringLiteral("true or false"), value);
    return value.toBool();
  }
  int integer(const QString& key, int fallback, int low, int high) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return fallback;
    const double number = value.toDouble(std::numeric_limits<double>::quiet_NaN());
    if (!(number >= low && number <= high) || number != std::floor(number)) {
      refuse(key, QStringLiteral("a whole number from %1 to %2").arg(low).arg(high), value);
    }
    return static_cast<int>(number);
  }
  double real(const QString& key, double fallback, double low, double high) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return fallback;
    const double number = value.toDouble(std::numeric_limits<double>::quiet_NaN());
    if (!(number >= low && number <= high)) {
      refuse(key, QStringLiteral("a number from %1 to %2").arg(low).arg(high), value);
    }
    return number;
  }
  /// 64 bits do not fit a JSON number, so seeds are texts.
  quint64 seed(const QString& key) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return 0;
    bool ok = false;
    const quint64 number = value.toString().toULongLong(&ok);
    if (!ok) refuse(key, QStringLiteral("a whole number in quotation marks"), value);
    return number;
  }
  QJsonObject object(const QString& key) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return {};
    if (!value.isObject()) refuse(key, QStringLiteral("an object"), value);
    return value.toObject();
  }
  template <typename Read>
  void list(const QString& key, Read read) {
    const QJsonValue value = take(key);
    if (value.isUndefined()) return;
    if (!value.isArray()) refuse(key, QStringLiteral("a list"), value);
    const QJsonArray array = value.toArray();
    if (array.size() > kMaxEntries) {
      throw Error(ErrorCode::BadFormat, QStringLiteral("Session '%1': '%2' has %3 entries; at most %4 are read.")
                                            .arg(source_, join(path_, key))
                                            .arg(array.size())
                                            .arg(kMaxEntries)
                                            .toStdString());
    }
    for (qsizetype index = 0; index < array.size(); ++index) {
      read(array.at(index), QStringLiteral("%1[%2]").arg(join(path_, key)).arg(index));
    }
  }
  QStringList texts(const QString& key) {
    QStringList result;
    list(key, [&](const QJsonValue& value, const QString& where) {
      if (!value.isString()) refuse_at(where, QStringLiteral("a text"), value);
      result << value.toString();
    });
    return result;
  }

  void finish() const {
    for (const QString& key : object_.keys()) {
      if (!taken_.contains(key)) {
        throw Error(
            ErrorCode::BadFormat,
            QStringLiteral("Session '%1' has a field '%2' that version %3 of the format does not know. It was probably "
                           "written by another program or a newer version; remove the field or update Quantoscope.")
                .arg(source_, join(path_, key))
                .arg(SessionState::kVersion)
                .toStdString());
      }
    }
  }

 private:
  QJsonValue take(const QString& key) {
    taken_.insert(key);
    return object_.value(key);
  }
  [[noreturn]] void refuse(const QString& key, const QString& expected, const QJsonValue& found) const {
    refuse_at(key.isEmpty() ? path_ : join(path_, key), expected, found);
  }
  [[noreturn]] void refuse_at(const QString& where, const QString& expected, const QJsonValue& found) const {
    QString shown = QString::fromUtf8(QJsonDocument(QJsonArray{found}).toJson(QJsonDocument::Compact));
    shown = shown.mid(1, shown.size() - 2);
    if (shown.size() > 60) shown = shown.left(57) + QStringLiteral("...");
    throw Error(ErrorCode::BadFormat, QStringLiteral("Session '%1': '%2' must be %3, found %4.")
                                          .arg(source_, where.isEmpty() ? QStringLiteral("the document") : where,
                                               expected, found.isUndefined() ? QStringLiteral("nothing") : shown)
                                          .toStdString());
  }

  QJsonObject object_;
  QSet<QString> taken_;
  QString path_, source_;
};

constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr double kMaxReal = std::numeric_limits<double>::max();

QJsonObject to_json(const Selection& s) {
  return {{"captureA", s.captureA},
          {"captureB", s.captureB},
          {"variantA", s.variantA},
          {"variantB", s.variantB},
          {"layer", s.layer},
          {"tensor", s.tensor},
          {"kvHead", s.kvHead},
          {"queryHead", s.queryHead},
          {"channelBegin", s.channelBegin},
          {"channelEnd", s.channelEnd},
          {"tokenBegin", s.tokenBegin},
          {"tokenEnd", s.tokenEnd},
          {"alpha", s.alpha}};
}

Selection read_selection(const QJsonValue& value, const QString& path, const QString& source) {
  FieldReader in(value, path, source);
  Selection s;
  s.captureA = in.text("captureA");
  s.captureB = in.text("captureB");
  s.variantA = in.text("variantA");
  s.variantB = in.text("variantB");
  s.layer = in.integer("layer", s.layer, 0, kMaxInt);
  s.tensor = in.text("tensor", s.tensor);
  s.kvHead = in.integer("kvHead", s.kvHead, 0, kMaxInt);
  s.queryHead = in.integer("queryHead", s.queryHead, 0, kMaxInt);
  s.channelBegin = in.integer("channelBegin", s.channelBegin, -1, kMaxInt);
  s.channelEnd = in.integer("channelEnd", s.channelEnd, -1, kMaxInt);
  s.tokenBegin = in.integer("tokenBegin", s.tokenBegin, -1, kMaxInt);
  s.tokenEnd = in.integer("tokenEnd", s.tokenEnd, -1, kMaxInt);
  s.alpha = in.real("alpha", s.alpha, 0.0, 1.0);
  in.finish();
  return s;
}

QJsonObject to_json(const ChatEntry& c) {
  return {{"prompt", c.prompt},
          {"system", c.system},
          {"temperature", c.temperature},
          {"topP", c.topP},
          {"minP", c.minP},
          {"repetitionPenalty", c.repetitionPenalty},
          {"topK", c.topK},
          {"maxTokens", c.maxTokens},
          {"seed", QString::number(c.seed)},
          {"variantIds", QJsonArray::fromStringList(c.variantIds)}};
}

ChatEntry read_chat(const QJsonValue& value, const QString& path, const QString& source) {
  FieldReader in(value, path, source);
  ChatEntry c;
  c.prompt = in.text("prompt");
  c.system = in.text("system");
  c.temperature = in.real("temperature", c.temperature, 0.0, 100.0);
  c.topP = in.real("topP", c.topP, 0.0, 1.0);
  c.minP = in.real("minP", c.minP, 0.0, 1.0);
  c.repetitionPenalty = in.real("repetitionPenalty", c.repetitionPenalty, 0.0, 100.0);
  c.topK = in.integer("topK", c.topK, 0, kMaxInt);
  c.maxTokens = in.integer("maxTokens", c.maxTokens, 1, kMaxInt);
  c.seed = in.seed("seed");
  c.variantIds = in.texts("variantIds");
  in.finish();
  return c;
}

template <typename Entry>
QJsonArray to_array(const QList<Entry>& entries, QJsonObject (*convert)(const Entry&)) {
  QJsonArray array;
  for (const Entry& entry : entries) array.append(convert(entry));
  return array;
}

void refuse_twice(const QSet<QString>& ids, const QString& id, const QString& where, const QString& source) {
  if (id.isEmpty() || ids.contains(id)) {
    throw Error(ErrorCode::BadFormat,
                QStringLiteral("Session '%1': the id of '%2' must be a text that occurs once, found '%3'.")
                    .arg(source, where, id)
                    .toStdString());
  }
}

bool is_special(const QString& path) {
  return path.isEmpty() || path.startsWith(QStringLiteral("sample:")) || path.startsWith(QStringLiteral("data:"));
}

template <typename Change>
SessionState with_paths(SessionState state, Change change) {
  for (ModelEntry& model : state.models) model.path = change(model.path);
  for (CaptureEntry& capture : state.captures) {
    capture.path = change(capture.path);
    capture.text = change(capture.text);
  }
  state.resultsPath = change(state.resultsPath);
  return state;
}

}  // namespace

QByteArray session_to_json(const SessionState& state) {
  const QJsonObject root{
      {"format", kFormat},
      {"version", SessionState::kVersion},
      {"title", state.title},
      {"notes", state.notes},
      {"resultsPath", state.resultsPath},
      {"models",
       to_array<ModelEntry>(state.models,
                            [](const ModelEntry& m) {
                              QJsonObject model{{"id", m.id}, {"path", m.path}, {"fingerprint", m.fingerprint}};
                              if (m.dtype != ModelEntry().dtype) model.insert("dtype", m.dtype);
                              return model;
                            })},
      {"captures", to_array<CaptureEntry>(state.captures,
                                          [](const CaptureEntry& c) {
                                            return QJsonObject{{"id", c.id},
                                                               {"path", c.path},
                                                               {"modelId", c.modelId},
                                                               {"text", c.text},
                                                               {"tokens", c.tokens}};
                                          })},
      {"variants", to_array<VariantEntry>(state.variants,
                                          [](const VariantEntry& v) {
                                            QJsonObject variant{{"id", v.id},
                                                                {"name", v.name},
                                                                {"modelId", v.modelId},
                                                                {"weights", v.weights},
                                                                {"kv", v.kv}};
                                            if (!v.calibration.isEmpty()) variant["calibration"] = v.calibration;
                                            return variant;
                                          })},
      {"pins", to_array<PinEntry>(state.pins,
                                  [](const PinEntry& p) {
                                    return QJsonObject{{"viewId", p.viewId}, {"text", p.text}, {"value", p.value},
                                                       {"layer", p.layer},   {"head", p.head}, {"channel", p.channel},
                                                       {"token", p.token}};
                                  })},
      {"views",
       to_array<ViewEntry>(state.views,
                           [](const ViewEntry& v) {
                             return QJsonObject{{"type", v.type}, {"linked", v.linked}, {"settings", v.settings}};
                           })},
      {"activeView", state.activeView},
      {"layout", state.layout},
      {"selection", to_json(state.selection)},
      {"chat", to_json(state.chat)}};
  return QJsonDocument(root).toJson(QJsonDocument::Indented);
}

SessionState session_from_json(const QByteArray& json, const QString& source) {
  QJsonParseError problem;
  const QJsonDocument document = QJsonDocument::fromJson(json, &problem);
  if (problem.error != QJsonParseError::NoError) {
    throw Error(ErrorCode::BadFormat,
                QStringLiteral("Session '%1' is not valid JSON: %2 at byte %3 of %4. The file may be "
                               "truncated; an autosave may be beside it.")
                    .arg(source, problem.errorString())
                    .arg(problem.offset)
                    .arg(json.size())
                    .toStdString());
  }
  const QJsonObject object = document.object();
  if (object.value("format").toString() != QLatin1String(kFormat)) {
    throw Error(ErrorCode::BadFormat,
                QStringLiteral("'%1' is no session: its field 'format' must be '%2', found '%3'.")
                    .arg(source, QLatin1String(kFormat), object.value("format").toVariant().toString())
                    .toStdString());
  }
  const QJsonValue version = object.value("version");
  if (!version.isDouble() || version.toDouble() != SessionState::kVersion) {
    throw Error(
        ErrorCode::Unsupported,
        QStringLiteral(
            "Session '%1' has version %2; this program reads version %3. Open it with the program that wrote it.")
            .arg(source, version.isUndefined() ? QStringLiteral("(none)") : version.toVariant().toString())
            .arg(SessionState::kVersion)
            .toStdString());
  }

  FieldReader in(object, {}, source);
  in.text("format");
  in.integer("version", 0, 0, kMaxInt);
  SessionState state;
  state.title = in.text("title");
  state.notes = in.text("notes");
  state.resultsPath = in.text("resultsPath");
  state.layout = in.text("layout", state.layout);
  QSet<QString> model_ids, capture_ids, variant_ids;
  in.list("models", [&](const QJsonValue& value, const QString& where) {
    FieldReader entry(value, where, source);
    const ModelEntry model{entry.text("id"), entry.text("path"), entry.text("fingerprint"),
                           entry.text("dtype", ModelEntry().dtype)};
    entry.finish();
    refuse_twice(model_ids, model.id, where, source);
    model_ids.insert(model.id);
    state.models << model;
  });
  in.list("captures", [&](const QJsonValue& value, const QString& where) {
    FieldReader entry(value, where, source);
    CaptureEntry capture{entry.text("id"), entry.text("path"), entry.text("modelId"), entry.text("text"), 0};
    capture.tokens = entry.integer("tokens", 0, 0, kMaxInt);
    entry.finish();
    refuse_twice(capture_ids, capture.id, where, source);
    capture_ids.insert(capture.id);
    state.captures << capture;
  });
  in.list("variants", [&](const QJsonValue& value, const QString& where) {
    FieldReader entry(value, where, source);
    const VariantEntry variant{entry.text("id"),      entry.text("name"), entry.text("modelId"),
                               entry.text("weights"), entry.text("kv"),   entry.text("calibration")};
    entry.finish();
    refuse_twice(variant_ids, variant.id, where, source);
    variant_ids.insert(variant.id);
    state.variants << variant;
  });
  in.list("pins", [&](const QJsonValue& value, const QString& where) {
    FieldReader entry(value, where, source);
    PinEntry pin{entry.text("viewId"), entry.text("text"), entry.text("value")};
    pin.layer = entry.integer("layer", 0, -1, kMaxInt);
    pin.head = entry.integer("head", 0, -1, kMaxInt);
    pin.channel = entry.integer("channel", 0, -1, kMaxInt);
    pin.token = entry.integer("token", 0, -1, kMaxInt);
    entry.finish();
    state.pins << pin;
  });
  in.list("views", [&](const QJsonValue& value, const QString& where) {
    FieldReader entry(value, where, source);
    state.views << ViewEntry{entry.text("type"), entry.flag("linked", true), entry.object("settings")};
    entry.finish();
  });
  state.activeView = in.integer("activeView", 0, 0, kMaxInt);
  const QJsonObject selection = in.object("selection");
  if (!selection.isEmpty()) state.selection = read_selection(selection, QStringLiteral("selection"), source);
  const QJsonObject chat = in.object("chat");
  if (!chat.isEmpty()) state.chat = read_chat(chat, QStringLiteral("chat"), source);
  in.finish();
  return state;
}

QString stored_path(const QString& path, const QString& folder) {
  if (is_special(path) || QDir::isRelativePath(path)) return path;
  const QString relative = QDir(folder).relativeFilePath(path);
  return relative.startsWith(QStringLiteral("..")) ? QDir::cleanPath(path) : relative;
}

QString absolute_path(const QString& stored, const QString& folder) {
  if (is_special(stored) || QDir::isAbsolutePath(stored)) return stored;
  return QDir::cleanPath(QDir(folder).absoluteFilePath(stored));
}

void write_session(const QString& path, const SessionState& state) {
  const QString folder = QFileInfo(path).absolutePath();
  const QByteArray json =
      session_to_json(with_paths(state, [&](const QString& entry) { return stored_path(entry, folder); }));
  QSaveFile file(path);
  if (!file.open(QIODevice::WriteOnly) || file.write(json) != json.size() || !file.commit()) {
    throw Error(ErrorCode::Io,
                QStringLiteral("The session could not be written to '%1': %2. What was there is unchanged.")
                    .arg(path, file.errorString())
                    .toStdString());
  }
}

SessionState read_session(const QString& path) {
  QFile file(path);
  if (!file.exists()) {
    throw Error(ErrorCode::NotFound, QStringLiteral("Session '%1' does not exist.").arg(path).toStdString());
  }
  if (QFileInfo(path).isDir() || !file.open(QIODevice::ReadOnly)) {
    throw Error(ErrorCode::Io,
                QStringLiteral("Session '%1' cannot be read: %2.")
                    .arg(path, QFileInfo(path).isDir() ? QStringLiteral("it is a folder") : file.errorString())
                    .toStdString());
  }
  if (file.size() > kMaxBytes) {
    throw Error(ErrorCode::BadFormat, QStringLiteral("'%1' has %2 bytes; a session has at most %3.")
                                          .arg(path)
                                          .arg(file.size())
                                          .arg(kMaxBytes)
                                          .toStdString());
  }
  const QString folder = QFileInfo(path).absolutePath();
  return with_paths(session_from_json(file.readAll(), path),
                    [&](const QString& entry) { return absolute_path(entry, folder); });
}

}  // namespace qs
