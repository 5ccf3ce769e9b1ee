#pragma once

#include <QDialog>
#include <QString>

class QDialogButtonBox;
class QLabel;
class QSpinBox;

namespace qs {

class ParamForm;

/// Which layer of a layer-by-layer run is quantized again, and with which settings of its method.
class RetryLayerDialog : public QDialog {
  Q_OBJECT
 public:
  /// @param setup   line of the run
  /// @param layers  of the model
  RetryLayerDialog(const QString& variant, const QString& setup, int layer, int layers, QWidget* parent);
  int layer() const;
  QString setup() const;  ///< with the changed settings

 private:
  void refresh();
  QSpinBox* layer_;
  ParamForm* form_;
  QLabel* note_;
  QDialogButtonBox* buttons_;
  QString before_;
};

}  // namespace qs
