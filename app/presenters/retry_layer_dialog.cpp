#include "app/presenters/retry_layer_dialog.h"

#include <QDialogButtonBox>
#include <QFormLayout>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QSpinBox>
#include <QVBoxLayout>

#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "widgets/param_form.h"

namespace qs {

RetryLayerDialog::RetryLayerDialog(const QString& variant, const QString& setup, int layer, int layers, QWidget* parent)
    : QDialog(parent) {
  setObjectName(QStringLiteral("retryLayerDialog"));
  setWindowTitle(tr("Retry a layer of %1").arg(variant));
  resize(520, 620);
  auto* column = new QVBoxLayout(this);
  auto* top = new QFormLayout;
  layer_ = new QSpinBox(this);
  layer_->setObjectName(QStringLiteral("retry_layer"));
  layer_->setAccessibleName(tr("Layer"));
  layer_->setToolTip(tr("The layer that is quantized again, counted from 0"));
  layer_->setRange(0, std::max(0, layers - 1));
  layer_->setValue(std::max(0, layer));
  top->addRow(tr("&Layer"), layer_);
  column->addLayout(top);
  form_ = new ParamForm(this);
  const auto made = parse_weight_setup(setup.toStdString());
  for (const MethodInfo& info : weight_method_infos())
    if (made && info.id == made->method) form_->setMethod(info, made->params);
  before_ = form_->setupLine();
  auto* scroll = new QScrollArea(this);
  scroll->setAccessibleName(tr("Settings"));
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidget(form_);
  column->addWidget(scroll, 1);
  note_ = new QLabel(this);
  note_->setWordWrap(true);
  column->addWidget(note_);
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  buttons_->addButton(tr("Quantize this layer again"), QDialogButtonBox::AcceptRole)
      ->setObjectName(QStringLiteral("retry_accept"));
  column->addWidget(buttons_);
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(form_, &ParamForm::valuesChanged, this, &RetryLayerDialog::refresh);
  connect(layer_, &QSpinBox::valueChanged, this, &RetryLayerDialog::refresh);
  refresh();
}

int RetryLayerDialog::layer() const { return layer_->value(); }

QString RetryLayerDialog::setup() const { return form_->setupLine(); }

void RetryLayerDialog::refresh() {
  const bool sound = form_->issues().empty();
  buttons_->findChild<QPushButton*>(QStringLiteral("retry_accept"))->setEnabled(sound);
  note_->setText(
      setup() == before_
          ? tr("Change a setting above, more damping for example. The calibration windows stay those of the run.")
          : tr("Layer %1 is quantized again behind the layers before it. Layers after it stay as they are: "
               "their inputs came from the old one.")
                .arg(layer()));
}

}  // namespace qs
