#pragma once

#include <QObject>
#include <QTimer>

#include "sessions/session_state.h"

namespace qs {

/// Holds the selection that all linked views share; any view may change it, all others follow. Changes within 16 ms are
/// announced once.
class SelectionHub : public QObject {
  Q_OBJECT
 public:
  explicit SelectionHub(QObject* parent = nullptr);
  const Selection& selection() const { return selection_; }
  void set(const Selection& selection);
  /// Changes some fields: hub.edit([&](Selection& s) { s.layer = 3; });
  template <typename Change>
  void edit(Change&& change) {
    Selection next = selection_;
    change(next);
    set(next);
  }

 Q_SIGNALS:
  void changed(const qs::Selection& selection);

 private:
  Selection selection_;
  QTimer announce_;
};

}  // namespace qs
