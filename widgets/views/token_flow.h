#pragma once

#include <QAbstractScrollArea>
#include <QString>
#include <QVector>

#include "widgets/view_base.h"

namespace qs {

/// Background of a token: how much of a colour of the style is mixed into the background, so that screen, print and
/// themes agree.
struct TokenTint {
  enum class Kind { None, Warning, Accent };
  Kind kind = Kind::None;
  double share = 0.0;  ///< 0..1
  bool underlined = false;
};

/// Running text made of tokens: wrapped at words, each token with its own background and place. Appending lays out the
/// last line only, so a long text costs no more per token than a short one. Left and Right move the token cursor, Enter
/// activates.
class TokenFlow : public QAbstractScrollArea {
  Q_OBJECT
 public:
  explicit TokenFlow(QWidget* parent = nullptr);

  void clear();
  void setPrompt(const QString& prompt);  ///< shown before the tokens in a muted colour
  void append(const QStringList& tokens);
  int count() const { return static_cast<int>(tokens_.size()); }
  /// One tint a token; a shorter list leaves the rest plain.
  void setTints(QVector<TokenTint> tints);
  /// A vertical mark before this token, in the warning colour or, for a close decision, in the second accent; -1 for
  /// none.
  void setMarker(int token, bool close);
  int marker() const { return marker_; }
  void setCurrent(int token);
  int current() const { return current_; }
  QString plainText() const;
  QRect tokenRect(int token) const;  ///< in viewport coordinates, of its first piece
  /// The text from its start, as much as fits.
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) const;

 Q_SIGNALS:
  void tokenActivated(int token);
  void tokenHovered(int token, const QPoint& globalPosition);  ///< -1: none

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  struct Piece {
    int token = 0;  ///< -1: prompt
    QString text;
    float x = 0, width = 0;
    bool word_start = false;
  };
  using Line = QVector<Piece>;
  struct Flow {
    QVector<Line> lines;
    double x = 0.0;
    double width = 100.0;
    double space = 4.0;  ///< hung into the margin when a wrapped line begins with one
    void add(int token, const QString& text, const QFontMetricsF& metrics);
    void place(Piece piece);
  };
  void layOut();
  void drawLines(QPainter& painter, const Flow& flow, const QRectF& area, int firstLine, double top,
                 const FigureStyle& style) const;
  void updateScrollBar();
  int tokenAt(const QPointF& position) const;
  double lineHeight() const;

  QString prompt_;
  QStringList tokens_;
  QVector<TokenTint> tints_;
  Flow flow_;
  int marker_ = -1, current_ = -1, hovered_ = -1;
  bool marker_close_ = false;
};

}  // namespace qs
