// What leaves the chat view: Markdown, HTML, figure and data table; the preview of the prompt.

#include <QDialog>
#include <QDialogButtonBox>
#include <QFileDialog>
#include <QLabel>
#include <QPainter>
#include <QSaveFile>
#include <QTextBrowser>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/views/chat_controls.h"
#include "widgets/views/chat_view.h"
#include "widgets/views/divergence_timeline.h"
#include "widgets/views/token_flow.h"

namespace qs {

QString ChatView::samplingText() const {
  const SamplingOptions options = controls_->options();
  if (options.temperature <= 0) return tr("greedy, repetition penalty %1").arg(options.repetition_penalty);
  return tr("temperature %1, top-p %2, top-k %3, min-p %4, repetition penalty %5, seed %6")
      .arg(options.temperature)
      .arg(options.top_p)
      .arg(options.top_k)
      .arg(options.min_p)
      .arg(options.repetition_penalty)
      .arg(options.seed);
}

QString ChatView::asMarkdown() const {
  const auto cell = [](QString text) {
    return text.replace(u'|', QStringLiteral("\\|")).replace(u'\n', QStringLiteral("<br>"));
  };
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
  return tr("Prompt: %1").arg(shown_prompt_) + QStringLiteral("\n\n") + samplingText() + QStringLiteral("\n\n") + head +
         u'\n' + rule + u'\n' + text + u'\n' + stats + u'\n' + why + u'\n';
}

QString ChatView::asHtml() const {
  const auto escaped = [](const QString& text) { return text.toHtmlEscaped().replace(u'\n', QStringLiteral("<br>")); };
  QString heads, replies, measured, why;
  for (const ChatColumn* column : columns_) {
    heads += QStringLiteral("<th scope=\"col\">%1<br><small>%2</small></th>")
                 .arg(escaped(column->variant().name), escaped(column->variant().setup));
    const QVector<TokenTint> tints = column->tints(mode_, columns_.first()->steps());
    QString text = QStringLiteral("<span class=\"prompt\">%1</span>").arg(escaped(shown_prompt_));
    for (std::size_t i = 0; i < column->steps().size(); ++i) {
      const TokenTint tint = static_cast<qsizetype>(i) < tints.size() ? tints[static_cast<qsizetype>(i)] : TokenTint{};
      QString style;
      if (tint.kind != TokenTint::Kind::None && tint.share > 0.0) {
        style =
            QStringLiteral("background:rgba(%1,%2)")
                .arg(tint.kind == TokenTint::Kind::Warning ? QStringLiteral("198,40,40") : QStringLiteral("194,90,0"))
                .arg(tint.share, 0, 'f', 2);
      }
      if (tint.underlined) style += QStringLiteral(";border-bottom:2px solid #c62828");
      if (column->divergence() && column->divergence()->index == static_cast<std::int64_t>(i))
        style += QStringLiteral(";border-left:3px solid #c25a00");
      text += QStringLiteral("<span title=\"%1\"%2>%3</span>")
                  .arg(escaped(column->tokenText(static_cast<int>(i))),
                       style.isEmpty() ? QString() : QStringLiteral(" style=\"%1\"").arg(style),
                       escaped(QString::fromStdString(column->steps()[i].text)));
    }
    if (column->state() == ChatColumn::State::Failed)
      text += QStringLiteral("<p class=\"failed\">%1</p>").arg(escaped(column->message()));
    replies += QStringLiteral("<td>%1</td>").arg(text);
    measured += QStringLiteral("<td>%1</td>").arg(escaped(column->statsText()));
    const QString divergence = column->divergenceText();
    why += QStringLiteral("<td>%1</td>").arg(divergence.isEmpty() ? QStringLiteral("–") : divergence);
  }
  return QStringLiteral(
             "<!DOCTYPE html>\n<html lang=\"%1\"><head><meta charset=\"utf-8\"><title>%2</title>\n<style>"
             "body{font:15px/1.5 sans-serif;margin:2em;color:#1b1b1b;background:#fff}"
             "table.chat{border-collapse:collapse;width:100%;table-layout:fixed}"
             "table.chat>*>tr>*{border:1px solid #ccc;padding:.5em;vertical-align:top;text-align:left;"
             "overflow-wrap:break-word}"
             "small,.prompt,.line{color:#5c5c5c}.failed{color:#c62828}</style></head>\n<body><h1>%2</h1>\n")
             .arg(locale().bcp47Name(), tr("Chat")) +
         QStringLiteral("<p>%1</p>\n<table class=\"chat\"><thead><tr>").arg(escaped(samplingText())) + heads +
         QStringLiteral("</tr></thead>\n<tbody><tr>") + replies + QStringLiteral("</tr>\n<tr>") + measured +
         QStringLiteral("</tr>\n<tr>") + why + QStringLiteral("</tr></tbody></table>\n") +
         QStringLiteral("<p class=\"line\">%1<br><code>%2</code></p></body></html>\n")
             .arg(escaped(provenance().line()), escaped(provenance().command));
}

bool ChatView::saveAs(const QString& path) const {
  QSaveFile file(path);
  const bool markdown = path.endsWith(QLatin1String(".md"), Qt::CaseInsensitive);
  return file.open(QIODevice::WriteOnly) && file.write((markdown ? asMarkdown() : asHtml()).toUtf8()) >= 0 &&
         file.commit();
}

void ChatView::askAndSave() {
  const QString path = QFileDialog::getSaveFileName(this, tr("Save chat"), QStringLiteral("chat.html"),
                                                    tr("HTML (*.html);;Markdown (*.md)"));
  if (!path.isEmpty() && !saveAs(path))
    Q_EMIT readoutChanged(tr("'%1' cannot be written. Check the folder's permissions.").arg(path));
}

void ChatView::showPromptPreview(const PromptPreview& preview) {
  auto* dialog = new QDialog(this);
  dialog->setObjectName(QStringLiteral("prompt_preview"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowTitle(tr("Prompt as tokens"));
  dialog->resize(520, 360);
  auto* column = new QVBoxLayout(dialog);
  column->addWidget(
      new QLabel(tr("%n token(s), %1", nullptr, static_cast<int>(preview.ids.size())).arg(preview.tokenizer), dialog));
  if (!preview.text.isEmpty()) {
    auto* whole = new QTextBrowser(dialog);
    whole->setObjectName(QStringLiteral("prompt_preview_whole"));
    whole->setAccessibleName(tr("The prompt as it is sent"));
    whole->setToolTip(tr("The message as the chat template writes it"));
    whole->setPlainText(preview.text);
    column->addWidget(whole, 1);
  }
  auto* text = new QTextBrowser(dialog);
  text->setObjectName(QStringLiteral("prompt_preview_text"));
  text->setAccessibleName(tr("Tokens of the prompt with their ids"));
  text->setToolTip(tr("Each token with its id beside it, as the reference reads the prompt"));
  QString html;
  for (qsizetype i = 0; i < preview.ids.size(); ++i) {
    QString token = preview.texts.value(i).toHtmlEscaped();
    token.replace(u'\n', QStringLiteral("↵")).replace(u' ', QStringLiteral("␣"));
    html += QStringLiteral("<b>%1</b>&nbsp;<small>%2</small> &nbsp; ").arg(token, QString::number(preview.ids[i]));
  }
  text->setHtml(html);
  column->addWidget(text, 1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, dialog);
  connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::reject);
  column->addWidget(buttons);
  dialog->open();
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
  if (timeline) {
    PlotView plot;  // without the room for the control that the plot on the screen has
    plot.setSpec(timeline_->makeSpec());
    plot.paint(painter, QRectF(target.left(), target.bottom() - below, target.width(), below), style);
  }
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
