#pragma once

#include <QWidget>
#include <optional>

#include "backend/types/model_info.h"

class QComboBox;
class QFormLayout;
class QLabel;
class QPainter;
class QSpinBox;

namespace qs {

struct FigureStyle;

/// Bytes that running a model takes, as forecast before and as measured after. -1: not measured yet.
struct MemoryForecast {
  MemoryEstimate estimate;
  qint64 capture = 0;  ///< of a capture of `estimate.context` tokens, on disk
  qint64 available = 0;
  qint64 measuredWeights = -1, measuredKv = -1;
  qint64 measuredKvTokens = 0;  ///< tokens in the cache when it was measured
  qint64 peakResident = -1;     ///< of the whole program
};

/// Weights, cache and scratch as one bar against the memory there is, with a legend. The measured bar stands below.
class ForecastBar : public QWidget {
  Q_OBJECT
 public:
  explicit ForecastBar(QWidget* parent = nullptr);
  void setForecast(const MemoryForecast& forecast);
  const MemoryForecast& forecast() const { return forecast_; }
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) const;
  QSize sizeHint() const override;
  QSize minimumSizeHint() const override;
  QString summary() const;  ///< the same in words

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  MemoryForecast forecast_;
};

/// What a model is, whether it can be opened, and what it will cost: the card of the open dialog and of the model page.
class ModelCard : public QWidget {
  Q_OBJECT
 public:
  explicit ModelCard(QWidget* parent = nullptr);

  void setInfo(const ModelInfo& info);  ///< readable: the verdict says so
  void setRefused(const QString& path, const QString& reason);
  void setWaiting(const QString& path);  ///< its headers are being read
  void clear(const QString& text);
  void setForecast(const MemoryForecast& forecast);

  bool isOpenable() const { return info_.has_value(); }
  const std::optional<ModelInfo>& info() const { return info_; }
  int context() const;  ///< tokens that the forecast is for
  void setContext(int tokens);
  QString dtype() const;  ///< compute type: "float32", "bfloat16", "float16"
  void setDtype(const QString& dtype);
  const ForecastBar& bar() const { return *bar_; }

 Q_SIGNALS:
  void forecastWanted();  ///< context or compute type were changed

 private:
  void showRows(const QList<QPair<QString, QString>>& rows);

  std::optional<ModelInfo> info_;
  QLabel *title_, *verdict_, *advice_;
  QFormLayout* rows_;
  QWidget* costs_;  ///< forecast and what it is for; hidden while no model is known
  QSpinBox* context_;
  QComboBox* dtype_;
  ForecastBar* bar_;
};

}  // namespace qs
