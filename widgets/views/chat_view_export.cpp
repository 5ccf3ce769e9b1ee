// What leaves the chat view: Markdown, figure and data table.

#include <QPainter>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/views/chat_controls.h"
#include "widgets/views/chat_view.h"
#include "widgets/views/divergence_timeline.h"
#include "widgets/views/token_flow.h"

namespace qs {

QString ChatView::asMarkdown() const {
  const auto cell = [](QString text) {
    return text.replace(u'|', QStringLiteral("\\|")).replace(u'\n', QStringLiteral("<br>"));
  };
  const SamplingOptions options = controls_->options();
  QString head = QStringLiteral("| |"), rule = QStringLiteral("|---|"), text = tr("| Reply |"),
          stats = tr("| Measured |"), why = tr("| First divergence |");
  for (const ChatColumn* column : columns_) {
    head += QStringLiteral(" %1 |").arg(cell(column->variant().name));
    rule += QStringLiteral("---|");
    text += QStringLiteral(" %1 |").arg(cell(column->flow()->plainText()));
    stats += QStringLiteral(" %1 |").arg(cell(column->statsText()));
    const auto& divergence = column->divergence();
    why += divergence ? tr(" token %1, reference margin %2%3 |")
                            .arg(divergence->index)
                            .arg(divergence->reference_margin, 0, 'f', 3)
                            .arg(divergence->knife_edge ? tr(" (knife-edge)") : QString())
                      : QStringLiteral(" – |");
  }
  const QString settings = options.temperature > 0
                               ? tr("temperature %1, top-p %2, top-k %3, min-p %4, repetition penalty %5, seed %6")
                                     .arg(options.temperature)
                                     .arg(options.top_p)
                                     .arg(options.top_k)
                                     .arg(options.min_p)
                                     .arg(options.repetition_penalty)
                                     .arg(options.seed)
                               : tr("greedy, repetition penalty %1").arg(options.repetition_penalty);
  return tr("Prompt: %1").arg(shown_prompt_) + QStringLiteral("\n\n") + settings + QStringLiteral("\n\n") + head +
         u'\n' + rule + u'\n' + text + u'\n' + stats + u'\n' + why + u'\n';
}

void ChatView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  const bool timeline = !timeline_->lines().isEmpty();
  const double below = timeline ? target.height() * 0.3 : 0.0;
  const double width = target.width() / std::max(1, columnCount());
  QFont bold = style.font, small = style.font;
  bold.setBold(true);
  small.setPixelSize(std::max(7, static_cast<int>(std::lround(style.font.pixelSize() * 0.82))));
  const QFontMetricsF metrics(bold), smallMetrics(small);
  for (int i = 0; i < columnCount(); ++i) {
    const ChatColumn* column = columns_[i];
    QRectF area(target.left() + i * width + 3, target.top() + 2, width - 6, target.height() - below - 6);
    painter.setPen(QPen(style.grid, style.lineWidth));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(area);
    area.adjust(4, 3, -4, -3);
    painter.setFont(bold);
    painter.setPen(style.foreground);
    painter.drawText(area, Qt::AlignLeft | Qt::AlignTop,
                     metrics.elidedText(column->variant().name, Qt::ElideRight, area.width()));
    area.setTop(area.top() + metrics.height());
    painter.setFont(small);
    painter.setPen(style.muted);
    const QString facts = column->statsText();
    const QRectF used = painter.boundingRect(area, Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, facts);
    painter.drawText(area, Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, facts);
    area.setTop(area.top() + std::max(used.height(), smallMetrics.height()) + 3);
    if (column->divergence()) {
      painter.setPen(column->divergence()->knife_edge ? style.accentB : style.warning);
      painter.drawText(area, Qt::AlignLeft | Qt::AlignTop,
                       tr("≠ token %1, margin %2%3")
                           .arg(column->divergence()->index)
                           .arg(column->divergence()->reference_margin, 0, 'f', 3)
                           .arg(column->divergence()->knife_edge ? tr(", knife-edge") : QString()));
    }
    area.setTop(area.top() + smallMetrics.height() + 2);
    if (column->state() == ChatColumn::State::Failed) {
      painter.setPen(style.warning);
      painter.drawText(area, Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, column->message());
      continue;
    }
    column->flow()->paint(painter, area, style);
  }
  if (timeline)
    timeline_->plot()->paint(painter, QRectF(target.left(), target.bottom() - below, target.width(), below), style);
  painter.restore();
}

QAbstractTableModel* ChatView::dataTable() {
  QStringList headers{tr("token index")};
  std::size_t rows = 0;
  for (const ChatColumn* column : columns_) {
    const QString name = column->variant().name;
    headers << tr("%1 id").arg(name) << tr("%1 text").arg(name) << tr("%1 logprob [nats]").arg(name);
    if (!column->isReference())
      headers << tr("%1 KL [nats]").arg(name) << tr("%1 Δp").arg(name) << tr("%1 same top-1").arg(name);
    rows = std::max({rows, column->steps().size(), column->replaySteps().size()});
  }
  QVector<PlainTableModel::Row> table;
  for (std::size_t i = 0; i < rows; ++i) {
    PlainTableModel::Row row{static_cast<qlonglong>(i)};
    for (const ChatColumn* column : columns_) {
      if (i < column->steps().size()) {
        const TokenStep& step = column->steps()[i];
        row << static_cast<qlonglong>(step.id) << QString::fromStdString(step.text)
            << static_cast<double>(step.logprob);
      } else {
        row << QVariant() << QVariant() << QVariant();
      }
      if (column->isReference()) continue;
      if (i < column->replaySteps().size()) {
        const ReplayStep& step = column->replaySteps()[i];
        row << step.kl_nats << step.probability_change << static_cast<int>(step.same_top1);
      } else {
        row << QVariant() << QVariant() << QVariant();
      }
    }
    table.append(row);
  }
  table_->setTable(headers, table);
  return table_.get();
}

}  // namespace qs
