#pragma once

#include <QHash>
#include <QObject>
#include <QSet>
#include <QTimer>
#include <memory>
#include <optional>

#include "app/workbench.h"
#include "widgets/views/heatmap_view.h"

namespace qs {

/// What the presenters of the tensor views share: they follow the view's selection and the captures, run jobs on the
/// interactive lane, and drop answers to questions that nobody asks any more.
class TensorPresenter : public QObject {
  Q_OBJECT
 public:
  TensorPresenter(Workbench& workbench, HeatmapView& view, QObject* parent);
  void refresh();  ///< soon; several calls in one turn of the event loop are one

 protected:
  virtual void update() = 0;  ///< compare the selection with what is shown and ask for what is missing
  virtual void forget() = 0;  ///< another session or capture: nothing that is known holds

  Workbench& workbench() { return workbench_; }
  /// Capture A of the selection, else the first one of the session; B empty when it is not chosen, the same, or not
  /// there yet.
  QString captureA() const;
  QString captureB() const;
  /// Shows the empty state. @return whether there is a capture
  bool requireCapture();
  /// Session, capture and variant of what is shown, with the command that makes the same.
  void describe(const CaptureInfo& info, const QString& variant, const QString& command);

  /// Runs `make` off the GUI thread. A newer request of the same `slot` makes this one's answer void and stops its job.
  /// Without `quiet` the view says that it loads, and shows a failure.
  template <typename Make, typename Apply>
  void ask(const QString& slot, const QString& title, bool quiet, Make make, Apply apply) {
    const quint64 generation = begin(slot, title, quiet);
    const quint64 job = workbench_.jobs().compute(
        title, view_.viewId(), JobLane::Interactive, std::move(make), this,
        [this, slot, generation, apply = std::move(apply)](auto&& value) {
          if (!isCurrent(slot, generation)) return;
          finish(slot);
          apply(std::move(value));
        },
        [this, slot, generation, quiet](const JobStatus& status) {
          if (isCurrent(slot, generation)) ended(slot, status, quiet);
        });
    running_[slot] = job;
  }
  void drop(const QString& slot);  ///< stops the job of `slot`, if any
  bool isAsking(const QString& slot) const { return running_.contains(slot); }

 private:
  quint64 begin(const QString& slot, const QString& title, bool quiet);
  bool isCurrent(const QString& slot, quint64 generation) const { return generation_.value(slot) == generation; }
  void finish(const QString& slot);
  void ended(const QString& slot, const JobStatus& status, bool quiet);
  void cancelAll();

  Workbench& workbench_;
  HeatmapView& view_;
  QHash<QString, quint64> generation_, running_;
  QSet<QString> loud_;
  bool shown_ = false;
  QTimer soon_;
};

/// Words that a capture's tokens are shown as.
QStringList token_texts(CaptureReader& capture);

}  // namespace qs
