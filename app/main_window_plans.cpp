// Dialogs that make, change and evaluate plans.

#include <QComboBox>
#include <QTimer>

#include "app/auto_dialog.h"
#include "app/docks/project_dock.h"
#include "app/main_window.h"
#include "app/overrides_dialog.h"
#include "app/variant_dialog.h"
#include "app/workbench.h"
#include "backend/model/model_source.h"

namespace qs {

void MainWindow::showNewPlan(const VariantEntry& entry) {
  const QString id = workbench_.addVariant(entry);
  workbench_.selection().edit([&](Selection& s) {
    if (s.variantB.isEmpty() || !s.variantA.isEmpty())
      s.variantB = id;
    else
      s.variantA = id;
  });
}

void MainWindow::variantDialog() {
  VariantDialog dialog(workbench_, currentModelId(), this);
  if (dialog.exec() == QDialog::Accepted) showNewPlan(dialog.entry());
}

QString MainWindow::currentPlanId() const {
  const QString chosen = project_->selectedVariant();
  return chosen.isEmpty() ? plan_combo_->currentData().toString() : chosen;
}

void MainWindow::changePlan(bool solve) {
  const auto entry = workbench_.variantEntry(currentPlanId());
  if (!entry) return showBanner(tr("Choose a plan in the project panel or the tool bar first."), {}, false);
  VariantDialog dialog(workbench_, *entry, this);
  if (solve) dialog.focusSolve();
  if (dialog.exec() == QDialog::Accepted) workbench_.changeVariant(dialog.entry());
}

void MainWindow::overridesDialog() {
  const auto entry = workbench_.variantEntry(currentPlanId());
  const auto model = entry ? workbench_.modelEntry(entry->modelId) : std::nullopt;
  if (!model) return showBanner(tr("Choose a plan in the project panel or the tool bar first."), {}, false);
  workbench_.jobs().compute(
      tr("Sizes of %1").arg(model->id), QStringLiteral("plan"), JobLane::Interactive,
      [path = workbench_.resolvePath(model->path)](const JobContext&) {
        return open_model(std::filesystem::path(path.toStdU16String())).spec;
      },
      this,
      [this, id = entry->id](const ArchitectureSpec& spec) {
        // A dialog has its own event loop, which must not run inside the report of a job.
        QTimer::singleShot(0, this, [this, id, spec] { overridesDialog(id, spec); });
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) showBanner(status.message, status.detail);
      });
}

void MainWindow::overridesDialog(const QString& planId, const ArchitectureSpec& spec) {
  auto plan = workbench_.variantEntry(planId);
  if (!plan) return;
  const PlanSide side = plan->kv.isEmpty() && !plan->weights.isEmpty() ? PlanSide::Weights : PlanSide::Kv;
  QString& line = side == PlanSide::Kv ? plan->kv : plan->weights;
  const std::int64_t tokens = std::min<std::int64_t>(2048, std::max<std::int64_t>(1, spec.max_context));
  OverridesDialog dialog(side, line, bits_shape(spec, tokens), this);
  if (dialog.exec() != QDialog::Accepted) return;
  line = dialog.line();
  workbench_.changeVariant(*plan);
}

void MainWindow::autoDialog() {
  AutoDialog dialog(workbench_, currentModelId(), this);
  if (dialog.exec() != QDialog::Accepted) return;
  if (const auto plan = dialog.plan()) showNewPlan(*plan);
}

void MainWindow::evaluateDialog() {
  const Selection& chosen = workbench_.selection().selection();
  EvaluateDialog dialog(workbench_, {chosen.variantA, chosen.variantB, project_->selectedVariant()}, this);
  if (dialog.exec() != QDialog::Accepted || dialog.variantIds().isEmpty()) return;
  workbench_.evaluate(dialog.variantIds(), dialog.window(), dialog.windows(), dialog.tasks(), dialog.text());
  openView(QStringLiteral("results"));
}

}  // namespace qs
