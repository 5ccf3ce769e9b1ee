#pragma once

#include <QStringList>
#include <vector>

#include "analysis/locality.h"
#include "widgets/views/heatmap_view.h"
#include "widgets/views/strip_canvas.h"

class QLabel;
class QSlider;

namespace qs {

/// Locality of every query head: [layer][head].
struct LocalitySide {
  QString label;
  std::vector<std::vector<analysis::HeadLocality>> layers;
};

/// What a method keeps in full precision while decoding, and so protects from quantization.
struct ProtectedTokens {
  QString label;                           ///< of the variant; empty: there is none
  qint64 sinks = 0;                        ///< first tokens
  qint64 newestLeast = 0, newestMost = 0;  ///< newest tokens of keys; they differ where tokens are quantized in blocks
  QString parameter;                       ///< what the method calls the number of newest tokens; empty: it has none
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
  /// The heads of A know the mass on quantized tokens: of keys, then of values.
  void setProtected(const ProtectedTokens& protectedTokens);
  qint64 window() const { return window_; }
  void setWindow(qint64 tokens);
  void setSummary(Summary summary);

 Q_SIGNALS:
  void windowApplied(qint64 tokens);  ///< the user wants it as the number of newest tokens that B protects
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
  QString protectedText(const std::vector<analysis::HeadLocality>& heads, const analysis::HeadLocality& head) const;
  void refreshWindow();  ///< the slider's number and what applying it does
  qint64 longest() const;
  QString describe(const HeatmapCanvas* canvas, Cell cell) const;

  HeatmapCanvas* matrix_;
  HeatmapCanvas* attention_;
  LineCanvas* curve_;
  TokenStripCanvas* strip_;
  QComboBox* summary_box_ = nullptr;
  QSlider* window_slider_ = nullptr;
  QLabel* window_text_ = nullptr;
  QToolButton* apply_button_ = nullptr;
  QToolButton* mean_button_ = nullptr;
  QToolButton* received_button_ = nullptr;
  LocalitySide a_, b_;
  AttentionSide attention_a_, attention_b_;
  analysis::TokenAttention token_a_, token_b_;
  QStringList tokens_;
  Summary summary_ = Summary::WithinWindow;
  qint64 window_ = 32, token_ = -1, per_kv_head_ = 1;
  ProtectedTokens protected_;
  int layer_ = 0, head_ = 0;
  bool mean_ = false, received_ = false;
};

}  // namespace qs
