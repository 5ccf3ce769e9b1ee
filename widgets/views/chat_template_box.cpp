#include "widgets/views/chat_template_box.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialog>
#include <QDialogButtonBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QToolButton>

namespace qs {

namespace {

struct Field {
  const char *name, *label;
  std::string ChatFormat::*text;
};
constexpr Field kFields[] = {
    {"start", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Start of the chat"), &ChatFormat::start},
    {"system_prefix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Before a system message"), &ChatFormat::system_prefix},
    {"system_suffix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Behind it"), &ChatFormat::system_suffix},
    {"user_prefix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Before a user's message"), &ChatFormat::user_prefix},
    {"user_suffix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Behind it"), &ChatFormat::user_suffix},
    {"assistant_prefix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Before a reply"), &ChatFormat::assistant_prefix},
    {"assistant_suffix", QT_TRANSLATE_NOOP("qs::ChatTemplateBox", "Behind it"), &ChatFormat::assistant_suffix},
};

/// Line ends as the two characters "\n", so that they can be seen and typed in one line.
QString escaped(const std::string& text) {
  return QString::fromStdString(text)
      .replace(u'\\', QStringLiteral("\\\\"))
      .replace(u'\n', QStringLiteral("\\n"))
      .replace(u'\t', QStringLiteral("\\t"));
}

std::string unescaped(const QString& text) {
  QString result;
  for (qsizetype i = 0; i < text.size(); ++i) {
    if (text[i] != u'\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    const QChar next = text[++i];
    if (next == u'n') {
      result += u'\n';
    } else if (next == u't') {
      result += u'\t';
    } else {
      result += next;
    }
  }
  return result.toStdString();
}

}  // namespace

ChatTemplateBox::ChatTemplateBox(QWidget* parent) : QWidget(parent) {
  setObjectName(QStringLiteral("chat_template_box"));
  custom_ = usual_chat_format(ChatKind::Custom);
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(4);
  kind_ = new QComboBox(this);
  kind_->setObjectName(QStringLiteral("chat_template"));
  kind_->setAccessibleName(tr("Chat template"));
  kind_->addItem(QString());
  for (const ChatKind kind : all_chat_kinds())
    kind_->addItem(QString::fromUtf8(chat_kind_name(kind)), QString::fromUtf8(chat_kind_id(kind)));
  edit_ = new QToolButton(this);
  edit_->setObjectName(QStringLiteral("edit_chat_template"));
  edit_->setText(tr("Edit…"));
  edit_->setAccessibleName(tr("Edit the role prefixes"));
  edit_->setToolTip(tr("Write the texts before and behind each role's messages yourself"));
  row->addWidget(kind_);
  row->addWidget(edit_);
  connect(kind_, &QComboBox::activated, this, &ChatTemplateBox::changed);
  connect(edit_, &QToolButton::clicked, this, &ChatTemplateBox::edit);
  setDetected(false, std::nullopt);
}

ChatTemplateChoice ChatTemplateBox::choice() const {
  ChatTemplateChoice choice;
  choice.custom = custom_;
  choice.automatic = kind_->currentIndex() == 0;
  if (!choice.automatic) chat_kind_from_id(kind_->currentData().toString().toStdString(), choice.kind);
  return choice;
}

void ChatTemplateBox::setChoice(const ChatTemplateChoice& choice) {
  custom_ = choice.custom;
  custom_.kind = ChatKind::Custom;
  const int index = kind_->findData(QString::fromUtf8(chat_kind_id(choice.kind)));
  kind_->setCurrentIndex(choice.automatic ? 0 : std::max(0, index));
}

void ChatTemplateBox::setDetected(bool hasTemplate, std::optional<ChatKind> kind) {
  detected_ = kind;
  kind_->setItemText(0, kind ? tr("Auto: %1").arg(QString::fromUtf8(chat_kind_name(*kind))) : tr("Auto: raw text"));
  const QString found = kind          ? tr("The model brings this template.")
                        : hasTemplate ? tr("The model's template is not one that is known here: choose one, or edit "
                                           "the role prefixes.")
                                      : tr("The model brings no template, so the text is continued as it is.");
  kind_->setToolTip(tr("The chat template that the message is written in. %1").arg(found));
}

void ChatTemplateBox::edit() {
  const ChatTemplateChoice now = choice();
  const ChatKind shown = now.automatic ? detected_.value_or(ChatKind::Custom) : now.kind;
  ChatFormat format = shown == ChatKind::Custom || shown == ChatKind::Raw ? custom_ : usual_chat_format(shown);

  auto* dialog = new QDialog(this);
  dialog->setObjectName(QStringLiteral("chat_template_dialog"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowTitle(tr("Role prefixes"));
  auto* form = new QFormLayout(dialog);
  auto* help = new QLabel(
      tr("\\n is a new line; {bos} and {eos} are the model's own tokens. Special tokens such as <|im_end|> count here, "
         "but not in messages."),
      dialog);
  help->setWordWrap(true);
  form->addRow(help);
  for (const Field& field : kFields) {
    auto* line = new QLineEdit(escaped(format.*field.text), dialog);
    line->setObjectName(QString::fromUtf8(field.name));
    line->setAccessibleName(tr(field.label));
    line->setMinimumWidth(320);
    form->addRow(tr(field.label), line);
  }
  auto* own_turn = new QCheckBox(tr("A system message has its own turn; otherwise it begins the first user's"), dialog);
  own_turn->setObjectName(QStringLiteral("system_own_turn"));
  own_turn->setChecked(format.system_place == ChatFormat::SystemPlace::OwnTurn);
  form->addRow(own_turn);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, dialog);
  form->addRow(buttons);
  connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::reject);
  connect(buttons, &QDialogButtonBox::accepted, dialog, &QDialog::accept);
  connect(dialog, &QDialog::accepted, this, [this, dialog, own_turn, format]() mutable {
    for (const Field& field : kFields)
      format.*field.text = unescaped(dialog->findChild<QLineEdit*>(QString::fromUtf8(field.name))->text());
    format.system_place =
        own_turn->isChecked() ? ChatFormat::SystemPlace::OwnTurn : ChatFormat::SystemPlace::FirstUserTurn;
    setChoice({false, ChatKind::Custom, format});
    Q_EMIT changed();
  });
  dialog->open();
}

QJsonObject ChatTemplateBox::save() const {
  const ChatTemplateChoice now = choice();
  QJsonObject custom;
  for (const Field& field : kFields)
    custom[QString::fromUtf8(field.name)] = QString::fromStdString(custom_.*field.text);
  custom[QStringLiteral("system_own_turn")] = custom_.system_place == ChatFormat::SystemPlace::OwnTurn;
  return {{QStringLiteral("kind"), now.automatic ? QStringLiteral("auto") : QString::fromUtf8(chat_kind_id(now.kind))},
          {QStringLiteral("custom"), custom}};
}

void ChatTemplateBox::restore(const QJsonObject& settings) {
  ChatTemplateChoice choice;
  choice.custom = usual_chat_format(ChatKind::Custom);
  const QJsonObject custom = settings.value(QStringLiteral("custom")).toObject();
  for (const Field& field : kFields)
    choice.custom.*field.text = custom.value(QString::fromUtf8(field.name)).toString().toStdString();
  if (!custom.value(QStringLiteral("system_own_turn")).toBool(true))
    choice.custom.system_place = ChatFormat::SystemPlace::FirstUserTurn;
  choice.automatic = !chat_kind_from_id(settings.value(QStringLiteral("kind")).toString().toStdString(), choice.kind);
  setChoice(choice);
}

}  // namespace qs
