#pragma once

#include <QList>
#include <QTimer>
#include <memory>
#include <optional>

#include "backend/types/chat_format.h"
#include "backend/types/generation.h"
#include "widgets/view_base.h"
#include "widgets/views/chat_column.h"

class QCheckBox;
class QComboBox;
class QLineEdit;
class QPlainTextEdit;
class QPushButton;
class QSplitter;
class QToolButton;

namespace qs {

class ChatControls;
class ChatTemplateBox;
class DivergenceTimeline;
class PlainTableModel;

/// The tokens of a prompt, as the reference's tokenizer cuts it.
struct PromptPreview {
  QString tokenizer;  ///< "SentencePiece BPE", with the model's name
  QVector<qint64> ids;
  QStringList texts;  ///< one an id
  QString text;       ///< the prompt as it is written in the chat template
};

/// What a message asks for.
struct ChatRequest {
  QString prompt, system;
  ChatTemplateChoice chatTemplate;
  SamplingOptions sampling;
  QStringList variantIds;   ///< by column; the first is the reference
  bool lockStep = false;    ///< the variants are fed the reference's tokens
  bool together = true;     ///< all columns at once, or one after another
  bool replayAfter = true;  ///< free run: measure KL on the reference's tokens afterwards
};

/// Reference and up to three variants side by side. A presenter answers sendRequested by calling beginRun(), giving
/// each column's ring to the thread that generates, and finishing the columns; the view empties the rings at 30 Hz.
class ChatView : public ViewBase {
  Q_OBJECT
 public:
  static constexpr int kMaxColumns = 4;
  explicit ChatView(SelectionHub& hub, QWidget* parent = nullptr);
  ~ChatView() override;

  void setVariants(const QList<ChatVariant>& variants);
  void setColumns(const QStringList& variantIds);  ///< at least one, at most four
  QStringList columns() const;
  int columnCount() const { return static_cast<int>(columns_.size()); }
  ChatColumn* column(int index) { return columns_[index]; }

  ChatRequest request() const;
  void setPrompt(const QString& prompt, const QString& system = {});
  void setSampling(const SamplingOptions& options);
  /// What was found with the reference's model: a known kind, a template that is not known, or none.
  void setDetectedTemplate(bool hasTemplate, std::optional<ChatKind> kind);

  void beginRun(const QString& shownPrompt, int promptTokens, bool lockStep, bool together);
  void setPromptTokens(int tokens);  ///< positions of generated tokens start there
  void startColumn(int index);       ///< one after another: this one generates now
  void finishColumn(int index, ChatColumn::State state, const ChatStats& stats, const QString& message = {},
                    const QString& detail = {});
  void endRun();
  bool running() const { return running_; }
  /// Shows what the rings hold; called at 30 Hz while a run lasts.
  void flush();

  ChatMode mode() const { return mode_; }
  void setMode(ChatMode mode);
  void maximise(int column);  ///< -1: all columns again
  QString asMarkdown() const;
  QString asHtml() const;                  ///< a page that needs no other file
  bool saveAs(const QString& path) const;  ///< HTML or, by its suffix, Markdown
  /// The answer to promptPreviewRequested(): a dialog with the text as it is sent and its token ids.
  void showPromptPreview(const PromptPreview& preview);

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;

 Q_SIGNALS:
  void sendRequested(const qs::ChatRequest& request);
  void stopRequested(int column);  ///< -1: all
  void determinismRequested();
  void promptPreviewRequested(const qs::ChatRequest& request);
  void columnsChanged(const QStringList& variantIds);

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void selectionChanged() override;

 private:
  void makeControls();
  void makePromptBox(QWidget* parent, QBoxLayout* column);
  ChatColumn* addColumn();
  void send();
  void compareColumns();
  void recolour();
  void showTimeline();
  void selectToken(int column, int token);
  void askAndSave();
  QString samplingText() const;
  void updateButtons();

  QList<ChatVariant> variants_;
  QList<ChatColumn*> columns_;
  ChatMode mode_ = ChatMode::Diff;
  QTimer flush_timer_;
  bool running_ = false, lock_step_run_ = false;
  int prompt_tokens_ = 0, focused_ = 0, maximised_ = -1;
  QString shown_prompt_;
  std::unique_ptr<PlainTableModel> table_;
  QComboBox *mode_choice_, *run_choice_, *order_choice_, *library_;
  QToolButton *add_, *copy_, *determinism_, *preview_;
  QSplitter *split_, *rows_;
  DivergenceTimeline* timeline_;
  QLineEdit* system_;
  QPlainTextEdit* prompt_;
  QPushButton *send_, *stop_;
  ChatTemplateBox* template_;
  ChatControls* controls_;
};

}  // namespace qs
