#include "widgets/models/results_model.h"

#include <algorithm>
#include <cmath>

#include "analysis/task_difference.h"
#include "backend/types/error.h"
#include "widgets/models/dataset_tree_model.h"

namespace qs {

namespace {

enum After { KvMemory, WeightsMemory, Windows, Seed, Fingerprint, AfterTotal };

QString signedText(double value) {
  return (value > 0 ? QStringLiteral("+") : QString()) + QString::number(value, 'g', 3);
}

/// Value and error with as many decimals as two digits of the error need.
QString withError(double value, double error) {
  if (!(error > 0.0) || !std::isfinite(error)) return QString::number(value, 'g', 6);
  const int decimals = std::clamp(1 - static_cast<int>(std::floor(std::log10(error))), 0, 8);
  return QStringLiteral("%1 ± %2").arg(value, 0, 'f', decimals).arg(error, 0, 'f', decimals);
}

}  // namespace

QString metricTitle(const std::string& metric) {
  if (metric == "perplexity") return ResultsModel::tr("Perplexity");
  if (metric == "kl_divergence_nats") return ResultsModel::tr("KL divergence [nats]");
  if (metric == "top1_agreement") return ResultsModel::tr("Top-1 agreement");
  return QString::fromStdString(metric);
}

ResultsModel::ResultsModel(QObject* parent) : QAbstractTableModel(parent) {}

void ResultsModel::setReports(std::vector<EvalReport> reports) {
  beginResetModel();
  reports_ = std::move(reports);
  tasks_.clear();
  baseline_ = -1;
  for (std::size_t row = 0; row < reports_.size(); ++row) {
    const VariantLabel& label = reports_[row].variant;
    if (baseline_ < 0 && label.weights.empty() && label.kv.empty()) baseline_ = static_cast<int>(row);
    for (const TaskResult& task : reports_[row].tasks) {
      const bool known =
          std::any_of(tasks_.begin(), tasks_.end(), [&](const TaskColumn& c) { return c.task == task.task; });
      if (!known) tasks_.push_back({task.task, task.metric});
    }
  }
  if (baseline_ < 0 && !reports_.empty()) baseline_ = 0;
  endResetModel();
}

void ResultsModel::setBaseline(int row) {
  if (row == baseline_ || row < 0 || row >= rowCount()) return;
  baseline_ = row;
  Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, columnCount() - 1));
}

void ResultsModel::setMixedProtocolsShown(bool shown) {
  mixed_shown_ = shown;
  if (rowCount() > 0) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, columnCount() - 1));
}

const TaskResult* ResultsModel::result(int row, const std::string& task) const {
  if (row < 0 || row >= rowCount()) return nullptr;
  const auto& tasks = reports_[static_cast<std::size_t>(row)].tasks;
  const auto found = std::find_if(tasks.begin(), tasks.end(), [&](const TaskResult& t) { return t.task == task; });
  return found == tasks.end() ? nullptr : &*found;
}

QStringList ResultsModel::protocolDifferences(int row) const {
  QStringList differences;
  if (baseline_ < 0 || row == baseline_) return differences;
  const EvalReport &base = reports_[static_cast<std::size_t>(baseline_)],
                   &other = reports_[static_cast<std::size_t>(row)];
  for (const std::string& text : base.protocol.differences(other.protocol)) differences << QString::fromStdString(text);
  const bool same_model = base.model_fingerprint.empty() || other.model_fingerprint.empty()
                              ? base.variant.model == other.variant.model
                              : base.model_fingerprint == other.model_fingerprint;
  if (!same_model) {
    differences << tr("model: %1 against %2")
                       .arg(QString::fromStdString(base.variant.model), QString::fromStdString(other.variant.model));
  }
  if (differences.isEmpty() && base.fingerprint != other.fingerprint) {
    differences << tr("fingerprint: %1 against %2")
                       .arg(QString::fromStdString(base.fingerprint), QString::fromStdString(other.fingerprint));
  }
  return differences;
}

bool ResultsModel::anyProtocolDiffers() const {
  for (int row = 0; row < rowCount(); ++row) {
    if (!protocolDifferences(row).isEmpty()) return true;
  }
  return false;
}

std::optional<PairedDifference> ResultsModel::difference(int row, const std::string& task) const {
  const TaskResult *base = result(baseline_, task), *other = result(row, task);
  if (!base || !other || row == baseline_ || !protocolDifferences(row).isEmpty()) return std::nullopt;
  if (base->per_item.empty() || base->per_item.size() != other->per_item.size() || base->metric != other->metric)
    return std::nullopt;
  return analysis::task_difference(*base, *other);
}

int ResultsModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(reports_.size());
}

int ResultsModel::columnCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : kFixedBefore + 2 * static_cast<int>(tasks_.size()) + AfterTotal;
}

QVariant ResultsModel::number(int row, int column) const {
  const EvalReport& report = reports_[static_cast<std::size_t>(row)];
  if (column == 1) return report.kv_bits;
  if (column == 2) return report.weight_bits;
  const int task = (column - kFixedBefore) / 2;
  if (column >= kFixedBefore && task < static_cast<int>(tasks_.size())) {
    const std::string& name = tasks_[static_cast<std::size_t>(task)].task;
    if ((column - kFixedBefore) % 2 == 0) {
      const TaskResult* found = result(row, name);
      return found ? QVariant(found->value) : QVariant();
    }
    const auto paired = difference(row, name);
    return paired ? QVariant(paired->mean) : QVariant();
  }
  switch (column - metricColumn(static_cast<int>(tasks_.size()))) {
    case KvMemory:
      return static_cast<qlonglong>(report.memory.kv_bytes);
    case WeightsMemory:
      return static_cast<qlonglong>(report.memory.weights_bytes);
    case Windows:
      return static_cast<qlonglong>(report.protocol.windows);
    case Seed:
      return static_cast<qulonglong>(report.seed);
    default:
      return {};
  }
}

QString ResultsModel::text(int row, int column) const {
  const EvalReport& report = reports_[static_cast<std::size_t>(row)];
  if (column == 0)
    return QString::fromStdString(report.variant.text()) + (row == baseline_ ? tr(" (baseline)") : QString());
  if (column == 1 || column == 2) return QString::number(column == 1 ? report.kv_bits : report.weight_bits, 'f', 2);
  const int task = (column - kFixedBefore) / 2;
  if (task < static_cast<int>(tasks_.size())) {
    const std::string& name = tasks_[static_cast<std::size_t>(task)].task;
    const TaskResult* found = result(row, name);
    if (!found) return {};
    if ((column - kFixedBefore) % 2 == 0) return withError(found->value, found->standard_error);
    if (row == baseline_) return tr("baseline");
    if (!protocolDifferences(row).isEmpty()) {
      const TaskResult* base = result(baseline_, name);
      if (!mixed_shown_ || !base) return tr("⚠ not comparable");
      return tr("⚠ %1 (other protocol)").arg(signedText(found->value - base->value));
    }
    const auto paired = difference(row, name);
    if (!paired) return tr("no paired windows");
    return QStringLiteral("%1 [%2, %3]")
        .arg(signedText(paired->mean), signedText(paired->low), signedText(paired->high));
  }
  switch (column - metricColumn(static_cast<int>(tasks_.size()))) {
    case KvMemory:
      return bytesText(report.memory.kv_bytes);
    case WeightsMemory:
      return bytesText(report.memory.weights_bytes);
    case Windows:
      return QString::number(report.protocol.windows);
    case Seed:
      return QString::number(report.seed);
    case Fingerprint:
      return QString::fromStdString(report.fingerprint).left(12);
    default:
      return {};
  }
}

QVariant ResultsModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const int row = index.row(), column = index.column();
  const EvalReport& report = reports_[static_cast<std::size_t>(row)];
  const int tasks = static_cast<int>(tasks_.size());
  const bool is_difference = column >= kFixedBefore && column < metricColumn(tasks) && (column - kFixedBefore) % 2 == 1;
  switch (role) {
    case Qt::DisplayRole:
      return text(row, column);
    case Qt::EditRole: {
      const QVariant value = number(row, column);
      return value.isValid() ? value : QVariant(text(row, column));
    }
    case NumberRole:
      return number(row, column);
    case FingerprintRole:
      return QString::fromStdString(report.fingerprint);
    case WarningRole:
      return is_difference && !protocolDifferences(row).isEmpty();
    case Qt::TextAlignmentRole:
      return static_cast<int>((column == 0 || column == columnCount() - 1 ? Qt::AlignLeft : Qt::AlignRight) |
                              Qt::AlignVCenter);
    case Qt::ToolTipRole: {
      if (is_difference) {
        const QStringList differs = protocolDifferences(row);
        if (!differs.isEmpty()) {
          return tr("Measured under another protocol than the baseline; a difference would mix the two.\n%1")
              .arg(differs.join(u'\n'));
        }
        return tr("Mean of the paired differences to the baseline and its 95 % confidence interval.");
      }
      if (column == columnCount() - 1) {
        const Protocol& p = report.protocol;
        return tr("%1\n%2, window %3, stride %4, %5 windows, %6, %7 on %8")
            .arg(QString::fromStdString(report.fingerprint), QString::fromStdString(p.text_name))
            .arg(p.window)
            .arg(p.stride)
            .arg(p.windows)
            .arg(QLatin1String(kv_mode_id(p.kv_mode)), QString::fromStdString(p.dtype),
                 QString::fromStdString(p.device));
      }
      return text(row, column);
    }
    default:
      return {};
  }
}

QVariant ResultsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation == Qt::Vertical) return role == Qt::DisplayRole ? QVariant(section + 1) : QVariant();
  if (role != Qt::DisplayRole && role != Qt::ToolTipRole) return {};
  const int tasks = static_cast<int>(tasks_.size());
  if (section == 0) return tr("Variant");
  if (section == 1)
    return role == Qt::DisplayRole ? tr("KV bits") : tr("Effective bits of a cached element, as stored");
  if (section == 2)
    return role == Qt::DisplayRole ? tr("Weight bits") : tr("Effective bits of a weight of the quantized linears");
  if (section < metricColumn(tasks)) {
    const TaskColumn& column = tasks_[static_cast<std::size_t>((section - kFixedBefore) / 2)];
    const QString title = metricTitle(column.metric);
    if ((section - kFixedBefore) % 2 == 0)
      return role == Qt::DisplayRole ? title : tr("%1 ± standard error").arg(title);
    return role == Qt::DisplayRole ? tr("Δ [95 % CI]") : tr("%1: paired difference to the baseline").arg(title);
  }
  switch (section - metricColumn(tasks)) {
    case KvMemory:
      return tr("KV memory");
    case WeightsMemory:
      return tr("Weights memory");
    case Windows:
      return tr("Windows");
    case Seed:
      return tr("Seed");
    case Fingerprint:
      return tr("Protocol");
    default:
      return {};
  }
}

}  // namespace qs
