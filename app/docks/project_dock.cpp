#include "app/docks/project_dock.h"

#include <QFileInfo>
#include <QHeaderView>
#include <QInputDialog>
#include <QMenu>
#include <QTreeWidget>

#include "app/workbench.h"
#include "sessions/session_document.h"

namespace qs {
namespace {
constexpr int kKindRole = Qt::UserRole, kIdRole = Qt::UserRole + 1, kLayerRole = Qt::UserRole + 2;
}

ProjectDock::ProjectDock(Workbench& workbench, QWidget* parent)
    : QDockWidget(tr("Project"), parent), workbench_(workbench), tree_(new QTreeWidget(this)) {
  setObjectName(QStringLiteral("dock.project"));
  tree_->setObjectName(QStringLiteral("projectTree"));
  tree_->setAccessibleName(tr("Project: models, captures, variants, results, pins"));
  tree_->setHeaderHidden(true);
  tree_->setMinimumWidth(140);
  tree_->setIndentation(14);
  tree_->setContextMenuPolicy(Qt::CustomContextMenu);
  tree_->setUniformRowHeights(true);
  tree_->setTextElideMode(Qt::ElideRight);
  setWidget(tree_);
  connect(tree_, &QTreeWidget::itemActivated, this, [this](QTreeWidgetItem* item) { activated(item); });
  connect(tree_, &QTreeWidget::customContextMenuRequested, this, &ProjectDock::showMenu);
  connect(&workbench_, &Workbench::modelsChanged, this, &ProjectDock::rebuild);
  connect(&workbench_, &Workbench::capturesChanged, this, &ProjectDock::rebuild);
  connect(&workbench_, &Workbench::variantsChanged, this, &ProjectDock::rebuild);
  connect(&workbench_, &Workbench::resultsChanged, this, &ProjectDock::rebuild);
  connect(&workbench_, &Workbench::calibrated, this, &ProjectDock::rebuild);
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] { layers_.clear(); });
  connect(&workbench_, &Workbench::captureReady, this, &ProjectDock::fillLayers);
  connect(&workbench_.document(), &SessionDocument::changed, this,
          [this, pins = QList<PinEntry>(), notes = QString()]() mutable {
            const SessionState& state = workbench_.session();
            if (state.pins == pins && state.notes == notes) return;
            pins = state.pins;
            notes = state.notes;
            rebuild();
          });
  rebuild();
}

QTreeWidgetItem* ProjectDock::addRow(QTreeWidgetItem* parent, Kind kind, const QString& text, const QString& id,
                                     const QString& tip) {
  auto* item = parent ? new QTreeWidgetItem(parent) : new QTreeWidgetItem(tree_);
  item->setText(0, text);
  item->setToolTip(0, tip);
  item->setData(0, kKindRole, int(kind));
  item->setData(0, kIdRole, id);
  return item;
}

void ProjectDock::rebuild() {
  QSet<QString> closed;
  for (int i = 0; i < tree_->topLevelItemCount(); ++i) {
    if (!tree_->topLevelItem(i)->isExpanded()) closed.insert(tree_->topLevelItem(i)->text(0));
  }
  const QString current = tree_->currentItem() ? tree_->currentItem()->data(0, kIdRole).toString() : QString();
  tree_->clear();
  const SessionState& state = workbench_.session();

  auto* models = addRow(nullptr, Group, tr("Models"), {}, tr("Open one with Model › Load, or drop a folder here"));
  for (const ModelEntry& model : state.models)
    addRow(models, ModelRow, model.id, model.id, workbench_.resolvePath(model.path));

  auto* captures = addRow(nullptr, Group, tr("Captures (HDF5)"), {},
                          tr("Keys, values and statistics of a text that ran through a model"));
  for (const CaptureEntry& capture : state.captures) {
    const QString path = workbench_.resolvePath(capture.path);
    auto* row = addRow(captures, CaptureRow, tr("%1, %2 tokens").arg(QFileInfo(path).fileName()).arg(capture.tokens),
                       capture.id, path);
    for (int layer = 0; layer < layers_.value(capture.id); ++layer) {
      auto* child = addRow(row, LayerRow, tr("layer %1").arg(layer, 2, 10, QLatin1Char('0')), capture.id,
                           tr("Show this layer in all linked views"));
      child->setData(0, kLayerRole, layer);
    }
  }

  auto* variants = addRow(nullptr, Group, tr("Variants"), {}, tr("A model with a weight setup and a KV setup"));
  for (const VariantEntry& variant : state.variants) {
    const QString setup = QStringList{variant.weights, variant.kv}.join(QLatin1Char(' ')).trimmed();
    const Selection& chosen = state.selection;
    const QString mark = variant.id == chosen.variantA   ? tr("A  ")
                         : variant.id == chosen.variantB ? tr("B  ")
                                                         : QString();
    QString tip = tr("%1: %2").arg(variant.modelId, setup.isEmpty() ? tr("full precision") : setup);
    if (const auto note = workbench_.calibrationNote(variant.id)) tip += u'\n' + note->line();
    addRow(variants, VariantRow, mark + variant.name, variant.id, tip);
  }

  auto* results =
      addRow(nullptr, Group, tr("Results"), {}, tr("Perplexity, KL divergence and agreement of evaluated variants"));
  if (QFileInfo::exists(workbench_.resultsFile())) {
    addRow(results, ResultsRow, QFileInfo(workbench_.resultsFile()).fileName(), {}, workbench_.resultsFile());
  }

  auto* pins = addRow(nullptr, Group, tr("Pins and notes"), {}, tr("Press P in a view to pin a value"));
  for (qsizetype i = 0; i < state.pins.size(); ++i) {
    const PinEntry& pin = state.pins[i];
    addRow(pins, PinRow, tr("%1. %2  %3").arg(i + 1).arg(pin.text, pin.value), QString::number(i),
           tr("Pinned in %1").arg(pin.viewId));
  }
  addRow(pins, NotesRow, state.notes.isEmpty() ? tr("Write notes...") : state.notes.section(QLatin1Char('\n'), 0, 0),
         {}, state.notes);

  for (int i = 0; i < tree_->topLevelItemCount(); ++i) {
    QTreeWidgetItem* group = tree_->topLevelItem(i);
    group->setExpanded(!closed.contains(group->text(0)));
    for (int k = 0; k < group->childCount(); ++k) {
      if (!current.isEmpty() && group->child(k)->data(0, kIdRole).toString() == current)
        tree_->setCurrentItem(group->child(k));
    }
  }
}

void ProjectDock::fillLayers(const QString& captureId) {
  workbench_.jobs().compute(
      tr("List %1").arg(captureId), QStringLiteral("project"), JobLane::Interactive,
      [this, captureId](const JobContext& job) { return workbench_.openCapture(captureId, job)->info().layers; }, this,
      [this, captureId](std::int64_t layers) {
        layers_[captureId] = int(layers);
        rebuild();
      },
      {});
}

QString ProjectDock::selected(Kind kind) const {
  const QTreeWidgetItem* item = tree_->currentItem();
  return item && item->data(0, kKindRole).toInt() == kind ? item->data(0, kIdRole).toString() : QString();
}
QString ProjectDock::selectedVariant() const { return selected(VariantRow); }
QString ProjectDock::selectedModel() const { return selected(ModelRow); }
QString ProjectDock::selectedCapture() const { return selected(CaptureRow); }

void ProjectDock::activated(QTreeWidgetItem* item) {
  const QString id = item->data(0, kIdRole).toString();
  SelectionHub& hub = workbench_.selection();
  switch (Kind(item->data(0, kKindRole).toInt())) {
    case CaptureRow:
      hub.edit([&](Selection& s) { s.captureA = id; });
      break;
    case LayerRow:
      hub.edit([&](Selection& s) {
        s.captureA = id;
        s.layer = item->data(0, kLayerRole).toInt();
      });
      break;
    case VariantRow:
      hub.edit([&](Selection& s) { s.variantB = id; });
      break;
    case ModelRow:
      Q_EMIT actionRequested(QStringLiteral("model.properties"));
      break;
    case ResultsRow:
      Q_EMIT actionRequested(QStringLiteral("view.add.results"));
      break;
    case PinRow: {
      const int index = id.toInt();
      if (index >= workbench_.session().pins.size()) break;
      const PinEntry pin = workbench_.session().pins[index];
      hub.edit([&](Selection& s) {
        s.layer = std::max(0, pin.layer);
        s.kvHead = std::max(0, pin.head);
        s.channelBegin = pin.channel;
        s.channelEnd = pin.channel < 0 ? -1 : pin.channel + 1;
        s.tokenBegin = pin.token;
        s.tokenEnd = pin.token < 0 ? -1 : pin.token + 1;
      });
      Q_EMIT actionRequested(QStringLiteral("view.add.") + pin.viewId);
      break;
    }
    case NotesRow: {
      bool ok = false;
      const QString text = QInputDialog::getMultiLineText(this, tr("Notes"), tr("Notes of this session"),
                                                          workbench_.session().notes, &ok);
      if (ok) workbench_.document().edit(tr("Edit notes"), [&](SessionState& state) { state.notes = text; });
      break;
    }
    case Group:
      break;
  }
}

void ProjectDock::showMenu(const QPoint& position) {
  QTreeWidgetItem* item = tree_->itemAt(position);
  if (!item) return;
  tree_->setCurrentItem(item);
  const QString id = item->data(0, kIdRole).toString();
  SelectionHub& hub = workbench_.selection();
  QMenu menu(this);
  const auto request = [&](const QString& text, const char* action) {
    menu.addAction(text, this, [this, action] { Q_EMIT actionRequested(QLatin1String(action)); });
  };
  switch (Kind(item->data(0, kKindRole).toInt())) {
    case ModelRow:
      request(tr("Capture KV..."), "capture.kv");
      request(tr("New plan..."), "quantize.new");
      request(tr("Properties"), "model.properties");
      break;
    case CaptureRow:
      menu.addAction(tr("Show as A"), this, [&hub, id] { hub.edit([&](Selection& s) { s.captureA = id; }); });
      menu.addAction(tr("Show as B"), this, [&hub, id] { hub.edit([&](Selection& s) { s.captureB = id; }); });
      request(tr("Verify file"), "capture.verify");
      menu.addAction(tr("Remove from session"), this, [this, id] {
        workbench_.document().edit(tr("Remove capture"), [&](SessionState& state) {
          state.captures.removeIf([&](const CaptureEntry& capture) { return capture.id == id; });
        });
      });
      break;
    case VariantRow:
      menu.addAction(tr("Compare as A"), this, [&hub, id] { hub.edit([&](Selection& s) { s.variantA = id; }); });
      menu.addAction(tr("Compare as B"), this, [&hub, id] { hub.edit([&](Selection& s) { s.variantB = id; }); });
      request(tr("Change..."), "quantize.change");
      request(tr("Layer by layer..."), "quantize.overrides");
      request(tr("Evaluate..."), "compare.evaluate");
      menu.addAction(tr("Remove"), this, [this, id] { workbench_.removeVariant(id); });
      break;
    case PinRow:
      menu.addAction(tr("Remove pin"), this, [this, index = id.toInt()] {
        workbench_.document().edit(tr("Remove pin"), [&](SessionState& state) {
          if (index < state.pins.size()) state.pins.removeAt(index);
        });
      });
      break;
    default:
      break;
  }
  if (!menu.isEmpty()) menu.exec(tree_->viewport()->mapToGlobal(position));
}

}  // namespace qs
