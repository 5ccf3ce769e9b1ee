#pragma once

#include <QList>
#include <QPoint>
#include <QWidget>

class QSplitter;
class QTabWidget;

namespace qs {

class ViewBase;

/// The central grid: columns of panes, each pane a stack of tabs. Its own widget and not docks, which lose their
/// windows on some Wayland desktops.
class ViewArea : public QWidget {
  Q_OBJECT
 public:
  explicit ViewArea(QWidget* parent = nullptr);

  /// @param place  (column, row) of the pane; made when it is not there yet
  void addView(ViewBase* view, QPoint place);
  void addView(ViewBase* view);    ///< beside the active one
  QList<ViewBase*> views() const;  ///< in the order of their tabs, column by column
  ViewBase* activeView() const { return active_; }
  void activate(ViewBase* view);
  void activateNumber(int number);  ///< 0 is the first
  void activateNext(int step);
  void closeView(ViewBase* view);
  void clear();
  QPoint placeOf(const ViewBase* view) const;

  /// Moves the active view into a new pane beside or below its own; does nothing when it is alone there.
  bool split(Qt::Orientation orientation);
  void joinPanes();  ///< all views into one pane

 Q_SIGNALS:
  void activeViewChanged(qs::ViewBase* view);
  void arrangementChanged();  ///< tabs moved, panes split
  void closeRequested(qs::ViewBase* view);
  void newTabRequested(const QPoint& globalPosition);

 private:
  QTabWidget* makePane();
  QTabWidget* paneAt(QPoint place);
  QTabWidget* paneOf(const ViewBase* view) const;
  QList<QTabWidget*> panes() const;
  void dropEmptyPanes();
  void setActive(ViewBase* view);

  QSplitter* columns_;
  ViewBase* active_ = nullptr;
};

}  // namespace qs
