#include "widgets/model_card.h"

#include <QComboBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLocale>
#include <QPainter>
#include <QSpinBox>
#include <QVBoxLayout>
#include <algorithm>
#include <array>

#include "widgets/models/dataset_tree_model.h"
#include "widgets/paint/color_map.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr double kBarHeight = 16.0;
constexpr double kRowGap = 6.0;

struct Part {
  QString name;
  qint64 bytes = 0;
  QColor color;
};

/// Weights, cache, scratch: three steps of a map that all kinds of colour vision tell apart.
QColor part_color(int part) { return ColorMap::get(MapName::Cividis).color(std::array{0.15, 0.55, 0.95}[part]); }

QVector<Part> forecast_parts(const MemoryEstimate& estimate) {
  return {{ForecastBar::tr("weights"), estimate.weights, part_color(0)},
          {ForecastBar::tr("cache at %1 tokens").arg(QLocale().toString(qlonglong(estimate.context))), estimate.kv,
           part_color(1)},
          {ForecastBar::tr("scratch"), estimate.scratch, part_color(2)}};
}

QVector<Part> measured_parts(const MemoryForecast& forecast) {
  QVector<Part> parts;
  if (forecast.measuredWeights >= 0)
    parts.append({ForecastBar::tr("weights"), forecast.measuredWeights, part_color(0)});
  if (forecast.measuredKv >= 0) {
    parts.append({ForecastBar::tr("cache at %1 tokens").arg(QLocale().toString(forecast.measuredKvTokens)),
                  forecast.measuredKv, part_color(1)});
  }
  return parts;
}

QString parts_text(const QVector<Part>& parts) {
  QStringList texts;
  for (const Part& part : parts) texts << QStringLiteral("%1 %2").arg(part.name, bytesText(part.bytes));
  return texts.join(QStringLiteral(", "));
}

}  // namespace

ForecastBar::ForecastBar(QWidget* parent) : QWidget(parent) {
  setObjectName(QStringLiteral("forecastBar"));
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  setAccessibleName(tr("Memory forecast"));
}

void ForecastBar::setForecast(const MemoryForecast& forecast) {
  forecast_ = forecast;
  setAccessibleDescription(summary());
  setToolTip(summary());
  updateGeometry();
  update();
}

QString ForecastBar::summary() const {
  const MemoryEstimate& estimate = forecast_.estimate;
  QString text =
      tr("Forecast %1: %2; %3 are available.")
          .arg(bytesText(estimate.total()), parts_text(forecast_parts(estimate)), bytesText(forecast_.available));
  if (forecast_.capture > 0)
    text += tr(" A capture of as many tokens takes at most %1 on disk.").arg(bytesText(forecast_.capture));
  if (const QVector<Part> measured = measured_parts(forecast_); !measured.isEmpty())
    text += tr(" Measured: %1.").arg(parts_text(measured));
  if (forecast_.peakResident >= 0)
    text += tr(" The program's largest resident size so far was %1.").arg(bytesText(forecast_.peakResident));
  return text;
}

QSize ForecastBar::minimumSizeHint() const { return {220, sizeHint().height()}; }

QSize ForecastBar::sizeHint() const {
  const int bars = measured_parts(forecast_).isEmpty() ? 1 : 2;
  const int line = fontMetrics().height();
  return {420, static_cast<int>(bars * (kBarHeight + 2 * line + 2 * kRowGap) + line)};
}

void ForecastBar::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) const {
  painter.save();
  painter.setFont(style.font);
  const QFontMetricsF metrics(style.font, painter.device());
  const MemoryEstimate& estimate = forecast_.estimate;
  const double whole = static_cast<double>(std::max<qint64>({estimate.total(), forecast_.available, 1}));
  double y = target.top();
  const auto row = [&](const QString& title, const QVector<Part>& parts) {
    double x = target.left();
    for (const Part& part : parts) {
      const double width = target.width() * static_cast<double>(part.bytes) / whole;
      painter.fillRect(QRectF(x, y, width, kBarHeight), part.color);
      x += width;
    }
    painter.setPen(QPen(style.muted, style.lineWidth));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(QRectF(target.left(), y, target.width(), kBarHeight));
    if (forecast_.available > 0 && static_cast<double>(forecast_.available) < whole) {
      const double limit = target.left() + target.width() * static_cast<double>(forecast_.available) / whole;
      painter.setPen(QPen(style.warning, 2.0 * style.lineWidth));
      painter.drawLine(QPointF(limit, y - 3.0), QPointF(limit, y + kBarHeight + 3.0));
    }
    y += kBarHeight + kRowGap / 2.0;
    double text_x = target.left();
    painter.setPen(style.foreground);
    painter.drawText(QPointF(text_x, y + metrics.ascent()), title);
    text_x += metrics.horizontalAdvance(title) + metrics.averageCharWidth();
    for (const Part& part : parts) {
      const double side = metrics.ascent() * 0.7;
      const QString text = QStringLiteral("%1 %2").arg(part.name, bytesText(part.bytes));
      if (text_x + side + 4.0 + metrics.horizontalAdvance(text) > target.right()) {
        text_x = target.left();
        y += metrics.height();
      }
      painter.fillRect(QRectF(text_x, y + metrics.ascent() - side, side, side), part.color);
      text_x += side + 4.0;
      painter.drawText(QPointF(text_x, y + metrics.ascent()), text);
      text_x += metrics.horizontalAdvance(text) + 2.0 * metrics.averageCharWidth();
    }
    y += metrics.height() + kRowGap;
  };
  row(tr("Forecast %1:").arg(bytesText(estimate.total())), forecast_parts(estimate));
  if (const QVector<Part> measured = measured_parts(forecast_); !measured.isEmpty()) row(tr("Measured:"), measured);
  painter.setPen(style.muted);
  QString last = tr("%1 available").arg(bytesText(forecast_.available));
  if (forecast_.capture > 0) last += tr("; capture: at most %1").arg(bytesText(forecast_.capture));
  painter.drawText(QPointF(target.left(), y + metrics.ascent()), last);
  painter.restore();
}

void ForecastBar::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  paint(painter, QRectF(rect()).adjusted(1, 4, -1, 0), FigureStyle::screen(*this));
}

ModelCard::ModelCard(QWidget* parent) : QWidget(parent) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  title_ = new QLabel(this);
  QFont font = title_->font();
  font.setBold(true);
  font.setPointSizeF(font.pointSizeF() * 1.15);
  title_->setFont(font);
  title_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  column->addWidget(title_);
  verdict_ = new QLabel(this);
  verdict_->setObjectName(QStringLiteral("modelVerdict"));
  verdict_->setWordWrap(true);
  verdict_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  column->addWidget(verdict_);
  auto* rows = new QWidget(this);
  rows_ = new QFormLayout(rows);
  rows_->setContentsMargins(0, 4, 0, 4);
  rows_->setVerticalSpacing(3);
  column->addWidget(rows);

  costs_ = new QWidget(this);
  costs_->setObjectName(QStringLiteral("modelCosts"));
  auto* costs = new QVBoxLayout(costs_);
  costs->setContentsMargins(0, 0, 0, 0);
  auto* controls = new QHBoxLayout;
  const auto label = [&](const QString& text, QWidget* buddy) {
    auto* made = new QLabel(text, this);
    made->setBuddy(buddy);
    controls->addWidget(made);
    controls->addWidget(buddy);
  };
  context_ = new QSpinBox(this);
  context_->setObjectName(QStringLiteral("forecastContext"));
  context_->setAccessibleName(tr("Context of the forecast"));
  context_->setToolTip(tr("Tokens in the cache that the forecast is for; more take more memory"));
  context_->setRange(1, 1);
  context_->setGroupSeparatorShown(true);
  context_->setSuffix(tr(" tokens"));
  label(tr("Conte&xt"), context_);
  dtype_ = new QComboBox(this);
  dtype_->setObjectName(QStringLiteral("forecastDtype"));
  dtype_->setAccessibleName(tr("Compute type"));
  dtype_->setToolTip(tr("Type of activations and cache. Weights stay in their stored type and are read from the file"));
  for (const char* type : {"float32", "bfloat16", "float16"}) dtype_->addItem(QLatin1String(type), QLatin1String(type));
  label(tr("Compute &type"), dtype_);
  controls->addStretch(1);
  costs->addLayout(controls);
  bar_ = new ForecastBar(this);
  costs->addWidget(bar_);
  column->addWidget(costs_);
  advice_ = new QLabel(this);
  advice_->setObjectName(QStringLiteral("modelAdvice"));
  advice_->setWordWrap(true);
  column->addWidget(advice_);
  connect(context_, &QSpinBox::valueChanged, this, &ModelCard::forecastWanted);
  connect(dtype_, &QComboBox::currentIndexChanged, this, &ModelCard::forecastWanted);
  clear({});
}

int ModelCard::context() const { return context_->value(); }
QString ModelCard::dtype() const { return dtype_->currentData().toString(); }

void ModelCard::setContext(int tokens) {
  const QSignalBlocker quiet(context_);
  context_->setValue(tokens);
}

void ModelCard::setDtype(const QString& dtype) {
  const QSignalBlocker quiet(dtype_);
  dtype_->setCurrentIndex(std::max(0, dtype_->findData(dtype)));
}

void ModelCard::showRows(const QList<QPair<QString, QString>>& rows) {
  while (rows_->rowCount() > 0) rows_->removeRow(0);
  for (const auto& [name, value] : rows) {
    auto* text = new QLabel(value, this);
    text->setTextInteractionFlags(Qt::TextSelectableByMouse);
    text->setWordWrap(true);
    rows_->addRow(name, text);
  }
}

void ModelCard::setInfo(const ModelInfo& info) {
  info_ = info;
  const QLocale locale;
  const auto number = [&](std::int64_t value) { return locale.toString(qlonglong(value)); };
  title_->setText(QString::fromStdString(info.name));
  verdict_->setText(tr("✓ Can be opened: %1, %2.")
                        .arg(QString::fromStdString(info.architecture), QString::fromStdString(info.format)));
  const double billions = static_cast<double>(info.parameters) / 1e9;
  showRows(
      {{tr("Parameters"), billions >= 0.1 ? tr("%1 (%2 billion)").arg(number(info.parameters)).arg(billions, 0, 'f', 2)
                                          : number(info.parameters)},
       {tr("Layers, heads, KV heads"),
        tr("%1, %2, %3 of %4 channels")
            .arg(number(info.layers), number(info.heads), number(info.kv_heads), number(info.head_dim))},
       {tr("Hidden, intermediate"), tr("%1, %2").arg(number(info.hidden_size), number(info.intermediate_size))},
       {tr("Vocabulary, context"), tr("%1 tokens, %2 tokens").arg(number(info.vocab_size), number(info.max_context))},
       {tr("Tokenizer"), QString::fromStdString(info.tokenizer)},
       {tr("Stored"),
        tr("%1, %2; cache %3 a token in 16 bits")
            .arg(QString::fromStdString(info.dtype), bytesText(info.bytes), bytesText(info.kv_bytes_per_token()))}});
  const QSignalBlocker quiet(context_);
  const int before = context_->value();
  context_->setRange(1, static_cast<int>(std::clamp<std::int64_t>(info.max_context, 1, 1 << 26)));
  if (before <= 1) context_->setValue(static_cast<int>(std::min<std::int64_t>(2048, info.max_context)));
  costs_->setVisible(true);
}

void ModelCard::setRefused(const QString& path, const QString& reason) {
  clear(tr("✗ Cannot be opened: %1").arg(reason));
  title_->setText(path.section(u'/', -1));
}

void ModelCard::setWaiting(const QString& path) {
  clear(tr("Reading the headers of '%1'…").arg(path));
  title_->setText(path.section(u'/', -1));
}

void ModelCard::clear(const QString& text) {
  info_.reset();
  title_->clear();
  verdict_->setText(text);
  showRows({});
  advice_->clear();
  bar_->setForecast({});
  costs_->setVisible(false);
}

void ModelCard::setForecast(const MemoryForecast& forecast) {
  bar_->setForecast(forecast);
  const MemoryEstimate& estimate = forecast.estimate;
  const qint64 work = estimate.kv + estimate.scratch;
  if (work > forecast.available) {
    advice_->setText(tr("Cache and scratch alone do not fit into memory. Choose a shorter context or a 16-bit type."));
  } else if (estimate.total() > forecast.available) {
    advice_->setText(
        tr("The weights are larger than the memory that is free: they will be read from the file again and again, "
           "block by block. That works, but slowly."));
  } else {
    advice_->clear();
  }
}

}  // namespace qs
