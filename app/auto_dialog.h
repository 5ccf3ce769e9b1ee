#pragma once

#include <QDialog>
#include <memory>
#include <optional>

#include "backend/evaluation/kv_auto.h"
#include "sessions/session_state.h"

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;
class QListWidget;
class QProgressBar;
class QPushButton;
class QSpinBox;
class QTableView;

namespace qs {

class SensitivityModel;
class Workbench;

/// Chooses a KV setup for each layer within a budget of memory: candidates in, sensitivities and an ordinary per-layer
/// plan out. What was measured is remembered, so that a search that was cancelled goes on.
class AutoDialog : public QDialog {
  Q_OBJECT
 public:
  AutoDialog(Workbench& workbench, const QString& modelId, QWidget* parent);
  ~AutoDialog() override;

  const std::optional<KvAutoResult>& result() const { return result_; }
  std::optional<VariantEntry> plan() const;  ///< what "Add as plan" adds; empty before a result

  void done(int code) override;  ///< cancels a search that is running

 protected:
  void keyPressEvent(QKeyEvent* event) override;

 private:
  QWidget* buildQuestion();
  QWidget* buildAnswer();
  void loadSpec();
  void fillCandidates();
  void addCandidate();
  void addCandidateItem(const QString& line, bool ticked);
  std::vector<Setup> candidates() const;
  double budgetBits() const;
  void refresh();
  void start();
  void showResult(const KvAutoResult& result);

  Workbench& workbench_;
  std::optional<ArchitectureSpec> spec_;
  std::optional<KvAutoResult> result_;
  quint64 job_ = 0;
  QComboBox *model_, *unit_, *text_, *calibration_;
  QDoubleSpinBox* budget_;
  QSpinBox *tokens_, *window_, *windows_;
  QListWidget* candidates_;
  QLineEdit* candidate_;
  QPushButton *run_, *cancel_, *add_;
  QProgressBar* progress_;
  QLabel *budget_text_, *problem_, *summary_;
  QTableView* table_;
  SensitivityModel* sensitivity_;
};

}  // namespace qs
