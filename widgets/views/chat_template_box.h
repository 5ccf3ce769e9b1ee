#pragma once

#include <QJsonObject>
#include <QWidget>
#include <optional>

#include "backend/types/chat_format.h"

class QComboBox;
class QToolButton;

namespace qs {

/// Which chat template a message is written in: the model's own, raw text, one of the known kinds, or prefixes that the
/// user edits.
class ChatTemplateBox : public QWidget {
  Q_OBJECT
 public:
  explicit ChatTemplateBox(QWidget* parent = nullptr);
  ChatTemplateChoice choice() const;
  void setChoice(const ChatTemplateChoice& choice);
  /// What was found with the model: a known kind, a template that is not known, or none.
  void setDetected(bool hasTemplate, std::optional<ChatKind> kind);
  /// The dialog with the role prefixes; what is accepted there becomes the custom format.
  void edit();

  QJsonObject save() const;
  void restore(const QJsonObject& settings);

 Q_SIGNALS:
  void changed();

 private:
  QComboBox* kind_;
  QToolButton* edit_;
  ChatFormat custom_;
  std::optional<ChatKind> detected_;
};

}  // namespace qs
