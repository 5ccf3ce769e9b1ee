#pragma once

#include <QByteArray>
#include <QFile>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <cstring>
#include <string>
#include <vector>

/// Reads tensors of a small trusted safetensors fixture, so that kernel tests need no library above the kernels.
class SafetensorsFixture {
 public:
  explicit SafetensorsFixture(const QString& path) {
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly)) return;
    bytes_ = file.readAll();
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes_.constData(), sizeof(header_bytes));
    begin_ = 8 + static_cast<qsizetype>(header_bytes);
    header_ = QJsonDocument::fromJson(bytes_.mid(8, static_cast<qsizetype>(header_bytes))).object();
  }
  bool isOpen() const { return !header_.isEmpty(); }

  /// The elements of one tensor; T must be its element type.
  template <typename T>
  std::vector<T> read(const QString& name) const {
    const QJsonArray offsets = header_.value(name).toObject().value("data_offsets").toArray();
    const auto first = static_cast<qsizetype>(offsets.at(0).toDouble());
    const auto last = static_cast<qsizetype>(offsets.at(1).toDouble());
    std::vector<T> values(static_cast<std::size_t>(last - first) / sizeof(T));
    std::memcpy(values.data(), bytes_.constData() + begin_ + first, static_cast<std::size_t>(last - first));
    return values;
  }

 private:
  QByteArray bytes_;
  QJsonObject header_;
  qsizetype begin_ = 0;
};
