#pragma once

#include "app/presenters/tensor_presenter.h"
#include "widgets/views/locality_view.h"

namespace qs {

/// Recomputes attention from captured queries, keys and log-sum-exps. A: as captured; B: with the keys of the chosen
/// quantized variant.
class LocalityPresenter : public TensorPresenter {
  Q_OBJECT
 public:
  LocalityPresenter(Workbench& workbench, LocalityView& view);

 protected:
  void update() override;
  void forget() override;

 private:
  void askLocality();
  void askAttention();
  void askToken();
  std::pair<QString, QString> quantizedVariant() const;  ///< setup line and name; empty when there is none

  LocalityView& view_;
  QString locality_shown_, attention_shown_, token_shown_;
};

}  // namespace qs
