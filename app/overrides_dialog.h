#pragma once

#include <QDialog>
#include <vector>

#include "app/setup_editor.h"

class QDialogButtonBox;
class QLabel;
class QLineEdit;
class QTableView;

namespace qs {

class LayerSetupsModel;

/// The setup of one side of a plan, layer by layer: a table of all layers, and a form that changes the selected ones
/// together.
class OverridesDialog : public QDialog {
  Q_OBJECT
 public:
  /// @param line  to begin with: of one setup, or one that differs from layer to layer; empty is full precision
  OverridesDialog(PlanSide side, const QString& line, BitsShape shape, QWidget* parent);
  ~OverridesDialog() override;

  /// Neighbours with one setup in one range; a plain setup when all layers agree.
  QString line() const;

 protected:
  void keyPressEvent(QKeyEvent* event) override;

 private:
  void selectionChanged();
  void applyToSelected();
  void selectRange();
  void refresh();
  std::vector<int> selectedLayers() const;
  std::optional<Setup> assembled() const;  ///< empty for full precision in all layers

  const PlanSide side_;
  const BitsShape shape_;
  std::vector<QString> lines_;  ///< a layer
  std::vector<MethodInfo> methods_;
  LayerSetupsModel* model_;
  QTableView* table_;
  QLineEdit *range_, *assembled_;
  SetupEditor* editor_;
  QLabel *which_, *total_;
  QDialogButtonBox* buttons_;
  bool showing_ = false;
};

}  // namespace qs
