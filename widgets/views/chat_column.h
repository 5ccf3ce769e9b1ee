#pragma once

#include <QFrame>
#include <QString>
#include <memory>
#include <optional>
#include <vector>

#include "analysis/divergence.h"
#include "backend/types/generation.h"
#include "widgets/token_ring.h"
#include "widgets/view_base.h"

class QComboBox;
class QLabel;
class QToolButton;

namespace qs {

class PhraseLabel;
class TokenFlow;
struct TokenTint;

/// A variant that a column can show.
struct ChatVariant {
  QString id, name;
  QString setup;  ///< setup lines, or "full precision"
  double kvBits = 16.0, weightBits = 16.0;
  QString execution;  ///< "packed KV", "simulated weights", "full precision"
  bool operator==(const ChatVariant&) const = default;
};

/// How the tokens of a column are coloured.
enum class ChatMode { Plain, Diff, Probability, Kl };

/// What a run measured, as far as it is known.
struct ChatStats {
  double secondsToFirst = -1.0, tokensPerSecond = -1.0;
  qint64 kvBytes = -1, kvBytesIfF16 = -1;
  int context = 0, maxContext = 0;
};

/// One column of the chat: header with the variant, live figures and badges; below it the text.
class ChatColumn : public QFrame {
  Q_OBJECT
 public:
  enum class State { Idle, Waiting, Running, Done, Cancelled, Failed };
  ChatColumn(int number, QWidget* parent = nullptr);

  void setChoices(const QList<ChatVariant>& variants);
  void setVariant(const QString& variantId);
  const ChatVariant& variant() const { return variant_; }
  bool isReference() const { return number_ == 0; }

  /// Empties the text and makes a new ring; what an older producer still pushes is dropped.
  void begin(const QString& prompt, State state);
  /// Where the job that fills this column puts its tokens.
  std::shared_ptr<TokenRing> ring() const { return ring_; }
  /// Moves what is in the ring into the text. Returns whether anything came.
  bool drain();
  void setState(State state, const QString& message = {}, const QString& detail = {});
  State state() const { return state_; }
  QString message() const { return message_; }
  void setStats(const ChatStats& stats);
  const ChatStats& stats() const { return stats_; }
  void setDeterminism(std::optional<bool> same);
  void setPromptTokens(int tokens) { prompt_tokens_ = tokens; }  ///< counted in the context while tokens arrive

  const std::vector<TokenStep>& steps() const { return steps_; }
  const std::vector<ReplayStep>& replaySteps() const { return replay_; }
  /// The reference's tokens of a lock-step replay, shown as this column's text.
  void setReplayed(bool replayed) { replayed_ = replayed; }

  void compareWith(const std::vector<TokenStep>& reference, bool bothEnded);
  const std::optional<analysis::Divergence>& divergence() const { return divergence_; }
  void setMarker(int token);
  void colour(ChatMode mode, const std::vector<TokenStep>& reference);
  /// What colour() shows, one tint a token.
  QVector<TokenTint> tints(ChatMode mode, const std::vector<TokenStep>& reference) const;
  void showDivergence();  ///< opens the popover with both top-5 lists
  QString divergenceText() const;

  TokenFlow* flow() { return flow_; }
  const TokenFlow* flow() const { return flow_; }
  QString statsText() const;
  QStringList figures() const;         ///< the same in short phrases, the most telling ones first
  QString tokenText(int token) const;  ///< readout of one token
  void setSingleHeaderLine(bool compact);

 Q_SIGNALS:
  void variantChosen(const QString& variantId);
  void removeRequested();
  void maximiseRequested();
  void tokenActivated(int token);
  void tokenHovered(int token, const QString& text);
  void columnFocused();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;

 private:
  void showHeader();
  void showDivergenceBadge();
  int number_, prompt_tokens_ = 0;
  ChatVariant variant_;
  QList<ChatVariant> choices_;
  State state_ = State::Idle;
  QString message_, detail_;
  ChatStats stats_;
  std::vector<TokenStep> steps_;
  std::vector<ReplayStep> replay_;
  std::vector<double> arrival_;
  bool replayed_ = false;
  std::optional<analysis::Divergence> divergence_;
  std::optional<bool> same_;
  std::shared_ptr<TokenRing> ring_;
  QComboBox* choice_;
  PhraseLabel *bits_, *live_;
  QLabel *badge_, *failure_;
  QToolButton *differs_, *maximise_, *remove_;
  TokenFlow* flow_;
};

}  // namespace qs
