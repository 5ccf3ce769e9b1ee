#pragma once

#include <QJsonObject>
#include <QList>
#include <QString>
#include <QStringList>

namespace qs {

/// What a user saves, as plain values. Paths are kept relative to the session file where possible; `sample:` names a
/// file of the bundled sample, `data:` one in the folder of files the program makes. Every list keeps its order. Text
/// on disk: JSON with sorted keys, so that it can be diffed.
struct ModelEntry {
  QString id, path, fingerprint;
  QString dtype = QStringLiteral("float32");  ///< compute type: float32, bfloat16, float16
  bool operator==(const ModelEntry&) const = default;
};

struct CaptureEntry {
  QString id, path, modelId, text;  ///< `text`: the file that ran, so that a lost capture can be made again
  int tokens = 0;
  bool operator==(const CaptureEntry&) const = default;
};

/// Model + at most one weight setup + at most one KV setup, as setup lines; empty is full precision.
struct VariantEntry {
  QString id, name, modelId, weights, kv;
  QString calibration = {};  ///< text that a calibrated KV setup learns from; empty: one that is not evaluated
  bool operator==(const VariantEntry&) const = default;
};

struct PinEntry {
  QString viewId, text, value;
  int layer = 0, head = 0, channel = 0, token = 0;
  bool operator==(const PinEntry&) const = default;
};

/// The one selection that all linked views share. -1 and empty ranges mean "nothing chosen".
struct Selection {
  QString captureA, captureB, variantA, variantB;  ///< ids of the session
  int layer = 0;
  QString tensor = QStringLiteral("key");  ///< key, key_pre_rope, value
  int kvHead = 0, queryHead = 0;
  int channelBegin = -1, channelEnd = -1;  ///< within the KV width: kv_head * head_dim + d
  int tokenBegin = -1, tokenEnd = -1;
  double alpha = 0.5;
  bool operator==(const Selection&) const = default;
};

/// One view of the grid: its type, whether it follows the selection, and its own settings (ranges, scale, modes).
struct ViewEntry {
  QString type;  ///< "outliers", "error", "attention", "alpha", "chat", ...
  bool linked = true;
  QJsonObject settings;
  bool operator==(const ViewEntry&) const = default;
};

struct ChatEntry {
  QString prompt, system;
  double temperature = 0.0, topP = 1.0, minP = 0.0, repetitionPenalty = 1.0;
  int topK = 0, maxTokens = 64;
  quint64 seed = 0;
  QStringList variantIds;  ///< columns; the first is the reference
  bool operator==(const ChatEntry&) const = default;
};

struct SessionState {
  static constexpr int kVersion = 1;
  QString title, notes, resultsPath;
  QList<ModelEntry> models;
  QList<CaptureEntry> captures;
  QList<VariantEntry> variants;
  QList<PinEntry> pins;
  QList<ViewEntry> views;
  int activeView = 0;
  QString layout = QStringLiteral("explore");  ///< named layout
  Selection selection;
  ChatEntry chat;
  bool operator==(const SessionState&) const = default;
};

}  // namespace qs
