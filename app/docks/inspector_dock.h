#pragma once

#include <QDockWidget>
#include <QTimer>

#include "backend/types/method_info.h"

class QComboBox;
class QLabel;
class QLineEdit;
class QSpinBox;

namespace qs {

class ParamForm;
class PlainTableModel;
class Workbench;

/// What is chosen, its statistics under A and B, the self-check of what was just quantized, and the parameters of
/// variant B.
class InspectorDock : public QDockWidget {
  Q_OBJECT
 public:
  explicit InspectorDock(Workbench& workbench, QWidget* parent = nullptr);
  void editVariant(const QString& variantId);
  QString variant() const { return variant_; }
  PlainTableModel& statistics() { return *statistics_; }

 private:
  void showSelection();
  void requestStatistics();
  void showVariant();
  void applyForm();
  void applyMethod(int index);

  Workbench& workbench_;
  QSpinBox *layer_, *head_;
  QComboBox* tensor_;
  QLabel *where_, *note_;
  PlainTableModel* statistics_;
  QLineEdit* name_;
  QComboBox* method_;
  ParamForm* form_;
  QString variant_;
  std::vector<MethodInfo> methods_;
  QTimer delay_;
  quint64 request_ = 0, job_ = 0;
  bool showing_ = false;
};

}  // namespace qs
