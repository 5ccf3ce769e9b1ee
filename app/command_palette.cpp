#include "app/command_palette.h"

#include <QApplication>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>

#include "app/actions.h"

namespace qs {

CommandPalette::CommandPalette(ActionTable& actions, QWidget* parent)
    : QDialog(parent, Qt::Dialog | Qt::FramelessWindowHint),
      actions_(actions),
      edit_(new QLineEdit(this)),
      list_(new QListWidget(this)) {
  setObjectName(QStringLiteral("commandPalette"));
  setWindowTitle(tr("Command palette"));
  setAccessibleName(tr("Command palette"));
  setModal(true);
  edit_->setObjectName(QStringLiteral("paletteEdit"));
  edit_->setAccessibleName(tr("Command, or @tensor, #layer, :token, >variant"));
  edit_->setPlaceholderText(tr("Type a command, or @tensor  #layer  :token  >variant"));
  edit_->setClearButtonEnabled(true);
  list_->setObjectName(QStringLiteral("paletteList"));
  list_->setAccessibleName(tr("Matches"));
  list_->setUniformItemSizes(true);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(8, 8, 8, 8);
  layout->addWidget(edit_);
  layout->addWidget(list_);
  edit_->installEventFilter(this);
  connect(edit_, &QLineEdit::textChanged, this, &CommandPalette::refresh);
  connect(edit_, &QLineEdit::returnPressed, this, &CommandPalette::runCurrent);
  connect(list_, &QListWidget::itemActivated, this, &CommandPalette::runCurrent);
  connect(list_, &QListWidget::itemClicked, this, &CommandPalette::runCurrent);
}

void CommandPalette::addSource(QChar prefix, const QString& name, Source source) {
  sources_.append({prefix, name, std::move(source)});
}

void CommandPalette::open(const QString& text) {
  const QWidget* window = parentWidget();
  const int width = std::min(680, window->width() - 40);
  resize(width, std::min(420, window->height() - 80));
  move(window->mapToGlobal(QPoint((window->width() - width) / 2, 60)));
  edit_->setText(text);
  refresh();
  show();
  edit_->setFocus();
}

int CommandPalette::score(const QString& query, const QString& text) {
  int from = 0, total = 0;
  for (const QChar c : query) {
    if (c.isSpace()) continue;
    const int at = int(text.indexOf(c, from, Qt::CaseInsensitive));
    if (at < 0) return -1;
    const bool starts_word = at == 0 || !text.at(at - 1).isLetterOrNumber();
    total += at == from ? 0 : starts_word ? 1 : 3 + std::min(at - from, 12);
    from = at + 1;
  }
  return total;
}

void CommandPalette::refresh() {
  shown_.clear();
  const QString text = edit_->text().trimmed();
  bool prefixed = false;
  for (const Prefixed& source : sources_) {
    if (text.isEmpty() || text.at(0) != source.prefix) continue;
    shown_ = source.source(text.mid(1).trimmed());
    prefixed = true;
  }
  if (!prefixed) {
    QList<std::pair<int, PaletteEntry>> found;
    for (const ActionSpec& spec : actions_.specs()) {
      QAction* action = actions_.action(spec.id);
      const QString name = QString(spec.menu).replace(QLatin1Char('/'), QStringLiteral(" › ")) + QStringLiteral(" › ") +
                           actions_.plainText(spec.id);
      int value = score(text, actions_.plainText(spec.id));
      if (value < 0) value = score(text, name) < 0 ? -1 : score(text, name) + 20;
      if (value < 0) continue;
      const QString key = action->shortcut().toString(QKeySequence::NativeText);
      found.append(
          {value + (action->isEnabled() ? 0 : 1000), {name, action->isEnabled() ? key : action->toolTip(), [action] {
                                                        if (action->isEnabled()) action->trigger();
                                                      }}});
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& entry : found) shown_ << entry.second;
  }
  list_->clear();
  for (const PaletteEntry& entry : shown_) {
    auto* item =
        new QListWidgetItem(entry.hint.isEmpty() ? entry.text : tr("%1    %2").arg(entry.text, entry.hint), list_);
    item->setToolTip(entry.hint);
  }
  if (shown_.isEmpty()) {
    auto* item = new QListWidgetItem(tr("Nothing matches “%1”.").arg(text), list_);
    item->setFlags(Qt::NoItemFlags);
  }
  list_->setCurrentRow(0);
}

void CommandPalette::runCurrent() {
  const int row = list_->currentRow();
  if (row < 0 || row >= shown_.size()) return;
  const auto run = shown_[row].run;
  hide();
  // After this dialog has given the focus back, so that the command finds the view it is meant for.
  QTimer::singleShot(0, parentWidget(), [run] { run(); });
}

bool CommandPalette::eventFilter(QObject* watched, QEvent* event) {
  if (watched == edit_ && event->type() == QEvent::KeyPress) {
    const int key = static_cast<QKeyEvent*>(event)->key();
    if (key == Qt::Key_Down || key == Qt::Key_Up || key == Qt::Key_PageDown || key == Qt::Key_PageUp) {
      QApplication::sendEvent(list_, event);
      return true;
    }
  }
  return QDialog::eventFilter(watched, event);
}

}  // namespace qs
