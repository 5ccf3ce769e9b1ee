#include "app/actions.h"

#include <QAbstractSpinBox>
#include <QApplication>
#include <QComboBox>
#include <QKeyEvent>
#include <QLineEdit>
#include <QPlainTextEdit>
#include <QTextEdit>
#include <QWidget>

#include "app/settings.h"

namespace qs {
namespace {

bool takes_text(const QObject* object) {
  if (const auto* combo = qobject_cast<const QComboBox*>(object)) return combo->isEditable();
  return qobject_cast<const QLineEdit*>(object) || qobject_cast<const QTextEdit*>(object) ||
         qobject_cast<const QPlainTextEdit*>(object) || qobject_cast<const QAbstractSpinBox*>(object);
}

}  // namespace

ActionTable::ActionTable(QWidget* window) : QObject(window), window_(window) { qApp->installEventFilter(this); }

QAction* ActionTable::add(const ActionSpec& spec, std::function<void()> run) {
  QString text = spec.text;
  if (text.startsWith(QLatin1Char('-'))) text.remove(0, 1);
  auto* action = new QAction(text, window_);
  action->setObjectName(spec.id);
  action->setShortcuts(spec.shortcuts);
  action->setShortcutContext(Qt::WindowShortcut);
  action->setCheckable(spec.checkable);
  action->setMenuRole(spec.role);
  action->setProperty("tip", spec.tip);
  connect(action, &QAction::triggered, this, [run = std::move(run)] {
    if (run) run();
  });
  window_->addAction(action);
  specs_ << spec;
  actions_.insert(spec.id, action);
  refreshTip(action, spec.tip);
  return action;
}

QAction* ActionTable::action(const QString& id) const { return actions_.value(id); }

QString ActionTable::plainText(const QString& id) const {
  const QAction* found = action(id);
  return found ? found->text().remove(QLatin1Char('&')) : QString();
}

void ActionTable::setAvailable(const QString& id, bool available, const QString& why) {
  QAction* found = action(id);
  if (!found) return;
  found->setEnabled(available);
  refreshTip(found, available ? found->property("tip").toString() : why);
}

void ActionTable::refreshTip(QAction* action, const QString& tip) {
  const QString keys = action->shortcut().toString(QKeySequence::NativeText);
  const QString text = tip.isEmpty() ? action->text().remove(QLatin1Char('&')) : tip;
  action->setToolTip(keys.isEmpty() ? text : tr("%1 (%2)").arg(text, keys));
  action->setStatusTip(text);
  action->setWhatsThis(text);
}

QString ActionTable::conflict(const QKeySequence& key, const QString& exceptId) const {
  if (key.isEmpty()) return {};
  for (const ActionSpec& spec : specs_) {
    if (spec.id == exceptId) continue;
    const QList<QKeySequence> keys = actions_[spec.id]->shortcuts();
    for (const QKeySequence& taken : keys) {
      if (taken.matches(key) != QKeySequence::NoMatch || key.matches(taken) != QKeySequence::NoMatch) return spec.id;
    }
  }
  return {};
}

void ActionTable::setShortcuts(const QString& id, const QList<QKeySequence>& keys) {
  QAction* found = action(id);
  if (!found) return;
  found->setShortcuts(keys);
  refreshTip(found, found->property("tip").toString());
}

QList<QKeySequence> ActionTable::defaultShortcuts(const QString& id) const {
  for (const ActionSpec& spec : specs_) {
    if (spec.id == id) return spec.shortcuts;
  }
  return {};
}

void ActionTable::loadShortcuts() {
  const QVariantMap changed = app_settings().value(QStringLiteral("shortcuts")).toMap();
  for (auto it = changed.begin(); it != changed.end(); ++it) {
    QList<QKeySequence> keys;
    for (const QString& text : it.value().toStringList()) keys << QKeySequence(text, QKeySequence::PortableText);
    setShortcuts(it.key(), keys);
  }
}

void ActionTable::saveShortcuts() const {
  QVariantMap changed;
  for (const ActionSpec& spec : specs_) {
    const QList<QKeySequence> keys = actions_[spec.id]->shortcuts();
    if (keys == spec.shortcuts) continue;
    QStringList texts;
    for (const QKeySequence& key : keys) texts << key.toString(QKeySequence::PortableText);
    changed.insert(spec.id, texts);
  }
  app_settings().setValue(QStringLiteral("shortcuts"), changed);
}

bool ActionTable::eventFilter(QObject* watched, QEvent* event) {
  if (event->type() == QEvent::ShortcutOverride && takes_text(watched)) {
    const auto* key = static_cast<QKeyEvent*>(event);
    const bool plain = !(key->modifiers() & (Qt::ControlModifier | Qt::AltModifier | Qt::MetaModifier));
    if (plain && !key->text().isEmpty() && key->text().at(0).isPrint()) {
      event->accept();
      return true;
    }
  }
  return QObject::eventFilter(watched, event);
}

}  // namespace qs
