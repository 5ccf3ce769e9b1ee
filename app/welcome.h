#pragma once

#include <QWidget>

namespace qs {

/// What a new session shows: three ways to begin, and the four steps from a model to a comparison.
class WelcomePage : public QWidget {
  Q_OBJECT
 public:
  explicit WelcomePage(QWidget* parent = nullptr);
  /// Which of the four steps are done: model, capture, and two quantizers.
  void setProgress(bool model, bool capture, bool quantizers);

 Q_SIGNALS:
  void actionRequested(const QString& actionId);

 private:
  QList<QWidget*> steps_;
};

}  // namespace qs
