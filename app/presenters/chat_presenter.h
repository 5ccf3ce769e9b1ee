#pragma once

#include <QHash>
#include <QObject>
#include <QString>
#include <memory>

#include "app/workbench.h"
#include "widgets/views/chat_view.h"

namespace qs {

/// Generates and replays for the chat: one job a message, one thread a column inside it when they run together.
class ChatPresenter : public QObject {
  Q_OBJECT
 public:
  ChatPresenter(Workbench& workbench, ChatView& view);
  ~ChatPresenter() override;

 private:
  struct Run;  // what a message's threads share
  void showVariants();
  void chooseColumns();
  void send(const ChatRequest& request);
  void stop(int column);
  void checkDeterminism();
  void previewPrompt(const ChatRequest& request);
  void detectTemplate();  ///< of the reference's model
  void learn(const QString& variantId, double kvBits, double weightBits, const QString& execution);

  Workbench& workbench_;
  ChatView& view_;
  QHash<QString, ChatVariant> learned_;
  std::shared_ptr<Run> run_;
  quint64 job_ = 0;
  QString detected_for_;  ///< model id
};

}  // namespace qs
