#pragma once

#include <QStringList>
#include <vector>

#include "analysis/color_scale.h"
#include "widgets/paint/color_map.h"
#include "widgets/paint/figure_panel.h"

namespace qs {

/// Running text whose tokens are coloured by one value each; wraps, and starts at the line that holds `first`.
class TokenStripPanel : public FigurePanel {
 public:
  QStringList tokens;
  std::vector<float> values;  ///< one a token; may be shorter (the rest is uncoloured)
  analysis::ColorScale scale;
  MapName map = MapName::Viridis;
  qint64 selected = -1, cursor = -1;
  bool follow = true;  ///< scroll to the cursor or the selected token when painting

  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QRectF bodyRect(const QRectF& target, const FigureStyle& style) const override;
  QString summary() const override;
  bool isEmpty() const override { return tokens.isEmpty(); }
  qint64 tokenAt(QPointF at) const;  ///< of the last painting; -1: none
  void scrollLines(int lines);

 private:
  struct Box {
    QRectF rect;
    qint64 token;
  };
  std::vector<Box> boxes_;  ///< of the last painting
  int first_line_ = 0, lines_ = 0, shown_lines_ = 1;
};

}  // namespace qs
