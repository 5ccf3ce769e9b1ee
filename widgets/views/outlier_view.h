#pragma once

#include <QStringList>
#include <vector>

#include "analysis/outliers.h"
#include "widgets/views/heatmap_view.h"
#include "widgets/views/kv_overlay_marks.h"

class QSpinBox;
class QSplitter;

namespace qs {

/// One side of a comparison: statistics of all layers of one tensor of one capture.
struct OutlierSide {
  QString label;
  std::vector<analysis::ChannelStats> layers;
};

/// What a variant's quantizer does to the shown layer.
struct QuantizerOverlay {
  QString label;   ///< of the variant; empty: none is shown
  QString why;     ///< why there is no overlay
  QString tensor;  ///< that the method quantizes: key, key_pre_rope or value
  KvOverlayPtr overlay;
  analysis::ChannelReach reach;
};

/// Outlier channels: channel by layer map, ranked channels with a threshold, channel by token detail, and whether the
/// same channels stand out in every layer.
class OutlierView : public HeatmapView {
  Q_OBJECT
 public:
  enum class Quantizer { None, AsTheyLie, InItsOrder };
  explicit OutlierView(SelectionHub& hub, QWidget* parent = nullptr);

  void setChannels(OutlierSide a, OutlierSide b, qint64 headDim);
  /// |x| of one layer, tokens down, channels across.
  void setDetail(int layer, PyramidPtr a, PyramidPtr b);
  void setDetailPlaceholder(const QString& why);
  void setQuantizer(QuantizerOverlay quantizer);
  Quantizer quantizer() const { return quantizer_; }
  void setQuantizerShown(Quantizer shown);
  void setTokens(const QStringList& tokens) { tokens_ = tokens; }
  void setTensors(const QStringList& available);  ///< of key, key_pre_rope, value, q_proj, o_proj, gate_proj, down_proj

  QString tensor() const { return tensor_; }
  void setTensor(const QString& tensor);
  void setStat(analysis::ChannelStat stat);
  void setThreshold(double k);  ///< k x median
  double threshold() const { return k_; }

 Q_SIGNALS:
  void tensorChosen(const QString& tensor);
  void quantizerChosen();

 protected:
  void selectionApplied() override;
  void cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) override;
  void cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) override;
  void brushCleared() override;
  void modeApplied() override;
  void saveOwn(QJsonObject& settings) const override;
  void restoreOwn(const QJsonObject& settings) override;

 private:
  void buildControls();
  void refreshMap();
  void refreshRanking();
  void refreshGroups();
  void refreshDetail();
  bool overlayFits() const;  ///< the overlay is of the shown tensor
  bool inOrder() const;      ///< columns stand in the method's order
  qint64 channelAt(qint64 column) const;
  qint64 columnOf(qint64 channel) const;
  QString channelText(qint64 channel) const;
  QString describe(const HeatmapCanvas* canvas, Cell cell) const;

  HeatmapCanvas* map_;
  HeatmapCanvas* detail_;
  HeatmapCanvas* persistence_;
  LineCanvas* ranked_;
  QSplitter* rows_;
  QSplitter* top_;
  QSplitter* bottom_;
  QComboBox* tensor_box_ = nullptr;
  QComboBox* stat_box_ = nullptr;
  QComboBox* group_box_ = nullptr;
  QComboBox* quantizer_box_ = nullptr;
  QSpinBox* top_box_ = nullptr;
  OutlierSide a_, b_;
  PyramidPtr detail_a_, detail_b_;
  QuantizerOverlay overlay_;
  Quantizer quantizer_ = Quantizer::None;
  analysis::ChannelRanking rank_a_, rank_b_;
  QStringList tokens_;
  QString tensor_ = QStringLiteral("key");
  analysis::ChannelStat stat_ = analysis::ChannelStat::AbsMax;
  double k_ = 4.0;
  qint64 head_dim_ = 0;
  int detail_layer_ = 0;
};

}  // namespace qs
