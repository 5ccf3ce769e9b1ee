#pragma once

#include <QAction>
#include <QHash>
#include <QKeySequence>
#include <QList>
#include <QObject>
#include <QString>
#include <functional>

class QWidget;

namespace qs {

/// One command as the table declares it. Menus, palette, shortcut editor, keyboard map, accessibility and tests read
/// the same table, so a command cannot be in one and missing in another.
struct ActionSpec {
  QString id;    ///< "file.open": stable, in settings and views
  QString menu;  ///< "File", "View/Theme"; a leading "-" of the text asks for a separator before it
  QString text;  ///< with mnemonic
  QString tip;
  QList<QKeySequence> shortcuts;
  bool checkable = false;
  QAction::MenuRole role = QAction::NoRole;
};

class ActionTable : public QObject {
  Q_OBJECT
 public:
  explicit ActionTable(QWidget* window);

  QAction* add(const ActionSpec& spec, std::function<void()> run);
  QAction* action(const QString& id) const;  ///< null when there is none
  const QList<ActionSpec>& specs() const { return specs_; }
  QString plainText(const QString& id) const;  ///< without mnemonics

  /// A disabled action says why in its tool tip.
  void setAvailable(const QString& id, bool available, const QString& why = {});

  /// The action that already has this key; empty when none has.
  QString conflict(const QKeySequence& key, const QString& exceptId) const;
  void setShortcuts(const QString& id, const QList<QKeySequence>& keys);
  QList<QKeySequence> defaultShortcuts(const QString& id) const;
  void loadShortcuts();  ///< from the settings
  void saveShortcuts() const;

 protected:
  /// Keys without Ctrl, Alt or Meta belong to a text edit while it has the focus.
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void refreshTip(QAction* action, const QString& tip);

  QWidget* window_;
  QList<ActionSpec> specs_;
  QHash<QString, QAction*> actions_;
};

}  // namespace qs
