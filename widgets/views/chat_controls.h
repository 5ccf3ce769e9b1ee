#pragma once

#include <QWidget>

#include "backend/types/generation.h"

class QCheckBox;
class QDoubleSpinBox;
class QLineEdit;
class QSpinBox;
class QToolButton;

namespace qs {

/// Sampling options of the chat. Temperature 0 is greedy; the seed is shown and, unless locked, drawn anew for each
/// message.
class ChatControls : public QWidget {
  Q_OBJECT
 public:
  explicit ChatControls(QWidget* parent = nullptr);
  SamplingOptions options() const;
  void setOptions(const SamplingOptions& options);
  bool seedLocked() const;
  void setSeedLocked(bool locked);
  void drawSeed();  ///< a new seed, unless locked or greedy

 Q_SIGNALS:
  void changed();

 private:
  QDoubleSpinBox *temperature_, *top_p_, *min_p_, *penalty_;
  QSpinBox *top_k_, *max_tokens_;
  QLineEdit* seed_;
  QToolButton* lock_;
};

}  // namespace qs
