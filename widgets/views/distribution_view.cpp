#include "widgets/views/distribution_view.h"

#include <QCheckBox>
#include <QComboBox>
#include <QHBoxLayout>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/paint/axes.h"
#include "widgets/plot_view.h"
#include "widgets/views/strip_canvas.h"

namespace qs {

DistributionView::DistributionView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("distribution"), tr("Distribution"), hub, parent),
      table_(std::make_unique<PlainTableModel>()) {
  QBoxLayout* row = controlsLayout();
  scope_ = new QComboBox(this);
  scope_->setObjectName(QStringLiteral("distribution_scope"));
  scope_->setAccessibleName(tr("Elements counted"));
  scope_->setToolTip(tr(
      "The whole tensor of the selected layer, one head, one channel over all tokens, or one token over all channels"));
  scope_->addItems({tr("Whole tensor"), tr("Selected head"), tr("Selected channel"), tr("Selected token")});
  log_ = new QCheckBox(tr("Log counts"), this);
  log_->setObjectName(QStringLiteral("distribution_log"));
  log_->setToolTip(tr("Logarithmic counts show rare outliers (L)"));
  log_->setChecked(true);
  row->addWidget(scope_);
  row->addWidget(log_);
  row->addStretch(1);
  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(4, 0, 4, 4);
  plot_ = new PlotView(body());
  plot_->setObjectName(QStringLiteral("distribution_plot"));
  plot_->setAccessibleName(tr("Histogram with quantization grid"));
  plot_->setToolTip(
      tr("Filled: original values. Line: where the quantizer put them. Strokes at the bottom: its levels. Dashed: the "
         "ends "
         "of its range, and where outliers begin"));
  codes_ = new CodeStripCanvas(QStringLiteral("distribution_codes"), body());
  codes_->setAccessibleName(tr("Histogram of the codes"));
  codes_->setToolTip(tr(
      "How many of the counted elements hold each code, on a linear scale; where widths differ, how many have a code "
      "of so many bits"));
  codes_->setFixedHeight(86);
  codes_->panel().placeholder = tr("No codes: nothing is quantized here.");
  facts_ = new QLabel(body());
  facts_->setObjectName(QStringLiteral("distribution_facts"));
  facts_->setWordWrap(true);
  facts_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  column->addWidget(plot_, 1);
  column->addWidget(codes_);
  column->addWidget(facts_);
  connect(scope_, &QComboBox::activated, this, [this] {
    Q_EMIT scopeChanged();
    Q_EMIT settingsChanged();
  });
  connect(log_, &QCheckBox::toggled, this, [this] {
    refresh();
    Q_EMIT settingsChanged();
  });
  connect(plot_, &PlotView::pointHovered, this, [this](int, int, const QString& text) { Q_EMIT readoutChanged(text); });
  setState(ViewState::Empty, tr("No capture yet."), QStringLiteral("capture.kv"), tr("Capture KV…"));
}

DistributionView::~DistributionView() = default;

DistributionScope DistributionView::scope() const {
  return static_cast<DistributionScope>(std::max(0, scope_->currentIndex()));
}

void DistributionView::setDistribution(const Distribution& distribution) {
  distribution_ = distribution;
  refresh();
  setState(ViewState::Ready);
}

QString DistributionView::factsText() const {
  const analysis::ValueGrid& grid = distribution_.grid;
  QStringList facts{tr("%1 values").arg(grid.count), tr("mean %1").arg(grid.mean, 0, 'g', 4),
                    tr("standard deviation %1").arg(grid.deviation, 0, 'g', 4),
                    tr("absmax %1").arg(grid.absmax, 0, 'g', 4)};
  if (grid.deviation > 0) facts << tr("absmax/σ %1").arg(grid.absmax / grid.deviation, 0, 'f', 1);
  if (grid.not_finite > 0) facts << tr("%1 NaN or infinite").arg(grid.not_finite);
  if (distribution_.quantized) {
    const TensorReport& report = distribution_.report;
    const analysis::QuantizerGrid& quantizer = distribution_.quantizer;
    if (!distribution_.groups.isEmpty())
      facts << tr("%1, %2 of them here").arg(distribution_.groups).arg(quantizer.groups);
    facts << (grid.distinct_levels > static_cast<qint64>(grid.levels.size())
                  ? tr("%1 distinct levels, %2 of them drawn").arg(grid.distinct_levels).arg(grid.levels.size())
                  : tr("%1 distinct levels").arg(grid.distinct_levels));
    const auto share = [](std::int64_t part, std::int64_t whole) {
      return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
    };
    if (quantizer.coded > 0)
      facts << tr("%1 % outside their range").arg(share(quantizer.outside, quantizer.coded), 0, 'f', 2);
    if (quantizer.picked > 0)
      facts << tr("%1 % kept as outliers").arg(share(quantizer.picked, quantizer.coded + quantizer.picked), 0, 'f', 2);
    if (!distribution_.codebook.empty()) {
      QStringList levels;
      for (const float level : distribution_.codebook) levels << number_text(level, 3);
      facts << tr("codebook in units of the scale: %1").arg(levels.join(QLatin1Char(' ')));
    }
    facts << tr("%1 % in full precision")
                 .arg(grid.count ? 100.0 * static_cast<double>(grid.full_precision) / static_cast<double>(grid.count)
                                 : 0.0,
                      0, 'f', 1)
          << tr("tensor: relative error %1 %").arg(100.0 * report.relative_error, 0, 'f', 2)
          << tr("saturated %1 %").arg(100.0 * report.saturated_fraction, 0, 'f', 2)
          << tr("%1 bit stored, %2 bit as published")
                 .arg(report.effective_bits, 0, 'f', 2)
                 .arg(distribution_.publishedBits, 0, 'f', 2);
    if (!report.functional_metric.empty() && std::isfinite(report.functional_error)) {
      facts << tr("%1 %2 %")
                   .arg(QString::fromStdString(report.functional_metric))
                   .arg(100.0 * report.functional_error, 0, 'f', 2);
    }
  }
  if (!distribution_.note.isEmpty()) facts << distribution_.note;
  return facts.join(QStringLiteral(" · "));
}

QVector<PlotRule> DistributionView::rules() const {
  QVector<PlotRule> rules;
  const analysis::QuantizerGrid& quantizer = distribution_.quantizer;
  const auto add = [&](float at, const QString& text) {
    // Ends that rounding moved just beyond the data are drawn at its edge.
    const double low = distribution_.grid.low, high = distribution_.grid.high, slack = 0.02 * (high - low);
    if (!std::isfinite(at) || at < low - slack || at > high + slack) return;
    PlotRule rule;
    rule.at = std::clamp<double>(at, low, high);
    rule.label = text.arg(number_text(at, 3));
    rule.vertical = true;
    rules.append(rule);
  };
  if (!distribution_.quantized || quantizer.coded == 0) return rules;
  const bool one = quantizer.groups == 1;
  add(quantizer.low, one ? tr("range from %1") : tr("widest range from %1"));
  add(quantizer.high, one ? tr("to %1") : tr("widest to %1"));
  if (!one && quantizer.narrow_low < quantizer.narrow_high) {
    add(quantizer.narrow_low, tr("narrowest from %1"));
    add(quantizer.narrow_high, tr("narrowest to %1"));
  }
  add(quantizer.inlier_low, tr("outliers below %1"));
  add(quantizer.inlier_high, tr("outliers above %1"));
  return rules;
}

void DistributionView::refresh() {
  const analysis::ValueGrid& grid = distribution_.grid;
  PlotSpec spec;
  spec.title =
      distribution_.what + (distribution_.setup.isEmpty() ? QString() : QStringLiteral(" · ") + distribution_.setup);
  spec.x = {tr("value [raw units]"), false, grid.low, grid.high};
  spec.y = {tr("count"), log_->isChecked()};
  spec.emptyText = tr("Nothing to count yet.");
  const double width = grid.original.empty() ? 1.0 : (grid.high - grid.low) / static_cast<double>(grid.original.size());
  const auto steps = [&](const QString& name, const std::vector<std::int64_t>& counts, bool filled, int color) {
    PlotSeries series;
    series.name = name;
    series.shape = PlotSeries::Shape::Steps;
    series.filled = filled;
    series.color = color;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      // On a log axis an empty bin stands at 0.8: below every count, without a zero mark per bin.
      const double count = counts[i] == 0 && log_->isChecked() ? 0.8 : static_cast<double>(counts[i]);
      series.points.append({grid.low + width * static_cast<double>(i), count});
    }
    if (!series.points.isEmpty()) series.points.append({grid.high, series.points.last().y});
    spec.series.append(series);
  };
  if (!grid.original.empty()) steps(tr("original"), grid.original, true, 0);
  if (!grid.reconstructed.empty()) steps(tr("quantized"), grid.reconstructed, false, 1);
  const std::vector<float>& levels =
      distribution_.quantizer.levels.empty() ? grid.levels : distribution_.quantizer.levels;
  for (const float level : levels) spec.rug << level;
  spec.rules = rules();
  codes_->panel().byWidth = distribution_.mixedWidths;
  codes_->panel().title = distribution_.mixedWidths ? tr("Code widths") : tr("Codes");
  codes_->panel().codes = {};
  if (distribution_.quantized) {
    codes_->panel().codes.counts =
        distribution_.mixedWidths ? distribution_.quantizer.widths : distribution_.quantizer.codes;
    codes_->panel().codes.counts.resize(
        std::max(codes_->panel().codes.counts.size(), static_cast<std::size_t>(distribution_.report.levels)), 0);
    codes_->panel().codes.full_precision = grid.full_precision;
  }
  codes_->setVisible(distribution_.quantized);
  codes_->update();
  if (spec.y.log) spec.y.low = 0.8;
  plot_->setSpec(std::move(spec));
  facts_->setText(factsText());
}

void DistributionView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  painter.setFont(style.font);
  const QRectF needed = painter.boundingRect(target, Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, factsText());
  const double strip = codes_->isHidden() ? 0.0 : codes_->height() * std::min(1.0, target.height() / 480.0);
  plot_->paint(painter, target.adjusted(0, 0, 0, -needed.height() - 4 - strip), style);
  if (strip > 0.0)
    codes_->panel().paint(
        painter, QRectF(target.left(), target.bottom() - needed.height() - 4 - strip, target.width(), strip), style);
  painter.setPen(style.muted);
  painter.drawText(QRectF(target.left() + 4, target.bottom() - needed.height(), target.width() - 8, needed.height()),
                   Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, factsText());
  painter.restore();
}

QAbstractTableModel* DistributionView::dataTable() {
  const analysis::ValueGrid& grid = distribution_.grid;
  QVector<PlainTableModel::Row> rows;
  const double width = grid.original.empty() ? 0.0 : (grid.high - grid.low) / static_cast<double>(grid.original.size());
  for (std::size_t i = 0; i < grid.original.size(); ++i) {
    rows.append({grid.low + width * static_cast<double>(i), grid.low + width * static_cast<double>(i + 1),
                 static_cast<qlonglong>(grid.original[i]),
                 i < grid.reconstructed.size() ? QVariant(static_cast<qlonglong>(grid.reconstructed[i])) : QVariant()});
  }
  table_->setTable({tr("from [raw units]"), tr("to [raw units]"), tr("original count"), tr("quantized count")},
                   std::move(rows));
  return table_.get();
}

QString DistributionView::accessibleSummary() const { return distribution_.what + QStringLiteral(": ") + factsText(); }

QJsonObject DistributionView::saveSettings() const {
  return {{QStringLiteral("scope"), scope_->currentIndex()}, {QStringLiteral("log"), log_->isChecked()}};
}

void DistributionView::restoreSettings(const QJsonObject& settings) {
  const QSignalBlocker quiet(this);
  scope_->setCurrentIndex(std::clamp(settings.value(QStringLiteral("scope")).toInt(), 0, 3));
  log_->setChecked(settings.value(QStringLiteral("log")).toBool(true));
}

void DistributionView::setLogScale(bool log) { log_->setChecked(log); }

}  // namespace qs
