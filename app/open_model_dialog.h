#pragma once

#include <QDialog>

class QDialogButtonBox;
class QLineEdit;
class QTimer;
class QTreeWidget;

namespace qs {

class ModelCard;
class Workbench;

/// Chooses a model: from the hub cache of this machine, the models opened before, the bundled ones, or any path; shows
/// what it is, whether it can be opened, and what it will cost, before anything is loaded.
class OpenModelDialog : public QDialog {
  Q_OBJECT
 public:
  explicit OpenModelDialog(Workbench& workbench, QWidget* parent = nullptr);

  QString path() const;   ///< of the model that was chosen
  QString dtype() const;  ///< compute type
  void setPath(const QString& path);

 private:
  void fillList();
  void inspect();
  void forecast();
  void browse(bool folder);
  void refreshButtons();

  Workbench& workbench_;
  QTreeWidget* list_;
  QLineEdit* path_;
  ModelCard* card_;
  QDialogButtonBox* buttons_;
  QTimer* typing_;
  quint64 generation_ = 0, forecast_generation_ = 0;
};

}  // namespace qs
