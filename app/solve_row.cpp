#include "app/solve_row.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/job_runner.h"

namespace qs {
namespace {

QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

/// What a person would set free first: widths and groups come before the rest, as their bits move most.
QString suggested_key(const Setup& setup, const std::vector<MethodInfo>& methods) {
  for (const MethodInfo& info : methods) {
    if (info.id != setup.method) continue;
    for (const ParamSpec& spec : info.params) {
      if (spec.key == "group_size") return text(spec.key);
    }
  }
  return {};
}

/// A method may look for its own parameter until a target is met.
QString own_target(const Setup& setup, const std::vector<MethodInfo>& methods) {
  for (const MethodInfo& info : methods) {
    if (info.id != setup.method) continue;
    for (const ParamSpec& spec : info.params) {
      if (spec.key == "target_bits") {
        return SolveRow::tr(
                   "%1 can also meet a target while it quantizes: parameter “%2”. Outliers are found only "
                   "then and are not counted here.")
            .arg(text(info.title), text(spec.label));
      }
    }
  }
  return {};
}

}  // namespace

SolveRow::SolveRow(bool kv, JobRunner& jobs, QWidget* parent) : QWidget(parent), kv_(kv), jobs_(jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(2);
  auto* across = new QHBoxLayout;
  column->addLayout(across);
  auto* label = new QLabel(tr("Solve for &bits"), this);
  target_ = new QDoubleSpinBox(this);
  target_->setObjectName(QStringLiteral("solveTarget"));
  target_->setAccessibleName(tr("Target of effective bits"));
  target_->setToolTip(tr("Effective bits that may not be exceeded, scales and window included"));
  target_->setRange(0.1, 32.0);
  target_->setDecimals(2);
  target_->setSingleStep(0.25);
  target_->setValue(3.0);
  target_->setSuffix(tr(" bits"));
  label->setBuddy(target_);
  key_ = new QComboBox(this);
  key_->setObjectName(QStringLiteral("solveKey"));
  key_->setAccessibleName(tr("Parameter to solve for"));
  key_->setToolTip(tr("The parameter that is set so that the target is met; the others stay as they are"));
  run_ = new QPushButton(tr("&Solve"), this);
  run_->setObjectName(QStringLiteral("solveRun"));
  run_->setAutoDefault(false);
  across->addWidget(label);
  across->addWidget(target_);
  across->addWidget(new QLabel(tr("with"), this));
  across->addWidget(key_, 1);
  across->addWidget(run_);
  answer_ = new QLabel(this);
  answer_->setObjectName(QStringLiteral("solveAnswer"));
  answer_->setWordWrap(true);
  answer_->hide();
  column->addWidget(answer_);
  connect(run_, &QPushButton::clicked, this, &SolveRow::solve);
  refresh();
}

void SolveRow::setSetup(const std::optional<Setup>& setup, const std::vector<MethodInfo>& methods) {
  if (setup_ == setup && key_->count() > 0) return;
  const bool same_methods =
      setup_ && setup && setup_->method == setup->method && setup_->then.size() == setup->then.size();
  setup_ = setup;
  if (!same_methods) {
    key_->clear();
    if (setup_) {
      for (const std::string& key : free_keys(*setup_, methods)) key_->addItem(text(key));
      key_->setCurrentIndex(std::max(0, key_->findText(suggested_key(*setup_, methods))));
    }
  }
  if (!answering_) {
    ++generation_;
    const QString hint = setup_ ? own_target(*setup_, methods) : QString();
    answer_->setText(hint);
    answer_->setVisible(!hint.isEmpty());
  }
  refresh();
}

void SolveRow::setShape(std::optional<BitsShape> shape) {
  shape_ = std::move(shape);
  ++generation_;
  refresh();
}

void SolveRow::focusTarget() {
  target_->setFocus();
  target_->selectAll();
}

void SolveRow::refresh() {
  const bool can = setup_ && shape_ && key_->count() > 0;
  run_->setEnabled(can);
  run_->setToolTip(!setup_   ? tr("Choose a method whose parameters fit first.")
                   : !shape_ ? tr("Waits for the sizes of the model.")
                             : tr("Find the value with the most bits that are not above the target"));
}

void SolveRow::solve() {
  if (!setup_ || !shape_) return;
  const quint64 generation = ++generation_;
  const double target = target_->value();
  const std::string key = key_->currentText().toStdString();
  jobs_.compute(
      tr("Solve for %1 bits").arg(target, 0, 'f', 2), QStringLiteral("plan"), JobLane::Interactive,
      [kv = kv_, setup = *setup_, shape = *shape_, key, target](const JobContext&) {
        return kv ? solve_kv_bits(setup, key, target, shape) : solve_weight_bits(setup, key, target, shape);
      },
      this,
      [this, generation](const BitsSolution& solution) {
        if (generation == generation_) showAnswer(solution);
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_) return;
        answer_->setText(status.message);
        answer_->show();
      });
}

void SolveRow::showAnswer(const BitsSolution& solution) {
  const auto point = [&](const BitsPoint& at) {
    return tr("%1 = %2: %3 bits").arg(text(solution.key), text(format_value(at.value))).arg(at.bits, 0, 'f', 3);
  };
  QStringList lines;
  if (solution.reached()) {
    lines << point(*solution.best);
    if (solution.below) lines << tr("next fewer: %1").arg(point(*solution.below));
    if (solution.above) lines << tr("next more: %1").arg(point(*solution.above));
  } else {
    lines << text(solution.why_not());
  }
  answer_->setText(lines.join(QStringLiteral("; ")));
  answer_->show();
  if (!solution.reached()) return;
  answering_ = true;  // the answer stays while the form takes the value
  Q_EMIT solved(key_->currentText(), solution.best->value);
  answering_ = false;
}

}  // namespace qs
