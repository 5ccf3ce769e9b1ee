#pragma once

#include <QAbstractTableModel>
#include <optional>
#include <vector>

#include "backend/types/eval_result.h"

namespace qs {

/// Runs as rows: variant, effective bits, each metric with its standard error and its paired difference to the
/// baseline, memory, fingerprint. A difference between runs of different protocols is not computed: its cell names what
/// differs. After setMixedProtocolsShown(true) the plain difference is shown with a warning sign.
class ResultsModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Role { NumberRole = Qt::UserRole + 1, WarningRole, FingerprintRole };
  explicit ResultsModel(QObject* parent = nullptr);

  void setReports(std::vector<EvalReport> reports);
  const std::vector<EvalReport>& reports() const { return reports_; }
  /// Row that differences refer to; by default the first full-precision one.
  void setBaseline(int row);
  int baseline() const { return baseline_; }
  void setMixedProtocolsShown(bool shown);
  bool mixedProtocolsShown() const { return mixed_shown_; }

  struct TaskColumn {
    std::string task, metric;
  };
  const std::vector<TaskColumn>& tasks() const { return tasks_; }
  const TaskResult* result(int row, const std::string& task) const;
  /// Difference of `row` to the baseline; empty when the protocols, models or windows differ, or a side has no such
  /// task.
  std::optional<PairedDifference> difference(int row, const std::string& task) const;
  /// Why rows are not comparable with the baseline: "window: 512 against 2048". Empty when they are.
  QStringList protocolDifferences(int row) const;
  bool anyProtocolDiffers() const;

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

  static constexpr int kFixedBefore = 3;  ///< variant, KV bits, weight bits
  int metricColumn(int task) const { return kFixedBefore + 2 * task; }

 private:
  QVariant number(int row, int column) const;
  QString text(int row, int column) const;
  std::vector<EvalReport> reports_;
  std::vector<TaskColumn> tasks_;
  int baseline_ = -1;
  bool mixed_shown_ = false;
};

QString metricTitle(const std::string& metric);  ///< "Perplexity", "KL divergence [nats]"

}  // namespace qs
