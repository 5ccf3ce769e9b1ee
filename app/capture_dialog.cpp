#include "app/capture_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSpinBox>
#include <QVBoxLayout>

#include "app/workbench.h"
#include "backend/storage/capture.h"
#include "widgets/models/dataset_tree_model.h"

namespace qs {

CaptureDialog::CaptureDialog(Workbench& workbench, const QString& modelId, QWidget* parent)
    : QDialog(parent), workbench_(workbench) {
  setObjectName(QStringLiteral("captureDialog"));
  setWindowTitle(tr("Capture keys, values and statistics"));
  auto* form = new QFormLayout(this);
  model_ = new QComboBox(this);
  model_->setObjectName(QStringLiteral("captureModel"));
  for (const ModelEntry& model : workbench_.session().models) model_->addItem(model.id, model.id);
  model_->setCurrentIndex(std::max(0, model_->findData(modelId)));
  const auto row = [&](const QString& label, QWidget* field, const QString& tip, QPushButton* button = nullptr) {
    field->setAccessibleName(QString(label).remove(QLatin1Char('&')));
    field->setToolTip(tip);
    if (!button) return form->addRow(label, field);
    auto* line = new QHBoxLayout;
    line->addWidget(field, 1);
    line->addWidget(button);
    form->addRow(label, line);
  };
  const auto browse = [&](const char* name, const QString& what) {
    auto* button = new QPushButton(tr("Browse..."), this);
    button->setObjectName(QLatin1String(name));
    button->setAccessibleName(what);
    button->setToolTip(what);
    button->setAutoDefault(false);
    return button;
  };
  row(tr("&Model"), model_, tr("The model that the text runs through"));
  text_ = new QLineEdit(QStringLiteral("sample:texts/sample-valid.txt"), this);
  text_->setObjectName(QStringLiteral("captureText"));
  QPushButton* find_text = browse("browseText", tr("Choose a text file"));
  row(tr("Text"), text_, tr("A UTF-8 text file; its beginning is used. sample: names a bundled one."), find_text);
  connect(find_text, &QPushButton::clicked, this, [this] {
    const QString path =
        QFileDialog::getOpenFileName(this, tr("Text"), {}, tr("Texts (*.txt *.raw *.md);;All files (*)"));
    if (!path.isEmpty()) text_->setText(path);
  });
  tokens_ = new QSpinBox(this);
  tokens_->setObjectName(QStringLiteral("captureTokens"));
  tokens_->setRange(2, 1'000'000);
  tokens_->setValue(512);
  tokens_->setGroupSeparatorShown(true);
  row(tr("T&okens"), tokens_, tr("More tokens show rarer outliers and longer distances; the file grows with them"));
  const QStringList names = {QStringLiteral("key"),   QStringLiteral("key_pre_rope"), QStringLiteral("value"),
                             QStringLiteral("query"), QStringLiteral("attention"),    QStringLiteral("activations")};
  const QStringList labels = {
      tr("Keys after RoPE"),          tr("Keys before RoPE"),     tr("Values"),
      tr("Queries with log-sum-exp"), tr("Attention statistics"), tr("Input statistics of every linear layer")};
  auto* taps = new QVBoxLayout;
  for (qsizetype i = 0; i < names.size(); ++i) {
    auto* box = new QCheckBox(labels[i], this);
    box->setObjectName(names[i]);
    box->setToolTip(tr("Tap point “%1”").arg(names[i]));
    box->setChecked(true);
    taps->addWidget(box);
    taps_ << box;
  }
  form->addRow(tr("Tap points"), taps);
  weights_ = new QCheckBox(tr("Weights of the model as well"), this);
  weights_->setObjectName(QStringLiteral("captureWeights"));
  weights_->setToolTip(tr("Needed to look at weight quantization without the model"));
  form->addRow(QString(), weights_);
  file_ = new QLineEdit(this);
  file_->setObjectName(QStringLiteral("captureFile"));
  QPushButton* find_file = browse("browseFile", tr("Choose where the capture goes"));
  row(tr("File"), file_, tr("An HDF5 file that h5py and HDFView read too"), find_file);
  connect(find_file, &QPushButton::clicked, this, [this] {
    const QString path = QFileDialog::getSaveFileName(this, tr("Capture file"), file_->text(), tr("HDF5 (*.h5)"));
    if (!path.isEmpty()) file_->setText(path);
  });
  forecast_ = new QLabel(this);
  forecast_->setWordWrap(true);
  form->addRow(tr("Forecast"), forecast_);
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  auto* start = buttons_->addButton(tr("Capture"), QDialogButtonBox::AcceptRole);
  start->setObjectName(QStringLiteral("captureStart"));
  start->setDefault(true);
  form->addRow(buttons_);
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);
  const auto propose = [this] {
    file_->setText(workbench_.dataFolder() + QLatin1Char('/') +
                   workbench_.freshId(QStringLiteral("%1-%2").arg(idOrFallback(), QString::number(tokens_->value()))) +
                   QStringLiteral(".h5"));
  };
  connect(model_, &QComboBox::currentIndexChanged, this, [this, propose] {
    propose();
    refresh();
  });
  connect(tokens_, &QSpinBox::valueChanged, this, [this, propose] {
    propose();
    refresh();
  });
  connect(text_, &QLineEdit::textChanged, this, &CaptureDialog::refresh);
  connect(weights_, &QCheckBox::toggled, this, &CaptureDialog::refresh);
  for (QCheckBox* box : taps_) connect(box, &QCheckBox::toggled, this, &CaptureDialog::refresh);
  propose();
  refresh();
}

void CaptureDialog::setWeights(bool on) { weights_->setChecked(on); }
void CaptureDialog::focusTaps() { taps_.first()->setFocus(); }
QString CaptureDialog::idOrFallback() const { return modelId().isEmpty() ? QStringLiteral("capture") : modelId(); }
QString CaptureDialog::modelId() const { return model_->currentData().toString(); }
QString CaptureDialog::textPath() const { return text_->text().trimmed(); }
QString CaptureDialog::filePath() const { return file_->text().trimmed(); }
int CaptureDialog::tokens() const { return tokens_->value(); }
bool CaptureDialog::weights() const { return weights_->isChecked(); }
QStringList CaptureDialog::taps() const {
  QStringList result;
  for (const QCheckBox* box : taps_) {
    if (box->isChecked()) result << box->objectName();
  }
  return result;
}

void CaptureDialog::refresh() {
  QString problem;
  if (modelId().isEmpty()) {
    problem = tr("Open a model first (Model › Load).");
  } else if (!QFileInfo(workbench_.resolvePath(textPath())).isFile()) {
    problem = tr("The text '%1' does not exist.").arg(textPath());
  } else if (taps().isEmpty() && !weights()) {
    problem = tr("Tick at least one tap point.");
  }
  buttons_->button(QDialogButtonBox::Cancel)->setAutoDefault(false);
  findChild<QPushButton*>(QStringLiteral("captureStart"))->setEnabled(problem.isEmpty());
  if (!problem.isEmpty()) return forecast_->setText(problem);
  const auto entry = workbench_.modelEntry(modelId());
  CaptureRequest request;
  request.ids.resize(std::size_t(tokens()));
  request.taps.clear();
  for (const QString& tap : taps()) request.taps.insert(tap.toStdString());
  request.weights = weights();
  const quint64 number = ++request_;
  workbench_.jobs().compute(
      tr("Forecast of a capture"), QStringLiteral("capture"), JobLane::Interactive,
      [model = workbench_.resolvePath(entry->path).toStdString(), file = filePath().toStdString(),
       request](const JobContext&) { return forecast_capture(inspect_model(model), request, file); },
      this,
      [this, number](CaptureForecast forecast) {
        if (number != request_) return;
        forecast_->setText(
            tr("At most %1; %2 are free there.").arg(bytesText(forecast.bytes), bytesText(forecast.free_disk)));
      },
      [this, number](const JobStatus& status) {
        if (number == request_) forecast_->setText(status.message);
      });
}

}  // namespace qs
