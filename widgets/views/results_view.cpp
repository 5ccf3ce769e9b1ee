#include "widgets/views/results_view.h"

#include <QCheckBox>
#include <QComboBox>
#include <QGroupBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QPushButton>
#include <QSplitter>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>

#include "widgets/models/published_model.h"
#include "widgets/models/results_model.h"
#include "widgets/views/pareto_view.h"

namespace qs {

ResultsView::ResultsView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("results"), tr("Results"), hub, parent), model_(std::make_unique<ResultsModel>()) {
  QBoxLayout* row = controlsLayout();
  const auto combo = [&](const QString& name, const QString& accessible, const QString& tip) {
    auto* box = new QComboBox(this);
    box->setObjectName(name);
    box->setAccessibleName(accessible);
    box->setToolTip(tip);
    row->addWidget(box);
    return box;
  };
  task_ = combo(QStringLiteral("results_task"), tr("Quality"), tr("Metric on the vertical axis of the plot"));
  cost_ = combo(QStringLiteral("results_cost"), tr("Cost"), tr("Cost on the horizontal axis of the plot"));
  cost_->addItems({tr("KV bits"), tr("Weight bits"), tr("KV memory [MiB]"), tr("Weights memory [MiB]")});
  mixed_ = new QCheckBox(tr("Compare across protocols"), this);
  mixed_->setObjectName(QStringLiteral("results_mixed"));
  mixed_->setToolTip(tr(
      "Shows differences between runs of different protocols, marked with a warning. What differs is in the tool tip"));
  row->addWidget(mixed_);
  published_shown_ = new QCheckBox(tr("Published numbers"), this);
  published_shown_->setObjectName(QStringLiteral("results_published_shown"));
  published_shown_->setToolTip(
      tr("What papers and repositories report of the methods above, in a table of its own; never in the plot"));
  published_shown_->setChecked(true);
  row->addWidget(published_shown_);
  auto* baseline = new QPushButton(tr("Set as baseline"), this);
  baseline->setObjectName(QStringLiteral("results_baseline"));
  baseline->setToolTip(tr("Differences refer to the selected row"));
  row->addWidget(baseline);
  auto* evaluate = new QPushButton(tr("Evaluate…"), this);
  evaluate->setObjectName(QStringLiteral("results_evaluate"));
  evaluate->setToolTip(tr("Evaluate the variants of this session"));
  row->addWidget(evaluate);
  row->addStretch(1);

  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(4, 0, 4, 4);
  warning_ = new QLabel(body());
  warning_->setObjectName(QStringLiteral("results_warning"));
  warning_->setWordWrap(true);
  warning_->hide();
  column->addWidget(warning_);
  auto* split = new QSplitter(Qt::Vertical, body());
  split->setObjectName(QStringLiteral("results_split"));
  table_ = new QTableView(split);
  table_->setObjectName(QStringLiteral("results_table"));
  table_->setAccessibleName(tr("Runs"));
  table_->setToolTip(tr("One run a row; Enter selects its variant"));
  table_->setModel(model_.get());
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setAlternatingRowColors(true);
  table_->verticalHeader()->setDefaultSectionSize(table_->fontMetrics().lineSpacing() + 8);
  table_->setTabKeyNavigation(false);
  published_box_ = new QGroupBox(tr("Published, not ours: other models, texts and programs"), split);
  published_box_->setObjectName(QStringLiteral("results_published_box"));
  auto* published_column = new QVBoxLayout(published_box_);
  published_column->setContentsMargins(4, 4, 4, 4);
  published_model_ = new PublishedModel(this);
  published_table_ = new QTableView(published_box_);
  published_table_->setObjectName(QStringLiteral("results_published"));
  published_table_->setAccessibleName(tr("Published numbers of the methods"));
  published_table_->setToolTip(tr("Source and setting are in the tool tip of a row; grey rows were not checked"));
  published_table_->setModel(published_model_);
  published_table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  published_table_->setTabKeyNavigation(false);
  published_table_->verticalHeader()->hide();
  published_table_->verticalHeader()->setDefaultSectionSize(table_->fontMetrics().lineSpacing() + 8);
  published_column->addWidget(published_table_);
  published_box_->hide();
  pareto_ = new ParetoView(split);
  split->addWidget(table_);
  split->addWidget(published_box_);
  split->addWidget(pareto_);
  split->setSizes({260, 160, 360});
  column->addWidget(split, 1);

  connect(task_, &QComboBox::activated, this, [this] {
    showPareto();
    Q_EMIT settingsChanged();
  });
  connect(cost_, &QComboBox::activated, this, [this] {
    showPareto();
    Q_EMIT settingsChanged();
  });
  connect(mixed_, &QCheckBox::toggled, this, [this](bool on) {
    model_->setMixedProtocolsShown(on);
    showWarning();
    showPareto();
    Q_EMIT settingsChanged();
  });
  connect(published_shown_, &QCheckBox::toggled, this, [this] {
    showPublished();
    Q_EMIT settingsChanged();
  });
  connect(baseline, &QPushButton::clicked, this, [this] {
    if (!table_->currentIndex().isValid()) return;
    model_->setBaseline(table_->currentIndex().row());
    showWarning();
    showPareto();
  });
  connect(evaluate, &QPushButton::clicked, this, &ResultsView::evaluateRequested);
  connect(table_, &QTableView::activated, this, [this](const QModelIndex& index) {
    Q_EMIT variantActivated(
        QString::fromStdString(model_->reports()[static_cast<std::size_t>(index.row())].variant.text()));
  });
  connect(pareto_, &PlotView::pointHovered, this,
          [this](int, int, const QString& text) { Q_EMIT readoutChanged(text); });
  setState(ViewState::Empty, tr("No results yet. Evaluate the variants of this session to compare them."),
           QStringLiteral("compare.evaluate"), tr("Evaluate…"));
}

ResultsView::~ResultsView() {
  table_->setModel(nullptr);
  published_table_->setModel(nullptr);
}

void ResultsView::setPublished(std::vector<PublishedNumber> numbers, std::vector<MethodInfo> methods) {
  published_ = std::move(numbers);
  methods_ = std::move(methods);
  showPublished();
}

void ResultsView::showPublished() {
  std::vector<PublishedNumber> rows;
  for (const MethodInfo& method : methods_) {
    const bool kv = method.family == MethodFamily::Kv;
    std::string line;  // of the first run with this method: the rows nearest to it come first
    for (const EvalReport& report : model_->reports()) {
      const std::string& side = kv ? report.variant.kv : report.variant.weights;
      if (line.empty() && side.substr(0, side.find_first_of(":+")) == method.id) line = side;
    }
    if (line.empty()) continue;
    for (PublishedNumber& number : nearest_published(published_, method, line)) rows.push_back(std::move(number));
  }
  published_box_->setVisible(published_shown_->isChecked() && !rows.empty());
  published_model_->setNumbers(std::move(rows));
  published_table_->resizeColumnsToContents();
}

void ResultsView::setReports(std::vector<EvalReport> reports) {
  const QString before = task_->currentData().toString();
  model_->setReports(std::move(reports));
  task_->clear();
  for (const ResultsModel::TaskColumn& column : model_->tasks()) {
    task_->addItem(metricTitle(column.metric), QString::fromStdString(column.task));
  }
  task_->setCurrentIndex(std::max(0, task_->findData(before)));
  table_->resizeColumnsToContents();
  showWarning();
  showPareto();
  showPublished();
  if (model_->rowCount() > 0) setState(ViewState::Ready);
}

void ResultsView::showWarning() {
  const bool differs = model_->anyProtocolDiffers();
  mixed_->setVisible(differs);
  warning_->setVisible(differs);
  if (!differs) return;
  QStringList reasons;
  for (int row = 0; row < model_->rowCount(); ++row) {
    for (const QString& reason : model_->protocolDifferences(row)) {
      if (!reasons.contains(reason)) reasons << reason;
    }
  }
  warning_->setText(tr("⚠ Some runs were measured under another protocol than the baseline: %1. They are neither "
                       "differenced nor joined by one front.")
                        .arg(reasons.mid(0, 4).join(QStringLiteral("; "))));
  QPalette palette = warning_->palette();
  palette.setColor(QPalette::WindowText, FigureStyle::screen(*this).warning);
  warning_->setPalette(palette);
}

void ResultsView::showPareto() {
  QVector<ParetoView::Point> points;
  const std::string task = task_->currentData().toString().toStdString();
  std::string metric;
  for (const ResultsModel::TaskColumn& column : model_->tasks()) {
    if (column.task == task) metric = column.metric;
  }
  const bool agreement = metric == "top1_agreement";
  bool zero = false;
  for (int row = 0; row < model_->rowCount(); ++row) {
    const TaskResult* result = model_->result(row, task);
    if (!result) continue;
    const EvalReport& report = model_->reports()[static_cast<std::size_t>(row)];
    const double costs[] = {report.kv_bits, report.weight_bits, static_cast<double>(report.memory.kv_bytes) / 1048576.0,
                            static_cast<double>(report.memory.weights_bytes) / 1048576.0};
    const double loss = agreement ? 1.0 - result->value : result->value;
    zero |= loss <= 0.0;
    QString name = QString::fromStdString(
        report.variant.kv.empty() && report.variant.weights.empty() ? std::string() : report.variant.weights);
    if (!report.variant.kv.empty())
      name += (name.isEmpty() ? QString() : QStringLiteral(" + ")) + QString::fromStdString(report.variant.kv);
    if (name.isEmpty()) name = tr("full precision");
    points.append(
        {name, costs[std::clamp(cost_->currentIndex(), 0, 3)], loss, result->standard_error,
         QString::fromStdString(report.fingerprint).left(8) + u' ' + QString::fromStdString(report.variant.model)});
  }
  const QString title = agreement ? tr("1 − top-1 agreement") : metricTitle(metric);
  pareto_->setPoints(points, cost_->currentText(), title, metric == "kl_divergence_nats");
}

void ResultsView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  painter.setFont(style.font);
  const QFontMetricsF metrics(style.font);
  const double line = metrics.height() * 1.35;
  const int columns = ResultsModel::kFixedBefore + 2 * static_cast<int>(model_->tasks().size());
  const int rows = model_->rowCount();
  const double table_height = std::min(target.height() * 0.5, line * (rows + 1) + 6);
  QVector<double> widths(columns);
  double total = 0.0;
  for (int c = 0; c < columns; ++c) {
    double widest = metrics.horizontalAdvance(model_->headerData(c, Qt::Horizontal).toString());
    for (int r = 0; r < rows; ++r)
      widest = std::max(widest, metrics.horizontalAdvance(model_->index(r, c).data().toString()));
    widths[c] = widest + 10;
    total += widths[c];
  }
  const double shrink = std::min(1.0, target.width() / std::max(1.0, total));
  painter.save();
  painter.setClipRect(QRectF(target.left(), target.top(), target.width(), table_height));
  double y = target.top() + 2;
  for (int r = -1; r < rows; ++r) {
    double x = target.left();
    for (int c = 0; c < columns; ++c) {
      const QString text =
          r < 0 ? model_->headerData(c, Qt::Horizontal).toString() : model_->index(r, c).data().toString();
      const bool warned = r >= 0 && model_->index(r, c).data(ResultsModel::WarningRole).toBool();
      painter.setPen(warned ? style.warning : r < 0 ? style.muted : style.foreground);
      const QRectF cell(x + 3, y, widths[c] * shrink - 6, line);
      painter.drawText(cell, (c == 0 ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter,
                       metrics.elidedText(text, Qt::ElideMiddle, cell.width()));
      x += widths[c] * shrink;
    }
    y += line;
    if (r < 0) {
      painter.setPen(QPen(style.muted, style.lineWidth));
      painter.drawLine(QPointF(target.left(), y), QPointF(target.left() + total * shrink, y));
    }
  }
  painter.restore();
  pareto_->paint(
      painter,
      QRectF(target.left(), target.top() + table_height + 6, target.width(), target.height() - table_height - 6),
      style);
  painter.restore();
}

QAbstractTableModel* ResultsView::dataTable() { return model_.get(); }

QString ResultsView::accessibleSummary() const {
  return tr("%n runs", nullptr, model_->rowCount()) + QStringLiteral("; ") + pareto_->spec().title;
}

QJsonObject ResultsView::saveSettings() const {
  return {{QStringLiteral("task"), task_->currentData().toString()},
          {QStringLiteral("cost"), cost_->currentIndex()},
          {QStringLiteral("mixed"), mixed_->isChecked()},
          {QStringLiteral("published"), published_shown_->isChecked()}};
}

void ResultsView::restoreSettings(const QJsonObject& settings) {
  const QSignalBlocker quiet(this);
  const int task = task_->findData(settings.value(QStringLiteral("task")).toString());
  if (task >= 0) task_->setCurrentIndex(task);
  cost_->setCurrentIndex(std::clamp(settings.value(QStringLiteral("cost")).toInt(), 0, cost_->count() - 1));
  mixed_->setChecked(settings.value(QStringLiteral("mixed")).toBool());
  published_shown_->setChecked(settings.value(QStringLiteral("published")).toBool(true));
  showPareto();
}

}  // namespace qs
