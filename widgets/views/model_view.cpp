#include "widgets/views/model_view.h"

#include <QComboBox>
#include <QHeaderView>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QScrollArea>
#include <QSplitter>
#include <QTreeView>
#include <QVBoxLayout>
#include <cmath>
#include <functional>

#include "widgets/models/dataset_tree_model.h"
#include "widgets/models/plain_table_model.h"
#include "widgets/paint/color_map.h"

namespace qs {
namespace {

/// All rows in the order of the tree; only open branches when `open` says so.
void walk(const QAbstractItemModel& model, const QModelIndex& parent, int depth,
          const std::function<bool(const QModelIndex&)>& open,
          const std::function<void(const QModelIndex&, int)>& visit) {
  for (int row = 0; row < model.rowCount(parent); ++row) {
    const QModelIndex index = model.index(row, 0, parent);
    visit(index, depth);
    if (open(index)) walk(model, index, depth + 1, open, visit);
  }
}

int depth_of(QModelIndex index) {
  int depth = 0;
  for (index = index.parent(); index.isValid(); index = index.parent()) ++depth;
  return depth;
}

}  // namespace

ModelView::ModelView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("model"), tr("Model"), hub, parent), table_(std::make_unique<PlainTableModel>()) {
  QBoxLayout* row = controlsLayout();
  models_ = addChoice("model_choice", tr("&Model"), tr("Model shown"));
  statistics_ = addChoice("model_statistic", tr("&Colour by"), tr("Statistic that colours the last column"));
  state_text_ = new QLabel(this);
  row->addWidget(state_text_);
  row->addStretch(1);

  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(4, 0, 4, 4);
  auto* splitter = new QSplitter(Qt::Horizontal, body());
  splitter->setObjectName(QStringLiteral("model_splitter"));
  column->addWidget(splitter);
  tree_model_ = new ModuleTreeModel(this);
  tree_ = new QTreeView(splitter);
  tree_->setObjectName(QStringLiteral("model_tree"));
  tree_->setAccessibleName(tr("Modules of the model"));
  tree_->setModel(tree_model_);
  tree_->setUniformRowHeights(true);
  tree_->setAlternatingRowColors(true);
  tree_->setSelectionBehavior(QAbstractItemView::SelectRows);
  tree_->header()->setStretchLastSection(true);
  auto* scroll = new QScrollArea(splitter);
  scroll->setObjectName(QStringLiteral("model_card_scroll"));
  scroll->setAccessibleName(tr("Model card"));
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidgetResizable(true);
  card_ = new ModelCard(scroll);
  card_->layout()->setContentsMargins(8, 4, 8, 4);
  static_cast<QVBoxLayout*>(card_->layout())->addStretch(1);
  scroll->setWidget(card_);
  splitter->addWidget(tree_);
  splitter->addWidget(scroll);
  splitter->setStretchFactor(0, 3);
  splitter->setStretchFactor(1, 2);
  splitter->setSizes({620, 420});
  setFocusProxy(tree_);

  connect(models_, &QComboBox::activated, this, [this] {
    Q_EMIT modelChosen(modelId());
    Q_EMIT settingsChanged();
  });
  connect(statistics_, &QComboBox::activated, this, [this] {
    wanted_statistic_ = statistic();
    Q_EMIT statisticChosen(statistic());
    Q_EMIT settingsChanged();
  });
  connect(card_, &ModelCard::forecastWanted, this, &ModelView::forecastWanted);
  connect(tree_->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& current) {
    const double value = current.data(ModuleTreeModel::ValueRole).toDouble();
    QString text = current.data(ModuleTreeModel::PathRole).toString();
    if (std::isfinite(value)) text += QStringLiteral("  %1 %2").arg(tree_model_->column().title).arg(value, 0, 'g', 6);
    Q_EMIT readoutChanged(text);
  });
  connect(tree_, &QTreeView::activated, this, [this](const QModelIndex& index) {
    const QString linear = index.siblingAtColumn(0).data(ModuleTreeModel::LinearRole).toString();
    if (!linear.isEmpty()) Q_EMIT linearActivated(linear);
  });
  setState(ViewState::Empty, tr("No model is open."), QStringLiteral("model.load"), tr("Open a model…"));
}

ModelView::~ModelView() = default;

QString ModelView::modelId() const { return models_->currentData().toString(); }
QString ModelView::statistic() const { return statistics_->currentData().toString(); }

void ModelView::setModels(const QStringList& ids, const QString& current) {
  models_->clear();
  for (const QString& id : ids) models_->addItem(id, id);
  models_->setCurrentIndex(std::max(0, models_->findData(current)));
}

void ModelView::setInfo(const ModelInfo& info, const ModuleInfo& modules) {
  card_->setInfo(info);
  tree_model_->setModules(modules);
  fitView();
  fillTable();
  setState(ViewState::Ready);
}

void ModelView::setForecast(const MemoryForecast& forecast) { card_->setForecast(forecast); }

void ModelView::setStatistics(const QVector<Statistic>& statistics) {
  known_ = statistics;
  const QString chosen = wanted_statistic_.isEmpty() ? statistic() : wanted_statistic_;
  statistics_->clear();
  for (const Statistic& known : statistics) {
    statistics_->addItem(known.title, known.id);
    statistics_->setItemData(statistics_->count() - 1, known.help, Qt::ToolTipRole);
  }
  statistics_->setCurrentIndex(std::max(0, statistics_->findData(chosen)));
}

void ModelView::setValues(const QString& id, const QHash<QString, double>& values) {
  if (id != statistic()) return;
  for (const Statistic& known : known_) {
    if (known.id != id) continue;
    QSet<QString> open;
    for (const QModelIndex& index : shownRows())
      if (tree_->isExpanded(index)) open.insert(index.data(ModuleTreeModel::PathRole).toString());
    tree_model_->setColumn({known.title, known.unit, known.help, values, known.logarithmic});
    walk(
        *tree_model_, {}, 0, [](const QModelIndex&) { return true; },
        [&](const QModelIndex& index, int) {
          if (open.contains(index.data(ModuleTreeModel::PathRole).toString())) tree_->expand(index);
        });
  }
  fillTable();
}

void ModelView::setStatisticState(const QString& text) { state_text_->setText(text); }

void ModelView::fitView() {
  // Open down to the layers, closed below them, so that a layer is a line with the worst of its parts.
  tree_->collapseAll();
  QModelIndex only;
  while (tree_model_->rowCount(only) == 1) {
    only = tree_model_->index(0, 0, only);
    tree_->expand(only);
  }
  for (int row = 0; row < tree_model_->rowCount(only); ++row) {
    const QModelIndex index = tree_model_->index(row, 0, only);
    if (tree_model_->rowCount(index) <= 256) tree_->expand(index);
  }
  for (int i = 0; i < ModuleTreeModel::Statistic; ++i) tree_->resizeColumnToContents(i);
}

QVector<QModelIndex> ModelView::shownRows() const {
  QVector<QModelIndex> rows;
  walk(
      *tree_model_, {}, 0, [this](const QModelIndex& index) { return tree_->isExpanded(index); },
      [&](const QModelIndex& index, int) { rows.append(index); });
  return rows;
}

void ModelView::fillTable() {
  QVector<PlainTableModel::Row> rows;
  walk(
      *tree_model_, {}, 0, [](const QModelIndex&) { return true; },
      [&](const QModelIndex& index, int) {
        if (tree_model_->rowCount(index) > 0) return;
        const auto text = [&](int column) { return index.siblingAtColumn(column).data().toString(); };
        const double value = index.data(ModuleTreeModel::ValueRole).toDouble();
        rows.append({index.data(ModuleTreeModel::PathRole), text(ModuleTreeModel::Shape), text(ModuleTreeModel::Type),
                     text(ModuleTreeModel::Parameters), text(ModuleTreeModel::Bytes),
                     std::isfinite(value) ? QVariant(value) : QVariant()});
      });
  table_->setTable({tr("Tensor"), tr("Shape"), tr("Type"), tr("Parameters"), tr("Stored"),
                    tree_model_->headerData(ModuleTreeModel::Statistic, Qt::Horizontal).toString()},
                   rows);
}

void ModelView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.setFont(style.font);
  const QFontMetricsF metrics(style.font, painter.device());
  const double line = metrics.height() * 1.25, pad = metrics.averageCharWidth();
  const QVector<QModelIndex> rows = shownRows();
  const double bar_height = 4.0 * line + 20.0;
  const int fit = std::max(1, static_cast<int>((target.height() - bar_height - 2.0 * line) / line));
  const int count = std::min<int>(static_cast<int>(rows.size()), fit);
  card_->bar().paint(painter, QRectF(target.left(), target.top(), target.width(), bar_height), style);

  const double widths[] = {0.34, 0.16, 0.12, 0.13, 0.12, 0.13};
  double y = target.top() + bar_height;
  const auto cell_text = [&](int column, const QString& text, double x, double width) {
    const bool right = column >= ModuleTreeModel::Parameters;
    painter.drawText(QRectF(x + pad / 2.0, y, width - pad, line),
                     (right ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter,
                     metrics.elidedText(text, Qt::ElideMiddle, width - pad));
  };
  painter.setPen(style.foreground);
  double x = target.left();
  for (int column = 0; column < ModuleTreeModel::ColumnTotal; ++column) {
    const double width = widths[column] * target.width();
    cell_text(column, tree_model_->headerData(column, Qt::Horizontal).toString(), x, width);
    x += width;
  }
  y += line;
  painter.setPen(QPen(style.grid, style.lineWidth));
  painter.drawLine(QPointF(target.left(), y), QPointF(target.right(), y));
  for (int i = 0; i < count; ++i) {
    x = target.left();
    for (int column = 0; column < ModuleTreeModel::ColumnTotal; ++column) {
      const double width = widths[column] * target.width();
      const QModelIndex cell = rows[i].siblingAtColumn(column);
      const double indent = column == 0 ? depth_of(rows[i]) * 1.5 * pad : 0.0;
      painter.setPen(style.foreground);
      const double position = cell.data(ModuleTreeModel::PositionRole).toDouble();
      if (column == ModuleTreeModel::Statistic && std::isfinite(position)) {
        const QRgb color = ColorMap::get(MapName::Viridis).color(position);
        painter.fillRect(QRectF(x, y + 0.5, width, line - 1.0), QColor(color));
        painter.setPen(oklab_lightness(color) > 0.6 ? Qt::black : Qt::white);
      }
      cell_text(column, cell.data().toString(), x + indent, width - indent);
      x += width;
    }
    y += line;
  }
  painter.setPen(style.muted);
  if (count < rows.size())
    painter.drawText(QRectF(target.left(), y, target.width(), line), Qt::AlignLeft | Qt::AlignVCenter,
                     tr("and %1 more rows").arg(rows.size() - count));
  painter.restore();
}

QAbstractTableModel* ModelView::dataTable() { return table_.get(); }

QString ModelView::accessibleSummary() const {
  if (!card_->info()) return tr("No model");
  const ModelInfo& info = *card_->info();
  QString text = tr("%1: %2, %3 parameters, %4 layers, stored in %5.")
                     .arg(QString::fromStdString(info.name), QString::fromStdString(info.architecture))
                     .arg(info.parameters)
                     .arg(info.layers)
                     .arg(bytesText(info.bytes));
  if (std::isfinite(tree_model_->highest())) {
    text += QLatin1Char(' ') + tr("%1 from %2 to %3.")
                                   .arg(tree_model_->column().title)
                                   .arg(tree_model_->lowest(), 0, 'g', 4)
                                   .arg(tree_model_->highest(), 0, 'g', 4);
  }
  return text;
}

QJsonObject ModelView::saveSettings() const {
  return {{QStringLiteral("model"), modelId()},
          {QStringLiteral("statistic"), wanted_statistic_.isEmpty() ? statistic() : wanted_statistic_},
          {QStringLiteral("context"), card_->context()},
          {QStringLiteral("dtype"), card_->dtype()}};
}

void ModelView::restoreSettings(const QJsonObject& settings) {
  wanted_statistic_ = settings.value(QStringLiteral("statistic")).toString();
  if (const int index = statistics_->findData(wanted_statistic_); index >= 0) {
    statistics_->setCurrentIndex(index);
    Q_EMIT statisticChosen(wanted_statistic_);
  }
  if (settings.contains(QStringLiteral("context")))
    card_->setContext(settings.value(QStringLiteral("context")).toInt());
  card_->setDtype(settings.value(QStringLiteral("dtype")).toString());
  const QString model = settings.value(QStringLiteral("model")).toString();
  if (const int index = models_->findData(model); index >= 0 && index != models_->currentIndex()) {
    models_->setCurrentIndex(index);
    Q_EMIT modelChosen(model);
  }
}

}  // namespace qs
