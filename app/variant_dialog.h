#pragma once

#include <QDialog>
#include <optional>

#include "app/setup_editor.h"
#include "sessions/session_state.h"

class QComboBox;
class QDialogButtonBox;
class QLabel;
class QLineEdit;
class QListWidget;
class QSpinBox;
class QTabWidget;

namespace qs {

class Workbench;

/// A plan: a model with a KV setup, a weight setup or both. The forms come from what the methods declare.
class VariantDialog : public QDialog {
  Q_OBJECT
 public:
  /// A new plan.
  VariantDialog(Workbench& workbench, const QString& modelId, QWidget* parent);
  /// Changes a plan of the session.
  VariantDialog(Workbench& workbench, const VariantEntry& entry, QWidget* parent);

  VariantEntry entry() const;
  SetupEditor& editor(PlanSide side) { return side == PlanSide::Kv ? *kv_ : *weights_; }
  void focusSolve();  ///< the target of "solve for bits" of the side that has a method

 private:
  void build();
  void loadShape();
  void loadPublished();
  void refresh();
  void editLayers(SetupEditor& editor);
  QString calibrationSummary() const;

  Workbench& workbench_;
  VariantEntry entry_;  ///< as it came; without an id for a new plan
  QComboBox *model_, *calibration_;
  QLineEdit* name_;
  QSpinBox* tokens_;
  QTabWidget* sides_;
  SetupEditor *kv_, *weights_;
  QLabel *calibration_label_, *calibration_note_, *problem_;
  QDialogButtonBox* buttons_;
  std::optional<ArchitectureSpec> spec_;
  quint64 generation_ = 0;
};

/// Which variants, tasks, text and windows an evaluation runs.
class EvaluateDialog : public QDialog {
  Q_OBJECT
 public:
  EvaluateDialog(const Workbench& workbench, const QStringList& ticked, QWidget* parent);
  QStringList variantIds() const;
  QStringList tasks() const;
  QString text() const;  ///< stored path; empty: the default of each model
  int window() const;    ///< 0: the default
  int windows() const;   ///< 0: all

 private:
  QListWidget *variants_, *tasks_;
  QComboBox* text_;
  QSpinBox *window_, *windows_;
};

/// Fills a list with the texts that come with the program and those of the session's captures; the last entry lets the
/// user choose a file. Item data are stored paths.
void fill_text_list(QComboBox& list, const Workbench& workbench, const QString& automatic, const QString& chosen);

}  // namespace qs
