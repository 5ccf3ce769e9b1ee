#pragma once

#include <vector>

#include "analysis/error_map.h"
#include "widgets/paint/figure_panel.h"

namespace qs {

/// Reconstruction and functional error of each variant side by side; a red mark where the two disagree on which is
/// better.
class MetricStripPanel : public FigurePanel {
 public:
  void setVariants(std::vector<analysis::MetricPair> variants);
  const std::vector<analysis::MetricPair>& variants() const { return variants_; }
  const std::vector<bool>& disagree() const { return disagree_; }
  QString reconstructionTitle, functionalTitle;

  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QRectF bodyRect(const QRectF& target, const FigureStyle& style) const override;
  QString summary() const override;
  bool isEmpty() const override { return variants_.empty(); }

 private:
  std::vector<analysis::MetricPair> variants_;
  std::vector<bool> disagree_;
};

/// How many cells hold each code of a quantized tensor: one bar a code, or one bar a width where widths differ.
class CodeStripPanel : public FigurePanel {
 public:
  analysis::CodeCounts codes;
  bool byWidth = false;  ///< counts are of codes of 0, 1, 2 ... bits

  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QRectF bodyRect(const QRectF& target, const FigureStyle& style) const override;
  QString summary() const override;
  bool isEmpty() const override { return codes.counts.empty(); }
};

}  // namespace qs
