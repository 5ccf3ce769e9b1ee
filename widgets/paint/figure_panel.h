#pragma once

#include <QRectF>
#include <QString>

class QPainter;

namespace qs {

struct FigureStyle;

/// One plot of a figure, without a widget: the same object paints on screen and into an export.
class FigurePanel {
 public:
  virtual ~FigurePanel() = default;
  virtual void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) = 0;
  /// Where the data lies within `target`.
  virtual QRectF bodyRect(const QRectF& target, const FigureStyle& style) const = 0;
  virtual QString summary() const = 0;  ///< one sentence for screen readers
  virtual bool isEmpty() const = 0;

  QString title, note;  ///< note: at the right of the title line, muted ("max-pooled 4 x 4")
  QString placeholder;  ///< shown while there is nothing to draw

 protected:
  /// Title, note and placeholder; returns the height that the title line takes.
  double paintTitle(QPainter& painter, const QRectF& target, const FigureStyle& style) const;
  static double titleHeight(const FigureStyle& style);
  void paintPlaceholder(QPainter& painter, const QRectF& target, const FigureStyle& style) const;
};

/// Whether the painter writes vectors (SVG, PDF), where an image keeps one pixel a cell.
bool is_vector(QPainter& painter);

}  // namespace qs
