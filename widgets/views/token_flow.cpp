#include "widgets/views/token_flow.h"

#include <QFontMetricsF>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <algorithm>
#include <cmath>

namespace qs {

namespace {

constexpr double kMargin = 8.0;

QColor mixed(const QColor& from, const QColor& to, double share) {
  const auto t = static_cast<float>(std::clamp(share, 0.0, 1.0));
  return QColor::fromRgbF(from.redF() + (to.redF() - from.redF()) * t,
                          from.greenF() + (to.greenF() - from.greenF()) * t,
                          from.blueF() + (to.blueF() - from.blueF()) * t);
}

double heightOf(const QFontMetricsF& metrics) { return std::ceil(metrics.lineSpacing() * 1.25); }

}  // namespace

void TokenFlow::Flow::place(Piece piece) {
  if (lines.isEmpty()) lines.append(Line());
  if (x + piece.width > width && !lines.last().isEmpty()) {
    // The whole word moves down when its beginning is on this line and it does not fill the line.
    Line moved;
    if (!piece.word_start) {
      Line& line = lines.last();
      int from = static_cast<int>(line.size());
      while (from > 0 && !line[from - 1].word_start) --from;
      if (from > 1) {
        moved = line.mid(from - 1);
        line.resize(from - 1);
      }
    }
    lines.append(Line());
    const QString& first = moved.isEmpty() ? piece.text : moved.first().text;
    x = first.startsWith(u' ') ? -space : 0.0;
    for (Piece& part : moved) {
      part.x = static_cast<float>(x);
      x += part.width;
      lines.last().append(part);
    }
  }
  piece.x = static_cast<float>(x);
  x += piece.width;
  lines.last().append(std::move(piece));
}

void TokenFlow::Flow::add(int token, const QString& text, const QFontMetricsF& metrics) {
  qsizetype begin = 0;
  while (begin <= text.size()) {
    const qsizetype newline = text.indexOf(u'\n', begin);
    qsizetype at = begin;
    const qsizetype end = newline < 0 ? text.size() : newline;
    while (at < end) {
      qsizetype next = at + 1;
      while (next < end && !(text[next].isSpace() && !text[next - 1].isSpace())) ++next;
      QString part = text.mid(at, next - at);
      double wide = metrics.horizontalAdvance(part);
      while (wide > width && part.size() > 1) {  // a piece longer than a line is cut
        QString head = part.left(std::max<qsizetype>(1, static_cast<qsizetype>(part.size() * width / wide) - 1));
        place({token, head, 0, static_cast<float>(metrics.horizontalAdvance(head)), true});
        part = part.mid(head.size());
        wide = metrics.horizontalAdvance(part);
      }
      place({token, part, 0, static_cast<float>(wide), part.front().isSpace()});
      at = next;
    }
    if (newline < 0) break;
    lines.append(Line());
    x = 0.0;
    begin = newline + 1;
  }
}

TokenFlow::TokenFlow(QWidget* parent) : QAbstractScrollArea(parent) {
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  setFocusPolicy(Qt::StrongFocus);
  viewport()->setMouseTracking(true);
  viewport()->setCursor(Qt::IBeamCursor);
}

double TokenFlow::lineHeight() const { return heightOf(QFontMetricsF(font())); }

void TokenFlow::clear() {
  tokens_.clear();
  tints_.clear();
  marker_ = current_ = hovered_ = -1;
  layOut();
}

void TokenFlow::setPrompt(const QString& prompt) {
  prompt_ = prompt;
  layOut();
}

void TokenFlow::append(const QStringList& tokens) {
  QScrollBar* bar = verticalScrollBar();
  const bool follow = bar->value() >= bar->maximum() - static_cast<int>(lineHeight());
  const QFontMetricsF metrics(font());
  for (const QString& token : tokens) {
    flow_.add(static_cast<int>(tokens_.size()), token, metrics);
    tokens_.append(token);
  }
  updateScrollBar();
  if (follow) bar->setValue(bar->maximum());
  viewport()->update();
}

void TokenFlow::setTints(QVector<TokenTint> tints) {
  tints_ = std::move(tints);
  viewport()->update();
}

void TokenFlow::setMarker(int token, bool close) {
  if (marker_ == token && marker_close_ == close) return;
  marker_ = token;
  marker_close_ = close;
  viewport()->update();
}

void TokenFlow::setCurrent(int token) {
  if (token == current_) return;
  current_ = token;
  if (token >= 0) {
    const QRect at = tokenRect(token);
    QScrollBar* bar = verticalScrollBar();
    if (at.top() < 0) bar->setValue(bar->value() + at.top() - 8);
    if (at.bottom() > viewport()->height()) bar->setValue(bar->value() + at.bottom() - viewport()->height() + 8);
  }
  viewport()->update();
}

QString TokenFlow::plainText() const { return tokens_.join(QString()); }

void TokenFlow::layOut() {
  flow_ = Flow();
  flow_.width = std::max(40.0, viewport()->width() - 2 * kMargin);
  const QFontMetricsF metrics(font());
  flow_.space = metrics.horizontalAdvance(u' ');
  if (!prompt_.isEmpty()) flow_.add(-1, prompt_, metrics);
  for (int i = 0; i < tokens_.size(); ++i) flow_.add(i, tokens_[i], metrics);
  updateScrollBar();
  viewport()->update();
}

void TokenFlow::updateScrollBar() {
  const int total = static_cast<int>(flow_.lines.size() * lineHeight() + 2 * kMargin);
  verticalScrollBar()->setPageStep(viewport()->height());
  verticalScrollBar()->setSingleStep(static_cast<int>(lineHeight()));
  verticalScrollBar()->setRange(0, std::max(0, total - viewport()->height()));
}

void TokenFlow::drawLines(QPainter& painter, const Flow& flow, const QRectF& area, int firstLine, double top,
                          const FigureStyle& style) const {
  const QFontMetricsF metrics(painter.font());
  const double height = heightOf(metrics);
  const double baseline = (height - metrics.height()) / 2 + metrics.ascent();
  bool marked = marker_ < 0;
  for (int i = firstLine; i < flow.lines.size(); ++i) {
    const double y = top + (i - firstLine) * height;
    if (y > area.bottom()) break;
    for (const Piece& piece : flow.lines[i]) {
      const QRectF box(area.left() + piece.x, y, piece.width, height);
      const TokenTint tint = piece.token >= 0 && piece.token < tints_.size() ? tints_[piece.token] : TokenTint{};
      if (tint.kind != TokenTint::Kind::None && tint.share > 0.0) {
        const QColor& toward = tint.kind == TokenTint::Kind::Warning ? style.warning : style.accentB;
        painter.fillRect(box.adjusted(0, 1.5, 0, -1.5), mixed(style.background, toward, tint.share));
      }
      if (piece.token >= 0 && piece.token == current_) {
        painter.setPen(QPen(style.accent, 1.4));
        painter.setBrush(Qt::NoBrush);
        painter.drawRoundedRect(box.adjusted(0, 1, 0, -1), 2, 2);
      }
      painter.setPen(piece.token < 0 ? style.muted : style.foreground);
      painter.drawText(QPointF(box.left(), y + baseline), piece.text);
      if (tint.underlined) {
        painter.setPen(QPen(style.warning, 1.6));
        painter.drawLine(QPointF(box.left(), y + baseline + 2.5), QPointF(box.right(), y + baseline + 2.5));
      }
      if (!marked && piece.token == marker_) {
        marked = true;
        const QColor& color = marker_close_ ? style.accentB : style.warning;
        painter.setPen(QPen(color, 2.4));
        painter.drawLine(box.topLeft(), box.bottomLeft());
        painter.setBrush(color);
        painter.setPen(Qt::NoPen);
        painter.drawPolygon(
            QPolygonF({box.topLeft() + QPointF(-4, 0), box.topLeft() + QPointF(4, 0), box.topLeft() + QPointF(0, 5)}));
      }
    }
  }
}

void TokenFlow::paintEvent(QPaintEvent*) {
  QPainter painter(viewport());
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setFont(font());
  FigureStyle style = FigureStyle::screen(*this);
  const int first = static_cast<int>(std::max(0.0, (verticalScrollBar()->value() - kMargin) / lineHeight()));
  const double top = kMargin + first * lineHeight() - verticalScrollBar()->value();
  drawLines(painter, flow_, QRectF(viewport()->rect()).adjusted(kMargin, 0, -kMargin, 0), first, top, style);
}

void TokenFlow::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) const {
  painter.save();
  painter.setClipRect(target);
  painter.setFont(style.font);
  Flow flow;
  flow.width = std::max(40.0, target.width() - 8.0);
  const QFontMetricsF metrics(style.font);
  flow.space = metrics.horizontalAdvance(u' ');
  if (!prompt_.isEmpty()) flow.add(-1, prompt_, metrics);
  const int fitting = static_cast<int>(target.height() / heightOf(metrics)) + 1;
  for (int i = 0; i < tokens_.size() && flow.lines.size() <= fitting; ++i) flow.add(i, tokens_[i], metrics);
  drawLines(painter, flow, target.adjusted(4, 2, -4, -2), 0, target.top() + 2, style);
  painter.restore();
}

QRect TokenFlow::tokenRect(int token) const {
  for (int i = 0; i < flow_.lines.size(); ++i) {
    for (const Piece& piece : flow_.lines[i]) {
      if (piece.token != token) continue;
      return QRectF(kMargin + piece.x, kMargin + i * lineHeight() - verticalScrollBar()->value(), piece.width,
                    lineHeight())
          .toAlignedRect();
    }
  }
  return {};
}

int TokenFlow::tokenAt(const QPointF& position) const {
  const int line = static_cast<int>(std::floor((position.y() + verticalScrollBar()->value() - kMargin) / lineHeight()));
  if (line < 0 || line >= flow_.lines.size()) return -1;
  for (const Piece& piece : flow_.lines[line]) {
    if (position.x() >= kMargin + piece.x && position.x() < kMargin + piece.x + piece.width) return piece.token;
  }
  return -1;
}

void TokenFlow::resizeEvent(QResizeEvent*) { layOut(); }

void TokenFlow::mousePressEvent(QMouseEvent* event) {
  const int token = tokenAt(event->position());
  if (event->button() != Qt::LeftButton || token < 0) return;
  setCurrent(token);
  Q_EMIT tokenActivated(token);
}

void TokenFlow::mouseMoveEvent(QMouseEvent* event) {
  const int token = tokenAt(event->position());
  if (token == hovered_) return;
  hovered_ = token;
  Q_EMIT tokenHovered(token, event->globalPosition().toPoint());
}

void TokenFlow::keyPressEvent(QKeyEvent* event) {
  const int last = count() - 1;
  const int step = event->modifiers().testFlag(Qt::ShiftModifier) ? 10 : 1;
  int next = current_;
  switch (event->key()) {
    case Qt::Key_Left:
      next -= step;
      break;
    case Qt::Key_Right:
      next += step;
      break;
    case Qt::Key_Home:
      next = 0;
      break;
    case Qt::Key_End:
      next = last;
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
      if (current_ >= 0) Q_EMIT tokenActivated(current_);
      return;
    default:
      QAbstractScrollArea::keyPressEvent(event);
      return;
  }
  if (last < 0) return;
  setCurrent(std::clamp(next, 0, last));
  Q_EMIT tokenHovered(current_, viewport()->mapToGlobal(tokenRect(current_).bottomLeft()));
}

void TokenFlow::changeEvent(QEvent* event) {
  if (event->type() == QEvent::FontChange) layOut();
  QAbstractScrollArea::changeEvent(event);
}

}  // namespace qs
