#pragma once

#include <QHash>
#include <vector>

#include "app/presenters/tensor_presenter.h"
#include "widgets/views/error_heatmap.h"

namespace qs {

/// Applies the KV setups of the session's variants to the capture: the chosen layer first, then the overview, one
/// variant after another.
class ErrorPresenter : public TensorPresenter {
  Q_OBJECT
 public:
  ErrorPresenter(Workbench& workbench, ErrorHeatmap& view);

 protected:
  void update() override;
  void forget() override;

 private:
  struct Overview {
    analysis::VariantErrors errors;
    std::vector<std::vector<float>> key_heads, value_heads;  ///< [layer][kv head]
  };
  void askDetail(const QString& tensor);
  void askNextOverview();
  void showOverview();
  QString setupOf(const QString& variantId) const;  ///< KV setup line; empty: full precision
  QString labelOf(const QString& variantId) const;
  QString variantB() const;

  ErrorHeatmap& view_;
  QString detail_shown_, overview_of_, heads_shown_;
  QHash<QString, Overview> overview_;  ///< by setup line
  QSet<QString> failed_;               ///< setup lines that do not fit this capture
};

}  // namespace qs
