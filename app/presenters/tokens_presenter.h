#pragma once

#include <QObject>

#include "app/workbench.h"
#include "widgets/views/tokens_view.h"

namespace qs {

/// Runs the tokenizer of the chosen model over the text of the inspector. Only the tokenizer is read, not the weights.
class TokensPresenter : public QObject {
  Q_OBJECT
 public:
  TokensPresenter(Workbench& workbench, TokensView& view);

 private:
  void showModels();
  void tokenize();

  Workbench& workbench_;
  TokensView& view_;
  TokensView::Request shown_;
  quint64 generation_ = 0;
};

}  // namespace qs
