#pragma once

#include <QHash>
#include <QSet>
#include <memory>

#include "app/presenters/tensor_presenter.h"
#include "widgets/views/weights_view.h"

namespace qs {

/// Builds the weight variants of the chosen model, one after another, compares every linear with the original, and
/// follows layer-by-layer runs.
class WeightsPresenter : public TensorPresenter {
  Q_OBJECT
 public:
  WeightsPresenter(Workbench& workbench, WeightsView& view);

 protected:
  void update() override;
  void forget() override;

 private:
  struct Known {
    std::shared_ptr<const analysis::WeightOverview> overview;
    QString why;              ///< why there is none
    bool asks_first = false;  ///< large: only when the user says so
    bool failed = false;
  };
  QString modelId() const;
  QString calibrationCapture(const QString& modelId) const;  ///< a readable one of the model; may be empty
  QList<VariantEntry> candidates() const;                    ///< with quantized weights, of the model
  QString keyOf(const VariantEntry& entry) const;
  void buildNext();
  void build(const VariantEntry& entry, bool asked);
  void start(const QString& variantId);
  void retryLayer(const QString& variantId, int layer);
  void measure(const QString& variantId, bool accumulated, int windows);
  void showVariants();
  void showState();
  void showRun();
  void askLinear();
  void describeShown(const VariantEntry& entry);

  WeightsView& view_;
  QHash<QString, Known> known_;
  QHash<QString, QString> measured_;  ///< weight setup of each variant whose errors over depth are shown
  QString building_, retried_, linear_shown_;
  quint64 build_job_ = 0, build_generation_ = 0, retry_job_ = 0, measure_job_ = 0;
};

}  // namespace qs
