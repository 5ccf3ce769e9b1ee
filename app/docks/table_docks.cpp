#include "app/docks/table_docks.h"

#include <QAbstractTableModel>
#include <QApplication>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QScrollBar>
#include <QSplitter>
#include <QStyledItemDelegate>
#include <QTableView>
#include <QVBoxLayout>

#include "app/job_runner.h"
#include "widgets/models/jobs_model.h"
#include "widgets/models/log_model.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

QTableView* make_table(const QString& objectName, const QString& accessibleName, QWidget* parent) {
  auto* table = new QTableView(parent);
  table->setObjectName(objectName);
  table->setAccessibleName(accessibleName);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->setAlternatingRowColors(true);
  table->setShowGrid(false);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(table->fontMetrics().height() + 6);
  table->horizontalHeader()->setHighlightSections(false);
  table->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
  table->setTabKeyNavigation(false);
  return table;
}

class ProgressDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    QStyleOptionProgressBar bar;
    bar.rect = option.rect.adjusted(2, 3, -2, -3);
    bar.minimum = 0;
    bar.maximum = 100;
    bar.progress = qRound(100 * index.data(JobsModel::FractionRole).toDouble());
    bar.text = QString::number(bar.progress) + QStringLiteral(" %");
    bar.textVisible = true;
    bar.palette = option.palette;
    bar.state = option.state | QStyle::State_Horizontal;
    QApplication::style()->drawControl(QStyle::CE_ProgressBar, &bar, painter);
  }
};

JobRow to_row(const JobStatus& status) {
  return {status.id,       status.title, status.place,     static_cast<JobRow::State>(status.state),
          status.fraction, status.step,  status.elapsedMs, status.leftMs,
          status.message,  status.detail};
}
static_assert(int(JobRow::State::Queued) == int(JobState::Queued) &&
              int(JobRow::State::Cancelled) == int(JobState::Cancelled));

}  // namespace

JobsDock::JobsDock(JobRunner& jobs, QWidget* parent)
    : QDockWidget(tr("Jobs"), parent), jobs_(jobs), model_(new JobsModel(this)) {
  setObjectName(QStringLiteral("dock.jobs"));
  auto* content = new QWidget(this);
  auto* layout = new QHBoxLayout(content);
  layout->setContentsMargins(0, 0, 0, 0);
  table_ = make_table(QStringLiteral("jobsTable"), tr("Jobs"), content);
  table_->setModel(model_);
  table_->setItemDelegateForColumn(JobsModel::Progress, new ProgressDelegate(table_));
  table_->setColumnWidth(JobsModel::Title, 260);
  table_->setColumnWidth(JobsModel::Step, 220);
  table_->horizontalHeader()->setStretchLastSection(true);
  layout->addWidget(table_, 1);
  auto* buttons = new QVBoxLayout;
  buttons->setContentsMargins(4, 4, 4, 4);
  const auto button = [&](const QString& name, const QString& text, const QString& tip) {
    auto* result = new QPushButton(text, content);
    result->setObjectName(name);
    result->setToolTip(tip);
    result->setAccessibleName(tip);
    buttons->addWidget(result);
    return result;
  };
  connect(button(QStringLiteral("jobsCancel"), tr("Cancel"), tr("Cancel the chosen job, or the running one")),
          &QPushButton::clicked, this, [this] {
            if (const quint64 id = currentJob()) jobs_.cancel(id);
          });
  connect(button(QStringLiteral("jobsClear"), tr("Clear"), tr("Remove ended jobs from this list")),
          &QPushButton::clicked, model_, &JobsModel::clearEnded);
  buttons->addStretch(1);
  layout->addLayout(buttons);
  setWidget(content);
  connect(&jobs_, &JobRunner::jobChanged, this, [this](const JobStatus& status) {
    // Reads for views come and go many times a second; only slow or failed ones are worth a row.
    if (status.lane == JobLane::Interactive && status.state != JobState::Failed && status.elapsedMs < 500) return;
    model_->update(to_row(status));
  });
}

quint64 JobsDock::currentJob() const {
  const QModelIndex current = table_->currentIndex();
  const auto live = [](const JobRow& row) {
    return row.state == JobRow::State::Running || row.state == JobRow::State::Queued;
  };
  if (current.isValid() && live(model_->at(current.row()))) return model_->at(current.row()).id;
  for (const JobStatus& status : jobs_.jobs()) {
    if (status.state == JobState::Running && status.lane == JobLane::Compute) return status.id;
  }
  return 0;
}

LogDock::LogDock(QWidget* parent) : QDockWidget(tr("Log"), parent), model_(new LogModel(this)) {
  setObjectName(QStringLiteral("dock.log"));
  auto* split = new QSplitter(Qt::Horizontal, this);
  table_ = make_table(QStringLiteral("logTable"), tr("Log"), split);
  table_->setModel(model_);
  table_->horizontalHeader()->setStretchLastSection(true);
  detail_ = new QPlainTextEdit(split);
  detail_->setObjectName(QStringLiteral("logDetail"));
  detail_->setAccessibleName(tr("Details of the chosen line"));
  detail_->setReadOnly(true);
  detail_->setPlaceholderText(tr("Details of the chosen line"));
  split->addWidget(table_);
  split->addWidget(detail_);
  split->setSizes({700, 300});
  setWidget(split);
  connect(table_->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& index) {
    detail_->setPlainText(index.siblingAtColumn(LogModel::Text).data().toString() + QStringLiteral("\n\n") +
                          index.data(LogModel::DetailRole).toString());
  });
  connect(model_, &QAbstractItemModel::rowsInserted, this, [this] { table_->scrollToBottom(); });
}

DataTableDock::DataTableDock(QWidget* parent) : QDockWidget(tr("Data table"), parent) {
  setObjectName(QStringLiteral("dock.table"));
  table_ = make_table(QStringLiteral("dataTable"), tr("Numbers behind the active view"), this);
  table_->setSelectionBehavior(QAbstractItemView::SelectItems);
  setWidget(table_);
}

void DataTableDock::setView(ViewBase* view) {
  table_->setModel(view ? view->dataTable() : nullptr);
  setWindowTitle(view ? tr("Data table: %1").arg(view->title()) : tr("Data table"));
}

QString DataTableDock::selectionAsText() const {
  const QAbstractItemModel* model = table_->model();
  if (!model) return {};
  int top = 0, left = 0, bottom = model->rowCount() - 1, right = model->columnCount() - 1;
  const QItemSelection chosen = table_->selectionModel()->selection();
  if (!chosen.isEmpty() && chosen.indexes().size() > 1) {
    top = chosen.first().top(), left = chosen.first().left(), bottom = chosen.first().bottom(),
    right = chosen.first().right();
  }
  QString text;
  for (int column = left; column <= right; ++column) {
    text +=
        model->headerData(column, Qt::Horizontal).toString() + (column < right ? QLatin1Char('\t') : QLatin1Char('\n'));
  }
  for (int row = top; row <= bottom; ++row) {
    for (int column = left; column <= right; ++column) {
      text += model->index(row, column).data().toString() + (column < right ? QLatin1Char('\t') : QLatin1Char('\n'));
    }
  }
  return text;
}

}  // namespace qs
