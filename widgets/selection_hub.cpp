#include "widgets/selection_hub.h"

namespace qs {

SelectionHub::SelectionHub(QObject* parent) : QObject(parent) {
  announce_.setSingleShot(true);
  announce_.setInterval(16);
  connect(&announce_, &QTimer::timeout, this, [this] { Q_EMIT changed(selection_); });
}

void SelectionHub::set(const Selection& selection) {
  if (selection == selection_) return;
  selection_ = selection;
  if (!announce_.isActive()) announce_.start();
}

}  // namespace qs
