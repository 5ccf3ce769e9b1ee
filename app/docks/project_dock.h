#pragma once

#include <QDockWidget>
#include <QSet>

class QTreeWidget;
class QTreeWidgetItem;

namespace qs {

class Workbench;

/// The session as a tree: models, captures with their layers, variants, results, pins and notes.
class ProjectDock : public QDockWidget {
  Q_OBJECT
 public:
  explicit ProjectDock(Workbench& workbench, QWidget* parent = nullptr);
  QString selectedVariant() const;  ///< id of the chosen variant row; empty when another kind of row is chosen
  QString selectedModel() const;
  QString selectedCapture() const;

 Q_SIGNALS:
  void actionRequested(const QString& actionId);

 private:
  enum Kind { Group, ModelRow, CaptureRow, LayerRow, VariantRow, ResultsRow, PinRow, NotesRow };
  void rebuild();
  void fillLayers(const QString& captureId);
  void activated(QTreeWidgetItem* item);
  void showMenu(const QPoint& position);
  QString selected(Kind kind) const;
  QTreeWidgetItem* addRow(QTreeWidgetItem* parent, Kind kind, const QString& text, const QString& id,
                          const QString& tip);

  Workbench& workbench_;
  QTreeWidget* tree_;
  QHash<QString, int> layers_;  ///< by capture id, for the rows below it
};

}  // namespace qs
