#include "widgets/view_base.h"

#include <QAccessible>
#include <QAccessibleWidget>
#include <QComboBox>
#include <QHBoxLayout>
#include <QIcon>
#include <QLabel>
#include <QPainter>
#include <QPainterPath>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>

#include "widgets/flow_layout.h"
#include "widgets/selection_hub.h"
#include "widgets/view_overlay.h"

namespace qs {
namespace {

/// A view is a chart to screen readers; its name is the title, its description the summary.
class ViewAccessible : public QAccessibleWidget {
 public:
  explicit ViewAccessible(ViewBase* view) : QAccessibleWidget(view, QAccessible::Chart) {}
  QString text(QAccessible::Text kind) const override {
    const auto* view = static_cast<const ViewBase*>(widget());
    if (kind == QAccessible::Name) return view->title();
    if (kind == QAccessible::Description) {
      return view->state() == ViewState::Ready ? view->accessibleSummary() : view->stateMessage();
    }
    return QAccessibleWidget::text(kind);
  }
};

QAccessibleInterface* viewInterface(const QString& className, QObject* object) {
  if (className != QLatin1String("qs::ViewBase")) return nullptr;
  auto* view = qobject_cast<ViewBase*>(object);
  return view ? new ViewAccessible(view) : nullptr;
}

QIcon chainIcon(const QColor& color, bool linked) {
  QPixmap pixmap(40, 40);
  pixmap.fill(Qt::transparent);
  QPainter painter(&pixmap);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setPen(QPen(color, 4));
  painter.drawRoundedRect(QRectF(3, 13, linked ? 20 : 15, 14), 7, 7);
  painter.drawRoundedRect(QRectF(linked ? 17 : 22, 13, linked ? 20 : 15, 14), 7, 7);
  if (!linked) painter.drawLine(QPointF(14, 34), QPointF(26, 6));
  return QIcon(pixmap);
}

QColor mixed(const QColor& a, const QColor& b, double share) {
  return QColor::fromRgbF(a.redF() + (b.redF() - a.redF()) * share, a.greenF() + (b.greenF() - a.greenF()) * share,
                          a.blueF() + (b.blueF() - a.blueF()) * share);
}

}  // namespace

QString Provenance::line() const {
  QStringList parts;
  for (const QString& part : {session, variant, data, program})
    if (!part.isEmpty()) parts << part;
  return parts.join(QStringLiteral(" · "));
}

FigureStyle FigureStyle::screen(const QWidget& widget) {
  FigureStyle style;
  const QPalette& palette = widget.palette();
  style.background = palette.color(QPalette::Base);
  style.foreground = palette.color(QPalette::Text);
  style.muted = mixed(style.foreground, style.background, 0.38);
  style.grid = mixed(style.foreground, style.background, 0.85);
  const bool dark = style.background.lightness() < 128;
  style.accent = dark ? QColor(0x5b, 0xb0, 0xff) : QColor(0x0b, 0x63, 0xb5);
  style.accentB = dark ? QColor(0xff, 0xa0, 0x4d) : QColor(0xc2, 0x5a, 0x00);
  style.warning = dark ? QColor(0xff, 0x6b, 0x6b) : QColor(0xc6, 0x28, 0x28);
  style.font = widget.font();
  style.font.setPixelSize(std::max(9, QFontInfo(widget.font()).pixelSize() - 1));
  return style;
}

FigureStyle FigureStyle::print(double fontPointSize) {
  FigureStyle style;
  style.background = Qt::white;
  style.foreground = Qt::black;
  style.muted = QColor(0x55, 0x55, 0x55);
  style.grid = QColor(0xdd, 0xdd, 0xdd);
  style.accent = QColor(0x0b, 0x63, 0xb5);
  style.accentB = QColor(0xc2, 0x5a, 0x00);
  style.warning = QColor(0xc6, 0x28, 0x28);
  style.font = QFont(QStringLiteral("Sans Serif"));
  style.font.setStyleHint(QFont::SansSerif);
  style.font.setPixelSize(std::max(1, qRound(fontPointSize * 96.0 / 72.0)));
  style.lineWidth = 0.75;
  return style;
}

ViewBase::ViewBase(QString viewId, QString title, SelectionHub& hub, QWidget* parent)
    : QWidget(parent), viewId_(std::move(viewId)), title_(std::move(title)), hub_(hub) {
  static const bool installed = [] {
    QAccessible::installFactory(viewInterface);
    return true;
  }();
  Q_UNUSED(installed)
  setObjectName(viewId_);
  setAccessibleName(title_);
  connect(&hub_, &SelectionHub::changed, this, [this] {
    if (linked_) selectionChanged();
  });
}

QComboBox* ViewBase::addChoice(const char* name, const QString& label, const QString& tip) {
  auto* text = new QLabel(label, this);
  auto* box = new QComboBox(this);
  box->setObjectName(QLatin1String(name));
  box->setAccessibleName(tip);
  box->setToolTip(tip);
  box->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  text->setBuddy(box);
  controlsLayout()->addWidget(text);
  controlsLayout()->addWidget(box);
  return box;
}

void ViewBase::makeFrame() {
  if (body_) return;
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  auto* row = new QHBoxLayout;
  row->setContentsMargins(6, 4, 6, 4);
  row->setSpacing(6);
  controls_ = new FlowLayout;
  controls_->setSpacing(6);
  row->addLayout(controls_, 1);
  chain_ = new QToolButton(this);
  chain_->setObjectName(QStringLiteral("link"));
  chain_->setCheckable(true);
  chain_->setChecked(linked_);
  chain_->setAutoRaise(true);
  chain_->setAccessibleName(tr("Follow the shared selection"));
  chain_->setToolTip(
      tr("Linked: this view follows the layer, head, channels and tokens chosen in the others (Ctrl+Shift+L)"));
  chain_->setIcon(chainIcon(palette().color(QPalette::ButtonText), linked_));
  connect(chain_, &QToolButton::toggled, this, [this](bool on) { setLinked(on); });
  row->addWidget(chain_, 0, Qt::AlignTop);
  column->addLayout(row);
  body_ = new QWidget(this);
  body_->setObjectName(QStringLiteral("body"));
  column->addWidget(body_, 1);
  if (overlay_) {
    delete overlay_;
    overlay_ = nullptr;
    updateOverlay();
  }
}

QBoxLayout* ViewBase::controlsLayout() {
  makeFrame();
  return controls_;
}

QWidget* ViewBase::body() {
  makeFrame();
  return body_;
}

void ViewBase::setState(ViewState state, const QString& message, const QString& actionId, const QString& actionText,
                        const QString& detail) {
  const bool changed = state != state_;
  state_ = state;
  stateMessage_ = message;
  actionId_ = actionId;
  actionText_ = actionText;
  detail_ = detail;
  if (state == ViewState::Failed || state == ViewState::Cancelled) {
    if (actionId_.isEmpty()) actionId_ = QStringLiteral("view.retry");
    if (actionText_.isEmpty()) actionText_ = tr("Retry");
  } else if (state == ViewState::Stale) {
    if (actionId_.isEmpty()) actionId_ = QStringLiteral("view.recompute");
    if (actionText_.isEmpty()) actionText_ = tr("Recompute");
    if (stateMessage_.isEmpty()) stateMessage_ = tr("Out of date: the parameters changed after this was computed.");
  }
  if (state == ViewState::Cancelled && stateMessage_.isEmpty()) stateMessage_ = tr("Cancelled. Nothing was kept.");
  if (state == ViewState::Loading && changed) fraction_ = 0.0;
  updateOverlay();
  if (QAccessible::isActive()) {
    QAccessibleEvent event(this, QAccessible::DescriptionChanged);
    QAccessible::updateAccessibility(&event);
  }
  if (changed) Q_EMIT stateChanged(state_);
}

void ViewBase::updateOverlay() {
  if (!overlay_) {
    overlay_ = new ViewOverlay(body_ ? body_ : this);
    connect(overlay_, &ViewOverlay::actionClicked, this, [this] { Q_EMIT actionRequested(actionId_); });
    connect(overlay_, &ViewOverlay::cancelClicked, this, [this] { Q_EMIT cancelRequested(); });
  }
  overlay_->show({state_, title_, stateMessage_, actionText_, detail_, step_, fraction_});
}

void ViewBase::setProgress(double fraction, const QString& step) {
  fraction_ = fraction;
  step_ = step;
  if (state_ == ViewState::Loading) updateOverlay();
}

void ViewBase::setProvenance(const Provenance& provenance) { provenance_ = provenance; }

void ViewBase::setLinked(bool linked) {
  if (linked == linked_) return;
  linked_ = linked;
  if (chain_) {
    const QSignalBlocker quiet(chain_);
    chain_->setChecked(linked);
    chain_->setIcon(chainIcon(palette().color(QPalette::ButtonText), linked));
  }
  if (linked_) selectionChanged();
  Q_EMIT settingsChanged();
}

}  // namespace qs
