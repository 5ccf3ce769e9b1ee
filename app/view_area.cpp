#include "app/view_area.h"

#include <QApplication>
#include <QSplitter>
#include <QTabBar>
#include <QTabWidget>
#include <QToolButton>
#include <QVBoxLayout>

#include "widgets/view_base.h"

namespace qs {
namespace {

/// Tabs are short: "Error"; the full title is the tool tip.
QString tab_title(const ViewBase& view) {
  const QString title = view.property("tabTitle").toString();
  return title.isEmpty() ? view.title() : title;
}

}  // namespace

ViewArea::ViewArea(QWidget* parent) : QWidget(parent), columns_(new QSplitter(Qt::Horizontal, this)) {
  setObjectName(QStringLiteral("viewArea"));
  columns_->setObjectName(QStringLiteral("columns"));
  columns_->setChildrenCollapsible(false);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(columns_);
  connect(qApp, &QApplication::focusChanged, this, [this](QWidget*, QWidget* now) {
    for (QWidget* widget = now; widget && widget != this; widget = widget->parentWidget()) {
      if (auto* view = qobject_cast<ViewBase*>(widget); view && isAncestorOf(view)) {
        setActive(view);
        return;
      }
    }
  });
}

QTabWidget* ViewArea::makePane() {
  auto* pane = new QTabWidget;
  pane->setDocumentMode(true);
  pane->setMovable(true);
  pane->setTabsClosable(true);
  pane->setElideMode(Qt::ElideNone);
  pane->setUsesScrollButtons(true);
  pane->tabBar()->setObjectName(QStringLiteral("tabs"));
  pane->tabBar()->setAccessibleName(tr("Views of this pane"));
  pane->setAccessibleName(tr("Pane"));
  auto* plus = new QToolButton(pane);
  plus->setObjectName(QStringLiteral("newView"));
  plus->setText(QStringLiteral("+"));
  plus->setAutoRaise(true);
  plus->setAccessibleName(tr("Open another view"));
  plus->setToolTip(tr("Open another view in this pane"));
  pane->setCornerWidget(plus, Qt::TopRightCorner);
  connect(plus, &QToolButton::clicked, this, [this, plus, pane] {
    if (auto* view = qobject_cast<ViewBase*>(pane->currentWidget())) setActive(view);
    Q_EMIT newTabRequested(plus->mapToGlobal(QPoint(0, plus->height())));
  });
  connect(pane, &QTabWidget::currentChanged, this, [this, pane](int) {
    if (auto* view = qobject_cast<ViewBase*>(pane->currentWidget())) setActive(view);
  });
  connect(pane, &QTabWidget::tabBarClicked, this, [this, pane](int index) {
    if (auto* view = qobject_cast<ViewBase*>(pane->widget(index))) setActive(view);
  });
  connect(pane, &QTabWidget::tabCloseRequested, this, [this, pane](int index) {
    if (auto* view = qobject_cast<ViewBase*>(pane->widget(index))) Q_EMIT closeRequested(view);
  });
  connect(pane->tabBar(), &QTabBar::tabMoved, this, &ViewArea::arrangementChanged);
  return pane;
}

QList<QTabWidget*> ViewArea::panes() const {
  QList<QTabWidget*> result;
  for (int c = 0; c < columns_->count(); ++c) {
    const auto* column = static_cast<QSplitter*>(columns_->widget(c));
    for (int r = 0; r < column->count(); ++r) result << static_cast<QTabWidget*>(column->widget(r));
  }
  return result;
}

QTabWidget* ViewArea::paneAt(QPoint place) {
  while (columns_->count() <= place.x() || columns_->count() == 0) {
    auto* column = new QSplitter(Qt::Vertical);
    column->setChildrenCollapsible(false);
    columns_->addWidget(column);
    columns_->setSizes(QList<int>(columns_->count(), 1000));
    if (columns_->count() > 64) break;
  }
  auto* column = static_cast<QSplitter*>(columns_->widget(std::clamp(place.x(), 0, columns_->count() - 1)));
  while (column->count() <= place.y() && column->count() < 64) {
    column->addWidget(makePane());
    column->setSizes(QList<int>(column->count(), 1000));
  }
  return static_cast<QTabWidget*>(column->widget(std::clamp(place.y(), 0, column->count() - 1)));
}

QTabWidget* ViewArea::paneOf(const ViewBase* view) const {
  for (QTabWidget* pane : panes()) {
    if (pane->indexOf(const_cast<ViewBase*>(view)) >= 0) return pane;
  }
  return nullptr;
}

QPoint ViewArea::placeOf(const ViewBase* view) const {
  for (int c = 0; c < columns_->count(); ++c) {
    const auto* column = static_cast<QSplitter*>(columns_->widget(c));
    for (int r = 0; r < column->count(); ++r) {
      if (static_cast<QTabWidget*>(column->widget(r))->indexOf(const_cast<ViewBase*>(view)) >= 0) return {c, r};
    }
  }
  return {0, 0};
}

void ViewArea::addView(ViewBase* view, QPoint place) {
  QTabWidget* pane = paneAt({std::clamp(place.x(), 0, 15), std::clamp(place.y(), 0, 15)});
  const int index = pane->addTab(view, tab_title(*view));
  pane->setTabToolTip(index, view->title());
  if (!active_) setActive(view);
}

void ViewArea::addView(ViewBase* view) {
  addView(view, active_ ? placeOf(active_) : QPoint(0, 0));
  activate(view);
  Q_EMIT arrangementChanged();
}

QList<ViewBase*> ViewArea::views() const {
  QList<ViewBase*> result;
  for (const QTabWidget* pane : panes()) {
    for (int i = 0; i < pane->count(); ++i) {
      if (auto* view = qobject_cast<ViewBase*>(pane->widget(i))) result << view;
    }
  }
  return result;
}

void ViewArea::activate(ViewBase* view) {
  QTabWidget* pane = paneOf(view);
  if (!pane) return;
  pane->setCurrentWidget(view);
  setActive(view);
  if (!view->isAncestorOf(QApplication::focusWidget())) view->setFocus(Qt::OtherFocusReason);
}

void ViewArea::activateNumber(int number) {
  const QList<ViewBase*> all = views();
  if (number >= 0 && number < all.size()) activate(all[number]);
}

void ViewArea::activateNext(int step) {
  const QList<ViewBase*> all = views();
  if (all.isEmpty()) return;
  const qsizetype at = std::max<qsizetype>(0, all.indexOf(active_));
  activate(all[(at + step + all.size()) % all.size()]);
}

void ViewArea::setActive(ViewBase* view) {
  if (view == active_) return;
  active_ = view;
  Q_EMIT activeViewChanged(view);
}

void ViewArea::closeView(ViewBase* view) {
  QTabWidget* pane = paneOf(view);
  if (!pane) return;
  const QSignalBlocker quiet(pane);
  pane->removeTab(pane->indexOf(view));
  if (active_ == view) active_ = nullptr;
  delete view;
  dropEmptyPanes();
  const QList<ViewBase*> rest = views();
  ViewBase* next = pane->parentWidget() && pane->count() ? qobject_cast<ViewBase*>(pane->currentWidget()) : nullptr;
  if (!active_) setActive(next ? next : rest.isEmpty() ? nullptr : rest.first());
  if (rest.isEmpty()) Q_EMIT activeViewChanged(nullptr);
  Q_EMIT arrangementChanged();
}

void ViewArea::clear() {
  active_ = nullptr;
  while (columns_->count() > 0) delete columns_->widget(0);
}

void ViewArea::dropEmptyPanes() {
  for (QTabWidget* pane : panes()) {
    if (pane->count() > 0) continue;
    pane->setParent(nullptr);
    pane->deleteLater();
  }
  for (int c = columns_->count() - 1; c >= 0; --c) {
    auto* column = static_cast<QSplitter*>(columns_->widget(c));
    if (column->count() > 0) continue;
    column->setParent(nullptr);
    column->deleteLater();
  }
}

bool ViewArea::split(Qt::Orientation orientation) {
  ViewBase* view = active_;
  QTabWidget* pane = view ? paneOf(view) : nullptr;
  if (!pane || pane->count() < 2) return false;
  const QPoint place = placeOf(view);
  QTabWidget* fresh = makePane();
  if (orientation == Qt::Vertical) {
    auto* column = static_cast<QSplitter*>(columns_->widget(place.x()));
    column->insertWidget(place.y() + 1, fresh);
    column->setSizes(QList<int>(column->count(), 1000));
  } else {
    auto* column = new QSplitter(Qt::Vertical);
    column->setChildrenCollapsible(false);
    column->addWidget(fresh);
    columns_->insertWidget(place.x() + 1, column);
    columns_->setSizes(QList<int>(columns_->count(), 1000));
  }
  pane->removeTab(pane->indexOf(view));
  fresh->addTab(view, tab_title(*view));
  activate(view);
  Q_EMIT arrangementChanged();
  return true;
}

void ViewArea::joinPanes() {
  const QList<ViewBase*> all = views();
  if (all.isEmpty()) return;
  ViewBase* active = active_;
  QTabWidget* first = panes().first();
  for (ViewBase* view : all) {
    QTabWidget* pane = paneOf(view);
    if (pane == first) continue;
    pane->removeTab(pane->indexOf(view));
    first->addTab(view, tab_title(*view));
  }
  dropEmptyPanes();
  if (active) activate(active);
  Q_EMIT arrangementChanged();
}

}  // namespace qs
