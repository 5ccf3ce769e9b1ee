#include "widgets/view_overlay.h"

#include <QClipboard>
#include <QEvent>
#include <QGuiApplication>
#include <QLabel>
#include <QPainter>
#include <QPushButton>
#include <QToolButton>

namespace qs {
namespace {

constexpr int kStrip = 30;

bool covers(ViewState state) {
  return state == ViewState::Empty || state == ViewState::Failed || state == ViewState::Cancelled;
}

}  // namespace

ViewOverlay::ViewOverlay(QWidget* over)
    : QWidget(over),
      message_(new QLabel(this)),
      action_(new QPushButton(this)),
      copy_(new QPushButton(tr("Copy details"), this)),
      cancel_(new QToolButton(this)) {
  setObjectName(QStringLiteral("viewOverlay"));
  message_->setObjectName(QStringLiteral("viewMessage"));
  message_->setWordWrap(true);
  action_->setObjectName(QStringLiteral("viewAction"));
  copy_->setObjectName(QStringLiteral("viewCopyDetails"));
  copy_->setAccessibleName(tr("Copy details of the failure"));
  copy_->setToolTip(tr("Copies the message and its technical details to the clipboard"));
  cancel_->setObjectName(QStringLiteral("viewCancel"));
  cancel_->setText(QStringLiteral("✕"));
  cancel_->setAutoRaise(true);
  cancel_->setAccessibleName(tr("Cancel loading"));
  cancel_->setToolTip(tr("Stops loading; what is shown stays"));
  connect(action_, &QPushButton::clicked, this, &ViewOverlay::actionClicked);
  connect(cancel_, &QToolButton::clicked, this, &ViewOverlay::cancelClicked);
  connect(copy_, &QPushButton::clicked, this, [this] {
    QGuiApplication::clipboard()->setText(content_.title + QLatin1Char('\n') + content_.message + QLatin1Char('\n') +
                                          content_.detail);
  });
  over->installEventFilter(this);
  hide();
}

void ViewOverlay::show(const Content& content) {
  content_ = content;
  const bool covering = covers(content.state);
  message_->setText(content.message);
  message_->setAlignment(covering ? Qt::AlignCenter : Qt::AlignVCenter | Qt::AlignLeft);
  message_->setVisible(covering || content.state == ViewState::Stale || content.state == ViewState::Partial);
  QPalette text = palette();
  const bool bar = content.state == ViewState::Stale || content.state == ViewState::Partial;
  if (bar) text.setColor(QPalette::WindowText, Qt::black);
  message_->setPalette(text);
  action_->setText(content.actionText);
  action_->setAccessibleName(content.actionText);
  action_->setToolTip(content.actionText);
  action_->setVisible(!content.actionText.isEmpty() && (covering || content.state == ViewState::Stale));
  copy_->setVisible(content.state == ViewState::Failed);
  cancel_->setVisible(content.state == ViewState::Loading);
  setVisible(content.state != ViewState::Ready);
  setToolTip(content.state == ViewState::Loading ? content.step : QString());
  place();
  raise();
  update();
}

bool ViewOverlay::eventFilter(QObject* watched, QEvent* event) {
  if (watched == parent() && (event->type() == QEvent::Resize || event->type() == QEvent::LayoutRequest)) place();
  return QWidget::eventFilter(watched, event);
}

void ViewOverlay::place() {
  const QRect all = parentWidget()->rect();
  if (!covers(content_.state)) {
    if (content_.state == ViewState::Loading) {
      setGeometry(all.left(), all.top(), all.width(), 22);
      setMask(QRegion(0, 0, width(), 3) + QRegion(width() - 24, 0, 24, 22));
      cancel_->setGeometry(width() - 23, 3, 20, 18);
      return;
    }
    clearMask();
    setGeometry(all.left(), all.top(), all.width(), kStrip);
    const int button = action_->isVisibleTo(this) ? action_->sizeHint().width() : 0;
    message_->setGeometry(10, 0, qMax(40, width() - button - 28), kStrip);
    action_->setGeometry(width() - button - 8, 2, button, kStrip - 4);
    return;
  }
  clearMask();
  setGeometry(all);
  const int wide = qMin(560, width() - 32);
  const int high = message_->heightForWidth(wide);
  int y = height() / 2 - high / 2 - 10;
  message_->setGeometry((width() - wide) / 2, y, wide, high);
  y += high + 14;
  const QSize a = action_->sizeHint(), c = copy_->sizeHint();
  const bool two = copy_->isVisibleTo(this);
  const bool one = action_->isVisibleTo(this);
  const int total = (one ? a.width() : 0) + (two ? c.width() + (one ? 8 : 0) : 0);
  int x = (width() - total) / 2;
  if (one) action_->setGeometry(x, y, a.width(), a.height());
  if (one) x += a.width() + 8;
  copy_->setGeometry(x, y, c.width(), c.height());
}

void ViewOverlay::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  if (content_.state == ViewState::Loading) {
    painter.fillRect(QRect(0, 0, width(), 3), palette().color(QPalette::Mid));
    const double fraction = content_.fraction > 0 ? qBound(0.02, content_.fraction, 1.0) : 0.02;
    painter.fillRect(QRectF(0, 0, width() * fraction, 3), palette().color(QPalette::Highlight));
    painter.fillRect(QRect(width() - 24, 0, 24, 22), palette().color(QPalette::Window));
    return;
  }
  if (covers(content_.state)) {
    painter.fillRect(rect(), palette().color(QPalette::Base));
    if (content_.state == ViewState::Failed) {
      const QRect m = message_->geometry();
      painter.fillRect(QRect(m.left() - 14, m.top(), 4, m.height()), QColor(0xd3, 0x2f, 0x2f));
    }
    return;
  }
  painter.fillRect(rect(), QColor(0xff, 0xc1, 0x07));
  if (content_.state == ViewState::Partial) painter.fillRect(rect(), QBrush(QColor(0, 0, 0, 40), Qt::BDiagPattern));
}

}  // namespace qs
