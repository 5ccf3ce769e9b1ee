#pragma once

#include "app/presenters/tensor_presenter.h"
#include "widgets/views/outlier_view.h"

namespace qs {

/// Reads channel statistics and the token detail of the chosen tensor of captures A and B.
class OutlierPresenter : public TensorPresenter {
  Q_OBJECT
 public:
  OutlierPresenter(Workbench& workbench, OutlierView& view);

 protected:
  void update() override;
  void forget() override;

 private:
  void askChannels();
  void askDetail();
  void askQuantizer();               ///< what the method of variant B does to the shown tensor
  void askTile(const QRect& cells);  ///< exact cells of a plane that is too large to read whole

  OutlierView& view_;
  QString channels_shown_, detail_shown_, quantizer_shown_, tile_shown_;
};

}  // namespace qs
