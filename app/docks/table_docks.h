#pragma once

#include <QDockWidget>

class QAbstractItemModel;
class QLabel;
class QPlainTextEdit;
class QTableView;

namespace qs {

class JobRunner;
class JobsModel;
class LogModel;
class ViewBase;
struct JobStatus;

/// Jobs with progress, time left and a way to cancel them.
class JobsDock : public QDockWidget {
  Q_OBJECT
 public:
  explicit JobsDock(JobRunner& jobs, QWidget* parent = nullptr);
  quint64 currentJob() const;  ///< the chosen row's, else the running one's; 0 when there is none

 private:
  JobRunner& jobs_;
  JobsModel* model_;
  QTableView* table_;
};

/// The log with the details of the chosen line.
class LogDock : public QDockWidget {
  Q_OBJECT
 public:
  explicit LogDock(QWidget* parent = nullptr);
  LogModel& model() { return *model_; }

 private:
  LogModel* model_;
  QTableView* table_;
  QPlainTextEdit* detail_;
};

/// The numbers behind the active view.
class DataTableDock : public QDockWidget {
  Q_OBJECT
 public:
  explicit DataTableDock(QWidget* parent = nullptr);
  void setView(ViewBase* view);
  QString selectionAsText() const;  ///< the chosen cells, else the whole table, tab-separated with headers
  QTableView* table() const { return table_; }

 private:
  QTableView* table_;
};

}  // namespace qs
