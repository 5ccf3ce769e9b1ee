#pragma once

#include <QDialog>

#include "backend/types/method_info.h"
#include "sessions/session_state.h"

class QComboBox;
class QDialogButtonBox;
class QLabel;
class QLineEdit;
class QListWidget;
class QSpinBox;

namespace qs {

class ParamForm;
class Workbench;

/// A new plan: model, method and parameters. The forms come from what the methods declare.
class VariantDialog : public QDialog {
  Q_OBJECT
 public:
  VariantDialog(Workbench& workbench, const QString& modelId, QWidget* parent);
  VariantEntry entry() const;

 private:
  void showMethod();
  void refresh();
  QComboBox *model_, *method_;
  QLineEdit* name_;
  ParamForm* form_;
  QLabel* summary_;
  QDialogButtonBox* buttons_;
  std::vector<MethodInfo> methods_;
};

/// Which variants, tasks and windows an evaluation runs.
class EvaluateDialog : public QDialog {
  Q_OBJECT
 public:
  EvaluateDialog(const SessionState& session, const QStringList& ticked, QWidget* parent);
  QStringList variantIds() const;
  QStringList tasks() const;
  int window() const;   ///< 0: the default
  int windows() const;  ///< 0: all

 private:
  QListWidget *variants_, *tasks_;
  QSpinBox *window_, *windows_;
};

}  // namespace qs
