#pragma once

#include <QWidget>
#include <optional>
#include <vector>

#include "backend/evaluation/solve_bits.h"

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QPushButton;

namespace qs {

class JobRunner;

/// "Which value of this parameter gives so many bits?" for the setup it was given last.
class SolveRow : public QWidget {
  Q_OBJECT
 public:
  SolveRow(bool kv, JobRunner& jobs, QWidget* parent);

  /// @param setup  empty: nothing can be solved
  void setSetup(const std::optional<Setup>& setup, const std::vector<MethodInfo>& methods);
  void setShape(std::optional<BitsShape> shape);
  void focusTarget();

 Q_SIGNALS:
  void solved(const QString& key, const qs::ParamValue& value);

 private:
  void solve();
  void refresh();
  void showAnswer(const BitsSolution& solution);

  const bool kv_;
  JobRunner& jobs_;
  std::optional<Setup> setup_;
  std::optional<BitsShape> shape_;
  QDoubleSpinBox* target_;
  QComboBox* key_;
  QPushButton* run_;
  QLabel* answer_;
  quint64 generation_ = 0;
  bool answering_ = false;
};

}  // namespace qs
