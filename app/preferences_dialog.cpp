#include "app/preferences_dialog.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QFormLayout>
#include <QHeaderView>
#include <QKeySequenceEdit>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QTableWidget>
#include <QVBoxLayout>

#include "app/actions.h"

namespace qs {

PreferencesDialog::PreferencesDialog(ActionTable& actions, QWidget* parent) : QDialog(parent), actions_(actions) {
  setObjectName(QStringLiteral("preferences"));
  setWindowTitle(tr("Preferences"));
  resize(640, 560);
  auto* column = new QVBoxLayout(this);
  auto* form = new QFormLayout;
  auto* theme = new QComboBox(this);
  theme->setObjectName(QStringLiteral("theme"));
  theme->setAccessibleName(tr("Theme"));
  theme->addItem(tr("Follow system"), int(Theme::System));
  theme->addItem(tr("Light"), int(Theme::Light));
  theme->addItem(tr("Dark"), int(Theme::Dark));
  theme->addItem(tr("High contrast"), int(Theme::HighContrast));
  theme->setCurrentIndex(theme->findData(int(current_theme())));
  connect(theme, &QComboBox::activated, this,
          [this, theme] { Q_EMIT themeChosen(Theme(theme->currentData().toInt())); });
  form->addRow(tr("&Theme"), theme);
  auto* filter = new QLineEdit(this);
  filter->setObjectName(QStringLiteral("filter"));
  filter->setAccessibleName(tr("Find a command"));
  filter->setPlaceholderText(tr("Find a command"));
  filter->setClearButtonEnabled(true);
  connect(filter, &QLineEdit::textChanged, this, &PreferencesDialog::fill);
  form->addRow(tr("&Shortcuts"), filter);
  column->addLayout(form);
  table_ = new QTableWidget(0, 3, this);
  table_->setObjectName(QStringLiteral("shortcuts"));
  table_->setAccessibleName(tr("Commands and their keys"));
  table_->setHorizontalHeaderLabels({tr("Menu"), tr("Command"), tr("Keys")});
  table_->horizontalHeader()->setStretchLastSection(true);
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setSelectionMode(QAbstractItemView::SingleSelection);
  table_->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table_->verticalHeader()->hide();
  table_->setTabKeyNavigation(false);
  column->addWidget(table_, 1);
  auto* row = new QHBoxLayout;
  key_ = new QKeySequenceEdit(this);
  key_->setObjectName(QStringLiteral("key"));
  key_->setAccessibleName(tr("New key of the chosen command"));
  key_->setToolTip(key_->accessibleName());
  if (auto* edit = key_->findChild<QLineEdit*>()) edit->setAccessibleName(key_->accessibleName());
  row->addWidget(key_, 1);
  const auto button = [&](const char* name, const QString& text, const QString& tip, auto run) {
    auto* result = new QPushButton(text, this);
    result->setObjectName(QLatin1String(name));
    result->setToolTip(tip);
    result->setAutoDefault(false);
    row->addWidget(result);
    connect(result, &QPushButton::clicked, this, run);
  };
  button("assign", tr("&Assign"), tr("Give the chosen command this key"), [this] { assign(key_->keySequence()); });
  button("clear", tr("&No key"), tr("The chosen command has no key"), [this] { assign({}); });
  button("default", tr("&Default"), tr("The key the program came with"), [this] {
    actions_.setShortcuts(current(), actions_.defaultShortcuts(current()));
    actions_.saveShortcuts();
    fill({});
  });
  column->addLayout(row);
  notice_ = new QLabel(this);
  notice_->setObjectName(QStringLiteral("notice"));
  notice_->setWordWrap(true);
  column->addWidget(notice_);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  column->addWidget(buttons);
  connect(table_, &QTableWidget::currentCellChanged, this, [this] {
    const QAction* action = actions_.action(current());
    if (action) key_->setKeySequence(action->shortcut());
  });
  fill({});
}

void PreferencesDialog::fill(const QString& filter) {
  const QString chosen = current();
  table_->setRowCount(0);
  for (const ActionSpec& spec : actions_.specs()) {
    const QString text = actions_.plainText(spec.id);
    QStringList keys;
    for (const QKeySequence& key : actions_.action(spec.id)->shortcuts())
      keys << key.toString(QKeySequence::NativeText);
    const QString keys_text = keys.join(QStringLiteral(", "));
    if (!filter.isEmpty() && !text.contains(filter, Qt::CaseInsensitive) &&
        !keys_text.contains(filter, Qt::CaseInsensitive))
      continue;
    const int row = table_->rowCount();
    table_->insertRow(row);
    auto* first = new QTableWidgetItem(spec.menu);
    first->setData(Qt::UserRole, spec.id);
    table_->setItem(row, 0, first);
    table_->setItem(row, 1, new QTableWidgetItem(text));
    table_->setItem(row, 2, new QTableWidgetItem(keys_text));
    if (spec.id == chosen) table_->setCurrentCell(row, 1);
  }
  table_->resizeColumnsToContents();
}

QString PreferencesDialog::current() const {
  const QTableWidgetItem* item = table_->currentRow() >= 0 ? table_->item(table_->currentRow(), 0) : nullptr;
  return item ? item->data(Qt::UserRole).toString() : QString();
}

void PreferencesDialog::selectAction(const QString& id) {
  for (int row = 0; row < table_->rowCount(); ++row) {
    if (table_->item(row, 0)->data(Qt::UserRole).toString() == id) table_->setCurrentCell(row, 1);
  }
}

bool PreferencesDialog::assign(const QKeySequence& key) {
  const QString id = current();
  if (id.isEmpty()) {
    notice_->setText(tr("Choose a command first."));
    return false;
  }
  const QString taken = actions_.conflict(key, id);
  if (!taken.isEmpty()) {
    notice_->setText(tr("%1 already belongs to “%2”. Choose another key, or free that one first.")
                         .arg(key.toString(QKeySequence::NativeText), actions_.plainText(taken)));
    return false;
  }
  actions_.setShortcuts(id, key.isEmpty() ? QList<QKeySequence>() : QList<QKeySequence>{key});
  actions_.saveShortcuts();
  notice_->setText(key.isEmpty()
                       ? tr("“%1” has no key now.").arg(actions_.plainText(id))
                       : tr("“%1” is now on %2.").arg(actions_.plainText(id), key.toString(QKeySequence::NativeText)));
  fill({});
  return true;
}

QString PreferencesDialog::notice() const { return notice_->text(); }

}  // namespace qs
