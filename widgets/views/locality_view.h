#pragma once

#include <QStringList>
#include <vector>

#include "analysis/locality.h"
#include "widgets/views/heatmap_view.h"
#include "widgets/views/strip_canvas.h"

class QSlider;

namespace qs {

/// Locality of every query head: [layer][head].
struct LocalitySide {
  QString label;
  std::vector<std::vector<analysis::HeadLocality>> layers;
};

/// Attention of one head, in tokens: rows are queries, columns keys. Max and mean are the same map when it is exact,
/// else the coarse levels of it.
struct AttentionSide {
  PyramidPtr max, mean;
  double outputError = -1.0;  ///< relative error of softmax(QK')V' to full precision; negative: not known
};

/// Attention locality: layer by head summary, cumulative mass against distance, query by key map, token strip. A is the
/// captured attention, B the same with quantized keys.
class LocalityView : public HeatmapView {
  Q_OBJECT
 public:
  enum class Summary { WithinWindow, Sink, Entropy };
  explicit LocalityView(SelectionHub& hub, QWidget* parent = nullptr);

  void setLocality(LocalitySide a, LocalitySide b, qint64 queriesPerKvHead);
  void setAttention(int layer, int head, AttentionSide a, AttentionSide b);
  void setTokenAttention(qint64 token, analysis::TokenAttention a, analysis::TokenAttention b);
  void setTokens(const QStringList& tokens);
  void setProtectedWindow(qint64 tokens, const QString& label);  ///< newest tokens a method keeps; 0: none
  qint64 window() const { return window_; }
  void setWindow(qint64 tokens);
  void setSummary(Summary summary);

 Q_SIGNALS:
  void windowApplied(qint64 tokens);  ///< the user wants it as the residual length
  void tokenChosen(qint64 token);

 protected:
  void selectionApplied() override;
  void cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) override;
  void cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) override;
  void brushCleared() override;
  void modeApplied() override;
  void saveOwn(QJsonObject& settings) const override;
  void restoreOwn(const QJsonObject& settings) override;
  FigureTable::Content tableOf(PanelCanvas* canvas) override;

 private:
  void buildControls();
  void refreshMatrix();
  void refreshCurve();
  void refreshAttention();
  void refreshStrip();
  qint64 longest() const;
  QString describe(const HeatmapCanvas* canvas, Cell cell) const;

  HeatmapCanvas* matrix_;
  HeatmapCanvas* attention_;
  LineCanvas* curve_;
  TokenStripCanvas* strip_;
  QComboBox* summary_box_ = nullptr;
  QSlider* window_slider_ = nullptr;
  QToolButton* window_text_ = nullptr;
  QToolButton* mean_button_ = nullptr;
  QToolButton* received_button_ = nullptr;
  LocalitySide a_, b_;
  AttentionSide attention_a_, attention_b_;
  analysis::TokenAttention token_a_, token_b_;
  QStringList tokens_;
  Summary summary_ = Summary::WithinWindow;
  qint64 window_ = 32, protected_ = 0, token_ = -1, per_kv_head_ = 1;
  QString protected_label_;
  int layer_ = 0, head_ = 0;
  bool mean_ = false, received_ = false;
};

}  // namespace qs
