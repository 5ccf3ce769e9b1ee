#include "app/auto_dialog.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QDoubleSpinBox>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QProgressBar>
#include <QPushButton>
#include <QSpinBox>
#include <QSplitter>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "app/variant_dialog.h"
#include "app/workbench.h"
#include "backend/evaluation/setup_bits.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/model_source.h"
#include "backend/types/error.h"
#include "widgets/models/sensitivity_model.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

enum Unit { Bits, BytesAToken, MebibytesAtContext };
constexpr int kTickedAtFirst = 3;
constexpr int kLineRole = Qt::UserRole;

std::filesystem::path file_path(const QString& path) { return std::filesystem::path(path.toStdU16String()); }

QString canonical(const std::optional<Setup>& setup) {
  return setup ? QString::fromStdString(format_setup(*setup, kv_method_infos())) : QStringLiteral("none");
}

}  // namespace

AutoDialog::AutoDialog(Workbench& workbench, const QString& modelId, QWidget* parent)
    : QDialog(parent), workbench_(workbench) {
  setObjectName(QStringLiteral("autoDialog"));
  setWindowTitle(tr("Choose per layer"));
  resize(1080, 660);
  auto* column = new QVBoxLayout(this);
  auto* split = new QSplitter(Qt::Horizontal, this);
  split->setObjectName(QStringLiteral("autoSplit"));
  split->addWidget(buildQuestion());
  split->addWidget(buildAnswer());
  split->setSizes({460, 620});
  split->setChildrenCollapsible(false);
  column->addWidget(split, 1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
  add_ = buttons->addButton(tr("Add as plan"), QDialogButtonBox::AcceptRole);
  add_->setObjectName(QStringLiteral("autoAdd"));
  column->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  model_->setCurrentIndex(std::max(0, model_->findData(modelId)));
  connect(model_, &QComboBox::currentIndexChanged, this, &AutoDialog::loadSpec);
  connect(&workbench_.jobs(), &JobRunner::jobChanged, this, [this](const JobStatus& status) {
    if (status.id != job_ || job_ == 0) return;
    progress_->setValue(int(status.fraction * 1000.0));
    const QString left = status.leftMs < 0 ? QString() : tr(", %1 s left").arg((status.leftMs + 999) / 1000);
    progress_->setFormat(QStringLiteral("%p % ") + status.step + left);
  });
  loadSpec();
}

AutoDialog::~AutoDialog() { table_->setModel(nullptr); }

QWidget* AutoDialog::buildQuestion() {
  auto* question = new QWidget(this);
  auto* column = new QVBoxLayout(question);
  column->setContentsMargins(0, 0, 6, 0);
  auto* form = new QFormLayout;
  column->addLayout(form);
  const auto combo = [&](const char* name, const QString& accessible, const QString& tip) {
    auto* box = new QComboBox(question);
    box->setObjectName(QLatin1String(name));
    box->setAccessibleName(accessible);
    box->setToolTip(tip);
    return box;
  };
  const auto spin = [&](const char* name, const QString& label, int low, int high, int value, const QString& tip) {
    auto* box = new QSpinBox(question);
    box->setObjectName(QLatin1String(name));
    box->setAccessibleName(label);
    box->setToolTip(tip);
    box->setRange(low, high);
    box->setValue(value);
    form->addRow(label, box);
    return box;
  };
  model_ = combo("autoModel", tr("Model"), {});
  for (const ModelEntry& model : workbench_.session().models) model_->addItem(model.id, model.id);
  form->addRow(tr("Model"), model_);
  auto* budget_row = new QHBoxLayout;
  budget_ = new QDoubleSpinBox(question);
  budget_->setObjectName(QStringLiteral("autoBudget"));
  budget_->setAccessibleName(tr("Budget"));
  budget_->setToolTip(tr("What the whole cache may cost, window included"));
  budget_->setRange(0.01, 1e9);
  budget_->setDecimals(2);
  budget_->setValue(6.0);
  unit_ = combo("autoUnit", tr("Unit of the budget"), tr("All layers together"));
  unit_->addItems({tr("bits an element"), tr("bytes a token"), tr("MiB at the context")});
  budget_row->addWidget(budget_, 1);
  budget_row->addWidget(unit_);
  form->addRow(tr("Budget"), budget_row);
  tokens_ = spin("autoTokens", tr("Context"), 1, 1 << 24, 2048, tr("Tokens in the cache that the budget is for"));
  tokens_->setSuffix(tr(" tokens"));
  budget_text_ = new QLabel(question);
  budget_text_->setObjectName(QStringLiteral("autoBudgetText"));
  form->addRow(QString(), budget_text_);
  text_ =
      combo("autoText", tr("Text"), tr("Sensitivities are measured on its first windows, the check runs on the next"));
  form->addRow(tr("Text"), text_);
  window_ =
      spin("autoWindow", tr("Tokens in a window"), 8, 1 << 20, 256, tr("Longer windows quantize more of the cache"));
  windows_ =
      spin("autoWindows", tr("Windows"), 1, 1000, 1, tr("More windows give steadier sensitivities and take longer"));
  calibration_ = combo("autoCalibration", tr("Calibration text"), tr("Text that calibrated candidates learn from"));
  form->addRow(tr("Calibration text"), calibration_);

  auto* label = new QLabel(tr("&Candidates: a layer gets one of these"), question);
  column->addWidget(label);
  candidates_ = new QListWidget(question);
  candidates_->setObjectName(QStringLiteral("autoCandidates"));
  candidates_->setAccessibleName(tr("Candidates"));
  candidates_->setToolTip(tr("Space ticks a setup; each ticked one is measured in every layer alone"));
  label->setBuddy(candidates_);
  column->addWidget(candidates_, 1);
  auto* add_row = new QHBoxLayout;
  candidate_ = new QLineEdit(question);
  candidate_->setObjectName(QStringLiteral("autoCandidate"));
  candidate_->setAccessibleName(tr("Another candidate"));
  candidate_->setPlaceholderText(tr("another setup, such as kivi:k_bits=4"));
  auto* add = new QPushButton(tr("Add &candidate"), question);
  add->setObjectName(QStringLiteral("autoAddCandidate"));
  add->setAutoDefault(false);
  add_row->addWidget(candidate_, 1);
  add_row->addWidget(add);
  column->addLayout(add_row);
  problem_ = new QLabel(question);
  problem_->setObjectName(QStringLiteral("autoProblem"));
  problem_->setWordWrap(true);
  QPalette palette = problem_->palette();
  palette.setColor(QPalette::WindowText, FigureStyle::screen(*problem_).warning);
  problem_->setPalette(palette);
  column->addWidget(problem_);
  auto* run_row = new QHBoxLayout;
  run_ = new QPushButton(tr("&Measure and choose"), question);
  run_->setObjectName(QStringLiteral("autoRun"));
  cancel_ = new QPushButton(tr("Cancel"), question);
  cancel_->setObjectName(QStringLiteral("autoCancel"));
  cancel_->setToolTip(tr("What was measured is remembered; the next search goes on from there"));
  for (QPushButton* button : {run_, cancel_}) button->setAutoDefault(false);
  run_row->addWidget(run_);
  run_row->addWidget(cancel_);
  run_row->addStretch(1);
  column->addLayout(run_row);
  progress_ = new QProgressBar(question);
  progress_->setObjectName(QStringLiteral("autoProgress"));
  progress_->setRange(0, 1000);
  column->addWidget(progress_);
  connect(add, &QPushButton::clicked, this, &AutoDialog::addCandidate);
  connect(candidate_, &QLineEdit::returnPressed, this, &AutoDialog::addCandidate);
  connect(run_, &QPushButton::clicked, this, &AutoDialog::start);
  connect(cancel_, &QPushButton::clicked, this, [this] { workbench_.jobs().cancel(job_); });
  connect(candidates_, &QListWidget::itemChanged, this, &AutoDialog::refresh);
  connect(budget_, &QDoubleSpinBox::valueChanged, this, &AutoDialog::refresh);
  connect(tokens_, &QSpinBox::valueChanged, this, &AutoDialog::refresh);
  connect(windows_, &QSpinBox::valueChanged, this, &AutoDialog::refresh);
  connect(unit_, &QComboBox::currentIndexChanged, this, [this, last = 0](int unit) mutable {
    // The same budget in the new unit.
    if (!spec_) return;
    const double bytes_a_bit = double(bits_shape(*spec_, 1).cached_elements_per_token()) / 8.0;
    const double in_mebibytes = double(tokens_->value()) / 1048576.0;
    const auto factor = [&](int of) {
      return of == Bits ? 1.0 : of == BytesAToken ? bytes_a_bit : bytes_a_bit * in_mebibytes;
    };
    budget_->setValue(budget_->value() / factor(last) * factor(unit));
    last = unit;
    refresh();
  });
  return question;
}

QWidget* AutoDialog::buildAnswer() {
  auto* answer = new QWidget(this);
  auto* column = new QVBoxLayout(answer);
  column->setContentsMargins(6, 0, 0, 0);
  column->addWidget(new QLabel(tr("KL divergence of each layer alone under each candidate, nats a token"), answer));
  sensitivity_ = new SensitivityModel(this);
  table_ = new QTableView(answer);
  table_->setObjectName(QStringLiteral("autoTable"));
  table_->setAccessibleName(tr("Sensitivity of the layers"));
  table_->setModel(sensitivity_);
  table_->setTabKeyNavigation(false);
  table_->verticalHeader()->setDefaultSectionSize(fontMetrics().lineSpacing() + 6);
  table_->horizontalHeader()->setTextElideMode(Qt::ElideMiddle);
  column->addWidget(table_, 1);
  summary_ = new QLabel(tr("Nothing was measured yet."), answer);
  summary_->setObjectName(QStringLiteral("autoSummary"));
  summary_->setWordWrap(true);
  summary_->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  column->addWidget(summary_);
  return answer;
}

void AutoDialog::loadSpec() {
  spec_.reset();
  result_.reset();
  const QString id = model_->currentData().toString();
  const QString evaluated = QFileInfo(workbench_.resolvePath(workbench_.evaluationText(id))).fileName();
  const VariantEntry of_model{{}, {}, id, {}, {}};
  const QString learned = QFileInfo(workbench_.resolvePath(workbench_.calibrationText(of_model))).fileName();
  fill_text_list(*text_, workbench_, evaluated, {});
  fill_text_list(*calibration_, workbench_, tr("%1 (not the text that is measured)").arg(learned), {});
  refresh();
  const auto model = workbench_.modelEntry(id);
  if (!model) return;
  workbench_.jobs().compute(
      tr("Sizes of %1").arg(id), QStringLiteral("auto"), JobLane::Interactive,
      [path = workbench_.resolvePath(model->path)](const JobContext&) { return open_model(file_path(path)).spec; },
      this,
      [this, id](ArchitectureSpec spec) {
        if (model_->currentData().toString() != id) return;
        spec_ = std::move(spec);
        const int context = int(std::clamp<std::int64_t>(spec_->max_context, 1, 1 << 24));
        tokens_->setMaximum(context);
        window_->setMaximum(context);
        fillCandidates();
        refresh();
      },
      [this](const JobStatus& status) { problem_->setText(status.message); });
}

/// The presets of all methods that fit the model. At first full precision and a few of different widths are ticked.
void AutoDialog::fillCandidates() {
  const BitsShape shape = bits_shape(*spec_, tokens_->value());
  struct Found {
    QString line;
    double bits;
    bool by_hand;  ///< needs a calibration, or windows longer than those at first
  };
  std::vector<Found> found;
  for (const MethodInfo& info : kv_method_infos()) {
    for (const Preset& preset : info.presets) {
      const Setup setup{info.id, with_fallbacks(info.params, preset.params)};
      try {
        const auto method = make_kv_method(setup);
        // Those that follow attention are measured token by token; who wants that adds them by hand.
        if (!method->cannot_stream().empty() || method->depends_on_attention()) continue;
        const bool measurable = method->seen_by_query(KvRole::Value, window_->value() - 1).size() > 0;
        found.push_back({canonical(setup), kv_setup_bits(setup, shape), needs_kv_calibration(setup) || !measurable});
      } catch (const Error&) {
        // does not fit the model
      }
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.bits < b.bits; });
  {
    const QSignalBlocker quiet(candidates_);
    candidates_->clear();
  }
  addCandidateItem(QStringLiteral("none"), true);
  int ticked = 0;
  double last = 0.0;
  for (const Found& candidate : found) {
    const bool tick = ticked < kTickedAtFirst && !candidate.by_hand && candidate.bits > last + 0.5;
    if (tick) last = candidate.bits, ++ticked;
    addCandidateItem(candidate.line, tick);
  }
}

void AutoDialog::addCandidateItem(const QString& line, bool ticked) {
  const QSignalBlocker quiet(candidates_);
  QString bits = QStringLiteral("16");
  if (line != QLatin1String("none") && spec_) {
    const std::optional<Setup> setup = parse_kv_setup(line.toStdString());
    bits = QString::number(kv_setup_bits(setup, bits_shape(*spec_, tokens_->value())), 'f', 2);
  }
  auto* item = new QListWidgetItem(tr("%1   (%2 bits)").arg(line, bits), candidates_);
  item->setData(kLineRole, line);
  item->setFlags(item->flags() | Qt::ItemIsUserCheckable);
  item->setCheckState(ticked ? Qt::Checked : Qt::Unchecked);
}

void AutoDialog::addCandidate() {
  try {
    const std::optional<Setup> setup = parse_kv_setup(candidate_->text().trimmed().toStdString());
    if (setup && !setup->layers.empty())
      throw Error(ErrorCode::InvalidArgument, "A candidate is the setup of one layer, not a per-layer setup.");
    const QString line = canonical(setup);
    for (int row = 0; row < candidates_->count(); ++row) {
      if (candidates_->item(row)->data(kLineRole).toString() != line) continue;
      candidates_->item(row)->setCheckState(Qt::Checked);
      candidates_->setCurrentRow(row);
      return candidate_->clear();
    }
    addCandidateItem(line, true);
    candidates_->setCurrentRow(candidates_->count() - 1);
    candidate_->clear();
    refresh();
  } catch (const Error& error) {
    problem_->setText(QString::fromUtf8(error.what()));
  }
}

std::vector<Setup> AutoDialog::candidates() const {
  std::vector<Setup> setups;
  for (int row = 0; row < candidates_->count(); ++row) {
    if (candidates_->item(row)->checkState() != Qt::Checked) continue;
    const std::string line = candidates_->item(row)->data(kLineRole).toString().toStdString();
    setups.push_back(parse_kv_setup(line).value_or(Setup{.method = "none", .params = {}}));
  }
  return setups;
}

double AutoDialog::budgetBits() const {
  if (!spec_ || unit_->currentIndex() == Bits) return budget_->value();
  const double tokens = unit_->currentIndex() == MebibytesAtContext ? double(tokens_->value()) / 1048576.0 : 1.0;
  return bits_of_bytes_a_token(*spec_, budget_->value() / tokens);
}

void AutoDialog::refresh() {
  const bool running = job_ != 0;
  QStringList problems;
  std::vector<Setup> chosen;
  try {
    chosen = candidates();
  } catch (const Error& error) {
    problems << QString::fromUtf8(error.what());
  }
  if (model_->count() == 0) problems << tr("Open a model first (Model › Load).");
  if (spec_ && chosen.size() < 2) problems << tr("Tick at least two candidates.");
  const bool calibrated = std::any_of(chosen.begin(), chosen.end(), needs_kv_calibration);
  calibration_->setEnabled(calibrated);
  if (spec_) {
    const double bits = budgetBits(), elements = double(bits_shape(*spec_, 1).cached_elements_per_token());
    budget_text_->setText(tr("= %1 bits an element, %L2 B a token, %3 MiB at %L4 tokens")
                              .arg(bits, 0, 'f', 2)
                              .arg(qRound64(bits * elements / 8.0))
                              .arg(bits * elements / 8.0 * tokens_->value() / 1048576.0, 0, 'f', 2)
                              .arg(tokens_->value()));
    run_->setToolTip(tr("Runs %L1 windows: %2 candidates in %3 layers, and the check of the whole")
                         .arg(qint64(chosen.size()) * (spec_->layers + 1) * windows_->value() + windows_->value())
                         .arg(chosen.size())
                         .arg(spec_->layers));
  }
  problem_->setText(problems.join(u'\n'));
  run_->setEnabled(!running && spec_ && problems.isEmpty());
  cancel_->setEnabled(running);
  progress_->setVisible(running);
  add_->setEnabled(!running && result_.has_value());
  for (QWidget* input : {static_cast<QWidget*>(model_), static_cast<QWidget*>(candidates_)})
    input->setEnabled(!running);
}

void AutoDialog::start() {
  const QString model_id = model_->currentData().toString();
  const auto entry = workbench_.modelEntry(model_id);
  if (!entry || job_ != 0) return;
  const QString text = text_->currentData().toString(), learned = calibration_->currentData().toString();
  const VariantEntry of_model{{}, {}, model_id, {}, {}, learned};
  KvAutoRequest request;
  request.candidates = candidates();
  request.budget_bits = budgetBits();
  request.budget_tokens = tokens_->value();
  request.evaluation.window = window_->value();
  request.evaluation.windows = windows_->value();
  request.folder = file_path(workbench_.cacheFolder() + QStringLiteral("/kv-calibrations"));
  const bool calibrated = std::any_of(request.candidates.begin(), request.candidates.end(), needs_kv_calibration);
  const QString text_file = workbench_.resolvePath(text.isEmpty() ? workbench_.evaluationText(model_id) : text);
  const QString calibration_file =
      calibrated ? workbench_.resolvePath(workbench_.calibrationText(of_model)) : QString();
  result_.reset();
  sensitivity_->clear();
  progress_->setValue(0);
  progress_->setFormat(tr("Waiting"));
  job_ = workbench_.jobs().compute(
      tr("Choose setups layer by layer"), QStringLiteral("auto"), JobLane::Compute,
      [bench = &workbench_, model_id, request, text_file, calibration_file](const JobContext& job) {
        KvAutoRequest whole = request;
        whole.evaluation.text = read_text(file_path(text_file));
        if (!calibration_file.isEmpty()) whole.calibration = read_text(file_path(calibration_file));
        const auto model = bench->loadModel(model_id, job.part(0.0, 0.05));
        return choose_kv_setups(model, whole, job.part(0.05, 1.0));
      },
      this,
      [this](const KvAutoResult& result) {
        job_ = 0;
        result_ = result;
        showResult(result);
        refresh();
      },
      [this](const JobStatus& status) {
        job_ = 0;
        summary_->setText(
            status.state == JobState::Cancelled
                ? tr("Cancelled. What was measured is remembered; “Measure and choose” goes on from there.")
                : status.message);
        refresh();
      });
  summary_->setText(tr("Measuring..."));
  refresh();
}

void AutoDialog::showResult(const KvAutoResult& result) {
  QStringList names;
  std::vector<std::vector<double>> loss(result.choice.size());
  for (const KvAutoCandidate& candidate : result.candidates) {
    names << QString::fromStdString(candidate.setup);
    for (std::size_t layer = 0; layer < loss.size(); ++layer) loss[layer].push_back(candidate.layer_kl[layer]);
  }
  sensitivity_->setTable(names, loss, {result.choice.begin(), result.choice.end()});
  table_->resizeColumnsToContents();
  for (int column = 0; column < sensitivity_->columnCount(); ++column)
    table_->setColumnWidth(column, std::min(table_->columnWidth(column), 190));
  const auto kl = [](double value) { return QString::number(value, 'g', 3); };
  QStringList lines;
  lines << tr("Chosen: %1").arg(QString::fromStdString(result.setup));
  lines << tr("%1 of %2 bits, %L3 B a token at %L4 tokens")
               .arg(result.bits, 0, 'f', 3)
               .arg(result.budget_bits, 0, 'f', 3)
               .arg(qRound64(result.bytes_a_token(result.bits)))
               .arg(result.budget_tokens);
  lines << tr("KL divergence: predicted %1 (sum of the layers), measured %2 nats a token on %n window(s) %3", nullptr,
              int(result.check_windows))
               .arg(kl(result.predicted_kl), kl(result.measured_kl),
                    result.checked_on_other_windows ? tr("that the choice has not seen") : tr("of the choice itself"));
  if (result.best_uniform.empty()) {
    lines << tr("No candidate fits the budget in all layers.");
  } else {
    lines << tr("Best of one setup for all layers: %1, %2 bits, KL divergence %3")
                 .arg(QString::fromStdString(result.best_uniform))
                 .arg(result.uniform_bits, 0, 'f', 3)
                 .arg(kl(result.uniform_kl));
    if (!result.better) lines << tr("⚠ That one is better than the choice; use it.");
  }
  if (!result.calibration.empty())
    lines << tr("Calibrated candidates learned from %1.").arg(QString::fromStdString(result.calibration));
  if (result.remembered > 0)
    lines << tr("%L1 windows ran, %L2 were remembered from earlier searches.")
                 .arg(result.measured)
                 .arg(result.remembered);
  summary_->setText(lines.join(u'\n'));
}

std::optional<VariantEntry> AutoDialog::plan() const {
  if (!result_) return std::nullopt;
  VariantEntry entry;
  entry.name = tr("Chosen per layer, %1 bits").arg(result_->bits, 0, 'f', 2);
  entry.modelId = model_->currentData().toString();
  entry.kv = QString::fromStdString(result_->setup);
  if (!result_->calibration.empty()) entry.calibration = calibration_->currentData().toString();
  return entry;
}

void AutoDialog::keyPressEvent(QKeyEvent* event) {
  // Enter in the field adds a candidate; it must not reach the default button.
  const bool enter = event->key() == Qt::Key_Return || event->key() == Qt::Key_Enter;
  if (enter && candidate_->hasFocus()) return event->accept();
  QDialog::keyPressEvent(event);
}

void AutoDialog::done(int code) {
  if (job_ != 0) workbench_.jobs().cancel(job_);
  QDialog::done(code);
}

}  // namespace qs
