#pragma once

#include <QWidget>

#include "widgets/view_base.h"

class QLabel;
class QPushButton;
class QToolButton;

namespace qs {

/// Draws the state of a view over it, alike in every view: a sentence with its button when there is nothing to see or
/// it failed, a thin progress line while loading, an amber bar when out of date.
class ViewOverlay : public QWidget {
  Q_OBJECT
 public:
  explicit ViewOverlay(QWidget* over);

  struct Content {
    ViewState state = ViewState::Empty;
    QString title, message, actionText, detail, step;
    double fraction = 0.0;
  };
  void show(const Content& content);

 Q_SIGNALS:
  void actionClicked();
  void cancelClicked();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;
  void paintEvent(QPaintEvent* event) override;

 private:
  void place();

  Content content_;
  QLabel* message_;
  QPushButton* action_;
  QPushButton* copy_;
  QToolButton* cancel_;
};

}  // namespace qs
