#include "app/variant_dialog.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QScrollArea>
#include <QSpinBox>
#include <QTabWidget>
#include <QVBoxLayout>

#include "app/overrides_dialog.h"
#include "app/workbench.h"
#include "backend/evaluation/published_numbers.h"
#include "backend/method_registry.h"
#include "backend/model/model_source.h"
#include "widgets/param_form.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr int kUsualTokens = 2048;
const QString kBrowse = QStringLiteral("browse:");

std::filesystem::path file_path(const QString& path) { return std::filesystem::path(path.toStdU16String()); }

void warn(QLabel* label) {
  QPalette palette = label->palette();
  palette.setColor(QPalette::WindowText, FigureStyle::screen(*label).warning);
  label->setPalette(palette);
}

}  // namespace

void fill_text_list(QComboBox& list, const Workbench& workbench, const QString& automatic, const QString& chosen) {
  list.clear();
  list.addItem(automatic, QString());
  QStringList paths = bundled_texts();
  for (const CaptureEntry& capture : workbench.session().captures) {
    if (!capture.text.isEmpty() && !paths.contains(capture.text)) paths << capture.text;
  }
  if (!chosen.isEmpty() && !paths.contains(chosen)) paths << chosen;
  for (const QString& path : paths) {
    list.addItem(QFileInfo(workbench.resolvePath(path)).fileName(), path);
    list.setItemData(list.count() - 1, workbench.resolvePath(path), Qt::ToolTipRole);
  }
  list.addItem(VariantDialog::tr("Choose a file..."), kBrowse);
  list.setCurrentIndex(std::max(0, list.findData(chosen)));
  QObject::disconnect(&list, &QComboBox::activated, &list, nullptr);  // of an earlier filling
  QObject::connect(&list, &QComboBox::activated, &list, [&list](int row) {
    if (list.itemData(row).toString() != kBrowse) return;
    const QString path = QFileDialog::getOpenFileName(list.window(), VariantDialog::tr("Text"), {},
                                                      VariantDialog::tr("Texts (*.txt *.raw *.md);;All files (*)"));
    if (path.isEmpty()) return list.setCurrentIndex(0);
    list.insertItem(list.count() - 1, QFileInfo(path).fileName(), path);
    list.setCurrentIndex(list.count() - 2);
  });
}

VariantDialog::VariantDialog(Workbench& workbench, const QString& modelId, QWidget* parent)
    : QDialog(parent), workbench_(workbench) {
  entry_.modelId = modelId;
  build();
}

VariantDialog::VariantDialog(Workbench& workbench, const VariantEntry& entry, QWidget* parent)
    : QDialog(parent), workbench_(workbench), entry_(entry) {
  build();
}

void VariantDialog::build() {
  const bool is_new = entry_.id.isEmpty();
  setObjectName(QStringLiteral("variantDialog"));
  setWindowTitle(is_new ? tr("New plan") : tr("Change plan"));
  resize(640, 760);
  auto* column = new QVBoxLayout(this);
  auto* head = new QFormLayout;
  column->addLayout(head);
  model_ = new QComboBox(this);
  model_->setObjectName(QStringLiteral("planModel"));
  model_->setAccessibleName(tr("Model"));
  for (const ModelEntry& model : workbench_.session().models) model_->addItem(model.id, model.id);
  model_->setCurrentIndex(std::max(0, model_->findData(entry_.modelId)));
  head->addRow(tr("M&odel"), model_);
  name_ = new QLineEdit(entry_.name, this);
  name_->setObjectName(QStringLiteral("planName"));
  name_->setAccessibleName(tr("Name"));
  head->addRow(tr("&Name"), name_);
  tokens_ = new QSpinBox(this);
  tokens_->setObjectName(QStringLiteral("planTokens"));
  tokens_->setAccessibleName(tr("Tokens in the cache"));
  tokens_->setToolTip(tr("Effective bits of a cache depend on how much of it lies in the window"));
  tokens_->setRange(1, 1 << 24);
  tokens_->setValue(kUsualTokens);
  tokens_->setSuffix(tr(" tokens"));
  head->addRow(tr("Bits &at"), tokens_);

  sides_ = new QTabWidget(this);
  sides_->setObjectName(QStringLiteral("planSides"));
  column->addWidget(sides_, 1);
  const auto side = [&](PlanSide which, const QString& title, const char* name) {
    auto* scroll = new QScrollArea(this);
    scroll->setObjectName(QLatin1String(name));
    scroll->setAccessibleName(title);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    auto* editor = new SetupEditor(which, &workbench_.jobs(), scroll);
    scroll->setWidget(editor);
    sides_->addTab(scroll, title);
    return editor;
  };
  kv_ = side(PlanSide::Kv, tr("&Key-value cache"), "planScroll");
  weights_ = side(PlanSide::Weights, tr("&Weights"), "planWeightScroll");
  auto* foot = new QFormLayout;
  column->addLayout(foot);
  calibration_ = new QComboBox(this);
  calibration_->setObjectName(QStringLiteral("planCalibration"));
  calibration_->setAccessibleName(tr("Calibration text"));
  calibration_->setToolTip(tr("Text that the cache's method learns from; better not the one that is evaluated"));
  calibration_label_ = new QLabel(tr("Calibration te&xt"), this);
  calibration_label_->setBuddy(calibration_);
  foot->addRow(calibration_label_, calibration_);
  calibration_note_ = new QLabel(this);
  calibration_note_->setObjectName(QStringLiteral("planCalibrationNote"));
  calibration_note_->setWordWrap(true);
  column->addWidget(calibration_note_);
  problem_ = new QLabel(this);
  problem_->setObjectName(QStringLiteral("planProblem"));
  problem_->setWordWrap(true);
  warn(problem_);
  column->addWidget(problem_);
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  QPushButton* accept = buttons_->addButton(is_new ? tr("Add plan") : tr("Change plan"), QDialogButtonBox::AcceptRole);
  accept->setObjectName(QStringLiteral("planAccept"));
  accept->setDefault(true);
  column->addWidget(buttons_);

  kv_->setLine(is_new && entry_.kv.isEmpty() && entry_.weights.isEmpty() ? QStringLiteral("kivi") : entry_.kv);
  weights_->setLine(entry_.weights);
  if (kv_->line().isEmpty() && !weights_->line().isEmpty()) sides_->setCurrentIndex(1);
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(model_, &QComboBox::currentIndexChanged, this, &VariantDialog::loadShape);
  connect(tokens_, &QSpinBox::valueChanged, this, [this](int tokens) {
    if (!spec_) return;
    for (SetupEditor* editor : {kv_, weights_}) editor->setShape(bits_shape(*spec_, tokens));
  });
  for (SetupEditor* editor : {kv_, weights_}) {
    connect(editor, &SetupEditor::changed, this, &VariantDialog::refresh);
    connect(editor, &SetupEditor::perLayerRequested, this, [this, editor] { editLayers(*editor); });
  }
  loadShape();
  loadPublished();
  refresh();
}

void VariantDialog::loadShape() {
  const quint64 generation = ++generation_;
  spec_.reset();
  for (SetupEditor* editor : {kv_, weights_}) editor->setShape(std::nullopt);
  const VariantEntry of_model{{}, {}, model_->currentData().toString(), {}, {}};
  const QString automatic = QFileInfo(workbench_.resolvePath(workbench_.calibrationText(of_model))).fileName();
  fill_text_list(*calibration_, workbench_, tr("%1 (not the text that is evaluated)").arg(automatic),
                 entry_.calibration);
  const auto model = workbench_.modelEntry(of_model.modelId);
  if (!model) return;
  workbench_.jobs().compute(
      tr("Sizes of %1").arg(model->id), QStringLiteral("plan"), JobLane::Interactive,
      [path = workbench_.resolvePath(model->path)](const JobContext&) { return open_model(file_path(path)).spec; },
      this,
      [this, generation](ArchitectureSpec spec) {
        if (generation != generation_) return;
        spec_ = std::move(spec);
        {
          const QSignalBlocker quiet(tokens_);
          tokens_->setMaximum(int(std::min<std::int64_t>(1 << 24, std::max<std::int64_t>(1, spec_->max_context))));
          tokens_->setValue(std::min(kUsualTokens, tokens_->maximum()));
        }
        for (SetupEditor* editor : {kv_, weights_}) editor->setShape(bits_shape(*spec_, tokens_->value()));
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_ || status.state != JobState::Failed) return;
        problem_->setText(status.message);
        problem_->show();
      });
}

void VariantDialog::loadPublished() {
  workbench_.jobs().compute(
      tr("Published numbers"), QStringLiteral("plan"), JobLane::Interactive,
      [folder = workbench_.resolvePath(QStringLiteral("sample:published"))](const JobContext&) {
        return read_published_numbers(file_path(folder));
      },
      this,
      [this](const std::vector<PublishedNumber>& numbers) {
        for (SetupEditor* editor : {kv_, weights_}) editor->setPublished(numbers);
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT workbench_.message(status.message, status.detail);
      });
}

void VariantDialog::editLayers(SetupEditor& editor) {
  if (!spec_) return;
  OverridesDialog dialog(editor.side(), editor.line(), bits_shape(*spec_, tokens_->value()), this);
  if (dialog.exec() == QDialog::Accepted) editor.setLine(dialog.line());
}

QString VariantDialog::calibrationSummary() const {
  QStringList lines;
  const std::optional<Setup> weights = weights_->setup();
  if (weights && weight_calibration_needs(*weights).any()) {
    QString capture;
    for (const CaptureEntry& entry : workbench_.session().captures) {
      if (entry.modelId == model_->currentData().toString() && capture.isEmpty()) capture = entry.id;
    }
    lines << (capture.isEmpty()
                  ? tr("The weights need a capture of this model to calibrate on: Capture › Capture KV.")
                  : tr("The weights calibrate on the text of the capture %1. Evaluate on another text for a number "
                       "that they have not seen.")
                        .arg(capture));
  }
  if (const auto note = workbench_.calibrationNote(entry_.id); note && kv_->line() == entry_.kv) lines << note->line();
  return lines.join(u'\n');
}

void VariantDialog::refresh() {
  const std::optional<Setup> kv = kv_->setup();
  const bool learns = kv && needs_kv_calibration(*kv);
  calibration_->setVisible(learns);
  calibration_label_->setVisible(learns);
  const QString summary = calibrationSummary();
  calibration_note_->setText(summary);
  calibration_note_->setVisible(!summary.isEmpty());
  QStringList problems;
  if (!kv_->issues().isEmpty()) problems << tr("Key-value cache: %1").arg(kv_->issues().first());
  if (!weights_->issues().isEmpty()) problems << tr("Weights: %1").arg(weights_->issues().first());
  if (model_->count() == 0) problems << tr("Open a model first (Model › Load).");
  problem_->setText(problems.join(u'\n'));
  problem_->setVisible(!problems.isEmpty());
  sides_->setTabText(0, kv_->line().isEmpty() ? tr("&Key-value cache") : tr("&Key-value cache •"));
  sides_->setTabText(1, weights_->line().isEmpty() ? tr("&Weights") : tr("&Weights •"));
  QStringList lines;
  for (const SetupEditor* editor : {weights_, kv_}) {
    if (!editor->line().isEmpty()) lines << editor->line();
  }
  name_->setPlaceholderText(lines.isEmpty() ? tr("Full precision") : lines.join(QStringLiteral(" + ")));
  for (QAbstractButton* button : buttons_->buttons()) {
    if (buttons_->buttonRole(button) != QDialogButtonBox::AcceptRole) continue;
    button->setEnabled(problems.isEmpty());
    button->setToolTip(problems.join(u'\n'));
  }
}

void VariantDialog::focusSolve() {
  sides_->setCurrentIndex(kv_->line().isEmpty() && !weights_->line().isEmpty() ? 1 : 0);
  editor(sides_->currentIndex() == 0 ? PlanSide::Kv : PlanSide::Weights).focusSolve();
}

VariantEntry VariantDialog::entry() const {
  VariantEntry result = entry_;
  result.name = name_->text().trimmed().isEmpty() ? name_->placeholderText() : name_->text().trimmed();
  result.modelId = model_->currentData().toString();
  result.weights = weights_->line();
  result.kv = kv_->line();
  const std::optional<Setup> kv = kv_->setup();
  const QString text = calibration_->currentData().toString();
  result.calibration = kv && needs_kv_calibration(*kv) && text != kBrowse ? text : QString();
  return result;
}

EvaluateDialog::EvaluateDialog(const Workbench& workbench, const QStringList& ticked, QWidget* parent)
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
  for (const VariantEntry& variant : workbench.session().variants)
    tick(variants_, variant.name, variant.id, ticked.contains(variant.id));
  tasks_ = list("evaluateTasks", tr("Tasks"));
  tasks_->setMaximumHeight(90);
  tick(tasks_, tr("Perplexity"), QStringLiteral("ppl"), true);
  tick(tasks_, tr("KL divergence to full precision"), QStringLiteral("kl"), true);
  tick(tasks_, tr("Top-1 agreement with full precision"), QStringLiteral("top1"), true);
  text_ = new QComboBox(this);
  text_->setObjectName(QStringLiteral("evaluateText"));
  text_->setAccessibleName(tr("Text"));
  text_->setToolTip(tr("Results of different texts are not compared"));
  fill_text_list(*text_, workbench, tr("The text of the model's capture"), {});
  form->addRow(tr("Text"), text_);
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
QString EvaluateDialog::text() const {
  const QString path = text_->currentData().toString();
  return path == kBrowse ? QString() : path;
}
int EvaluateDialog::window() const { return window_->value(); }
int EvaluateDialog::windows() const { return windows_->value(); }

}  // namespace qs
