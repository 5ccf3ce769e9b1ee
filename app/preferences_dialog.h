#pragma once

#include <QDialog>

#include "app/theme.h"

class QKeySequenceEdit;
class QLabel;
class QTableWidget;

namespace qs {

class ActionTable;

/// Theme and shortcuts. A key that another command has is not accepted, and that command is named.
class PreferencesDialog : public QDialog {
  Q_OBJECT
 public:
  PreferencesDialog(ActionTable& actions, QWidget* parent);
  void selectAction(const QString& id);
  /// Gives the chosen action this key. @return false when another one has it
  bool assign(const QKeySequence& key);
  QString notice() const;

 Q_SIGNALS:
  void themeChosen(qs::Theme theme);

 private:
  void fill(const QString& filter);
  QString current() const;

  ActionTable& actions_;
  QTableWidget* table_;
  QKeySequenceEdit* key_;
  QLabel* notice_;
};

}  // namespace qs
