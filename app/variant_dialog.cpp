#include "app/variant_dialog.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QScrollArea>
#include <QSpinBox>
#include <QVBoxLayout>

#include "app/workbench.h"
#include "backend/method_registry.h"
#include "widgets/param_form.h"

namespace qs {

VariantDialog::VariantDialog(Workbench& workbench, const QString& modelId, QWidget* parent)
    : QDialog(parent), methods_(all_methods()) {
  setObjectName(QStringLiteral("variantDialog"));
  setWindowTitle(tr("New plan"));
  resize(520, 560);
  auto* column = new QVBoxLayout(this);
  auto* head = new QFormLayout;
  column->addLayout(head);
  model_ = new QComboBox(this);
  model_->setObjectName(QStringLiteral("planModel"));
  model_->setAccessibleName(tr("Model"));
  for (const ModelEntry& model : workbench.session().models) model_->addItem(model.id, model.id);
  model_->setCurrentIndex(std::max(0, model_->findData(modelId)));
  head->addRow(tr("&Model"), model_);
  method_ = new QComboBox(this);
  method_->setObjectName(QStringLiteral("planMethod"));
  method_->setAccessibleName(tr("Method"));
  for (const MethodInfo& info : methods_) {
    method_->addItem(tr("%1 (%2)").arg(QString::fromStdString(info.title), QLatin1String(family_id(info.family))));
  }
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    if (methods_[i].id == "kivi") method_->setCurrentIndex(int(i));
  }
  head->addRow(tr("M&ethod"), method_);
  name_ = new QLineEdit(this);
  name_->setObjectName(QStringLiteral("planName"));
  name_->setAccessibleName(tr("Name"));
  head->addRow(tr("&Name"), name_);
  summary_ = new QLabel(this);
  summary_->setWordWrap(true);
  column->addWidget(summary_);
  auto* scroll = new QScrollArea(this);
  scroll->setObjectName(QStringLiteral("planScroll"));
  scroll->setAccessibleName(tr("Parameters"));
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  form_ = new ParamForm(scroll);
  scroll->setWidget(form_);
  column->addWidget(scroll, 1);
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  buttons_->addButton(tr("Add plan"), QDialogButtonBox::AcceptRole)->setDefault(true);
  column->addWidget(buttons_);
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(method_, &QComboBox::currentIndexChanged, this, &VariantDialog::showMethod);
  connect(model_, &QComboBox::currentIndexChanged, this, &VariantDialog::refresh);
  connect(form_, &ParamForm::valuesChanged, this, &VariantDialog::refresh);
  showMethod();
}

void VariantDialog::showMethod() {
  const MethodInfo& info = methods_[std::size_t(method_->currentIndex())];
  form_->setMethod(info);
  QString text = QString::fromStdString(info.summary);
  if (!info.citation.empty()) text += QStringLiteral("\n") + QString::fromStdString(info.citation);
  if (info.needs_calibration && info.family == MethodFamily::Kv) {
    text += QStringLiteral("\n") + tr("Learns from the bundled sample text when it is first used, if it needs to.");
  } else if (info.needs_calibration && info.calibration_need == CalibrationNeed::TokenWindows) {
    text += QStringLiteral("\n") + tr("Calibrates on the text of a capture of this model.");
  } else if (info.needs_calibration) {
    text += QStringLiteral("\n") + tr("Needs a capture of this model with input statistics.");
  }
  if (!info.runs_here) text += QStringLiteral("\n") + QString::fromStdString(info.why_not);
  summary_->setText(text);
  name_->setPlaceholderText(QString::fromStdString(info.title));
  refresh();
}

void VariantDialog::refresh() {
  const MethodInfo& info = methods_[std::size_t(method_->currentIndex())];
  for (QAbstractButton* button : buttons_->buttons()) {
    if (buttons_->buttonRole(button) != QDialogButtonBox::AcceptRole) continue;
    button->setEnabled(model_->count() > 0 && info.runs_here && form_->issues().empty());
    button->setToolTip(model_->count() == 0 ? tr("Open a model first (Model › Load).") : QString());
  }
}

VariantEntry VariantDialog::entry() const {
  const MethodInfo& info = methods_[std::size_t(method_->currentIndex())];
  const QString line = form_->setupLine();
  const QString name = name_->text().trimmed().isEmpty() ? line : name_->text().trimmed();
  const bool kv = info.family == MethodFamily::Kv;
  return {{}, name, model_->currentData().toString(), kv ? QString() : line, kv ? line : QString()};
}

EvaluateDialog::EvaluateDialog(const SessionState& session, const QStringList& ticked, QWidget* parent)
    : QDialog(parent) {
  setObjectName(QStringLiteral("evaluateDialog"));
  setWindowTitle(tr("Evaluate variants"));
  auto* form = new QFormLayout(this);
  const auto list = [&](const char* name, const QString& label) {
    auto* result = new QListWidget(this);
    result->setObjectName(QLatin1String(name));
    result->setAccessibleName(label);
    form->addRow(label, result);
    return result;
  };
  const auto tick = [](QListWidget* into, const QString& text, const QString& id, bool on) {
    auto* item = new QListWidgetItem(text, into);
    item->setData(Qt::UserRole, id);
    item->setCheckState(on ? Qt::Checked : Qt::Unchecked);
  };
  variants_ = list("evaluateVariants", tr("Variants"));
  for (const VariantEntry& variant : session.variants)
    tick(variants_, variant.name, variant.id, ticked.contains(variant.id));
  tasks_ = list("evaluateTasks", tr("Tasks"));
  tasks_->setMaximumHeight(90);
  tick(tasks_, tr("Perplexity"), QStringLiteral("ppl"), true);
  tick(tasks_, tr("KL divergence to full precision"), QStringLiteral("kl"), true);
  tick(tasks_, tr("Top-1 agreement with full precision"), QStringLiteral("top1"), true);
  const auto spin = [&](const char* name, const QString& label, int value, const QString& tip) {
    auto* box = new QSpinBox(this);
    box->setObjectName(QLatin1String(name));
    box->setRange(0, 1'000'000);
    box->setValue(value);
    box->setAccessibleName(label);
    box->setToolTip(tip);
    form->addRow(label, box);
    return box;
  };
  window_ = spin("evaluateWindow", tr("Tokens in a window"), 512, tr("0: the smaller of 2048 and the model's context"));
  windows_ = spin("evaluateWindows", tr("Windows"), 8,
                  tr("More windows give narrower confidence intervals; 0: the whole text"));
  auto* note = new QLabel(
      tr("Key-value caches are evaluated as token-by-token decoding sees them (streaming). Numbers of different "
         "protocols are never compared without a warning."),
      this);
  note->setWordWrap(true);
  form->addRow(note);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  buttons->addButton(tr("Evaluate"), QDialogButtonBox::AcceptRole)->setDefault(true);
  form->addRow(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
}

namespace {
QStringList ticked_in(const QListWidget* list) {
  QStringList result;
  for (int i = 0; i < list->count(); ++i) {
    if (list->item(i)->checkState() == Qt::Checked) result << list->item(i)->data(Qt::UserRole).toString();
  }
  return result;
}
}  // namespace

QStringList EvaluateDialog::variantIds() const { return ticked_in(variants_); }
QStringList EvaluateDialog::tasks() const { return ticked_in(tasks_); }
int EvaluateDialog::window() const { return window_->value(); }
int EvaluateDialog::windows() const { return windows_->value(); }

}  // namespace qs
