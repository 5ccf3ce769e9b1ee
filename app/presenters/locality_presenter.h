#pragma once

#include "app/presenters/tensor_presenter.h"
#include "widgets/views/locality_view.h"

namespace qs {

/// What the exact attention of one head is recomputed from: that head only. Either may be null.
struct HeadInputs {
  std::shared_ptr<const analysis::AttentionInput> a, b;
};

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
  void askTile(const QRect& cells);
  /// A copy of the compared variant that keeps so many newest tokens becomes B; undoable.
  void applyWindow(qint64 tokens);
  std::pair<QString, QString> quantizedVariant() const;  ///< setup line and name; empty when there is none

  LocalityView& view_;
  QString locality_shown_, attention_shown_, token_shown_, tile_shown_;
  HeadInputs head_;  ///< of the map that is shown
};

}  // namespace qs
