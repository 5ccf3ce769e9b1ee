#pragma once

#include <QObject>

namespace qs {

class MainWindow;

/// Milliseconds since the process was started, libraries included.
qint64 ms_since_process_start();

/// The first look at the bundled sample: fills the chat as soon as the views of the capture are there, and says when
/// every view is. Goes when it is done or another session comes. Never made for a session of the user's own.
class SampleStart : public QObject {
  Q_OBJECT
 public:
  explicit SampleStart(MainWindow& window);
  bool isActive() const { return !over_; }

 Q_SIGNALS:
  void filled(qint64 ms);  ///< since the start of the process

 private:
  void look();
  MainWindow& window_;
  bool sent_ = false, ran_ = false, over_ = false;
};

}  // namespace qs
