#pragma once

#include <QDialog>
#include <QStringList>

class QCheckBox;
class QComboBox;
class QDialogButtonBox;
class QLabel;
class QLineEdit;
class QSpinBox;

namespace qs {

class Workbench;

/// Model, text, number of tokens and taps of a capture, with its size forecast before anything runs.
class CaptureDialog : public QDialog {
  Q_OBJECT
 public:
  CaptureDialog(Workbench& workbench, const QString& modelId, QWidget* parent);
  void setWeights(bool on);
  void focusTaps();

  QString modelId() const;
  QString textPath() const;
  QString filePath() const;
  int tokens() const;
  QStringList taps() const;
  bool weights() const;

 private:
  void refresh();
  QString idOrFallback() const;
  Workbench& workbench_;
  QComboBox* model_;
  QLineEdit *text_, *file_;
  QSpinBox* tokens_;
  QList<QCheckBox*> taps_;
  QCheckBox* weights_;
  QLabel* forecast_;
  QDialogButtonBox* buttons_;
  quint64 request_ = 0;
};

}  // namespace qs
