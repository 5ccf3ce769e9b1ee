#pragma once

#include <QAbstractTableModel>
#include <QJsonObject>
#include <QRectF>
#include <QString>
#include <QWidget>

class QBoxLayout;
class QComboBox;
class QPainter;
class QToolButton;

namespace qs {

class SelectionHub;
class ViewOverlay;

/// What a view shows now. Every view looks the same in each.
enum class ViewState { Empty, Loading, Partial, Stale, Failed, Cancelled, Ready };

/// How a figure was made; printed under every export.
struct Provenance {
  QString session, variant, data,
      program;      ///< session title, variant label, capture or text and range, program and version
  QString command;  ///< the command line that makes the same numbers
  QString line() const;
};

/// Colours and sizes of a painted figure: the palette's on screen, the light theme's in print.
struct FigureStyle {
  QColor background, foreground, muted, grid, accent, accentB, warning;
  QFont font;
  double lineWidth = 1.0;
  static FigureStyle screen(const QWidget& widget);
  static FigureStyle print(double fontPointSize = 8.0);
};

/// The base of every view: title, state, provenance, selection, export, settings. Painting of the figure goes through
/// paintFigure() both on screen and in exports, so that an export equals the screen.
class ViewBase : public QWidget {
  Q_OBJECT
 public:
  ViewBase(QString viewId, QString title, SelectionHub& hub, QWidget* parent = nullptr);

  QString viewId() const { return viewId_; }  ///< "outliers": stable, in sessions, actions and --view
  QString title() const { return title_; }
  ViewState state() const { return state_; }
  QString stateMessage() const { return stateMessage_; }
  QString stateActionId() const { return actionId_; }

  /// @param message  one sentence: what is missing, what runs, what went wrong
  /// @param actionId the action that fixes it ("capture.kv", "view.retry"); its button is shown in Empty, Stale and
  /// Failed
  void setState(ViewState state, const QString& message = {}, const QString& actionId = {},
                const QString& actionText = {}, const QString& detail = {});
  void setProgress(double fraction, const QString& step);  ///< shown as a thin line while Loading
  void setProvenance(const Provenance& provenance);
  const Provenance& provenance() const { return provenance_; }

  bool isLinked() const { return linked_; }
  void setLinked(bool linked);

  /// Draws the whole figure (axes, body, colour bar, captions) into `target`.
  virtual void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) = 0;
  /// The numbers behind what is seen now; owned by the view. Headers carry units.
  virtual QAbstractTableModel* dataTable() = 0;
  /// One sentence for screen readers: what is drawn, its range and extremes.
  virtual QString accessibleSummary() const = 0;

  /// Modes, ranges, scales; restoreSettings(saveSettings()) changes nothing.
  virtual QJsonObject saveSettings() const = 0;
  virtual void restoreSettings(const QJsonObject& settings) = 0;

  virtual void fitView() {}
  virtual void zoomBy(double) {}
  virtual void setLogScale(bool) {}
  /// 0: A, 1: B, 2: A-B, 3: A/B
  virtual void setCompareMode(int) {}

 Q_SIGNALS:
  void stateChanged(qs::ViewState state);
  void readoutChanged(const QString& text);  ///< exact value under the cursor, for the status bar
  void actionRequested(const QString& actionId);
  void pinRequested(const QString& viewId, const QString& value);
  void settingsChanged();  ///< for undo and autosave
  void cancelRequested();

 protected:
  SelectionHub& hub() { return hub_; }
  const SelectionHub& hub() const { return hub_; }
  /// The frame that views may use: a row for the compare strip and controls (with the chain button at its end), and
  /// below it the body, where the figure lies. Both are made at the first call; a view that calls neither lays itself
  /// out.
  QBoxLayout* controlsLayout();
  QWidget* body();
  /// A labelled list in the controls row. @param tip  its tool tip and accessible name
  QComboBox* addChoice(const char* name, const QString& label, const QString& tip);
  /// The selection moved and this view follows it.
  virtual void selectionChanged() {}

 private:
  QString viewId_, title_, stateMessage_;
  SelectionHub& hub_;
  ViewState state_ = ViewState::Empty;
  Provenance provenance_;
  bool linked_ = true;
  QString actionId_, actionText_, detail_, step_;
  double fraction_ = 0.0;
  ViewOverlay* overlay_ = nullptr;
  QBoxLayout* controls_ = nullptr;
  QWidget* body_ = nullptr;
  QToolButton* chain_ = nullptr;

  void makeFrame();
  void updateOverlay();
};

}  // namespace qs
