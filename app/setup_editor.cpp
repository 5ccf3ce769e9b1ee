#include "app/setup_editor.h"

#include <QComboBox>
#include <QFormLayout>
#include <QGroupBox>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>

#include "app/solve_row.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "backend/types/setup.h"
#include "widgets/models/published_model.h"
#include "widgets/param_form.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr int kPublishedRows = 12;

QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

/// The parameter that a message names in quotation marks; empty when it names none.
std::string named_key(const std::string& message, const MethodInfo& info) {
  for (const ParamSpec& spec : info.params) {
    if (message.find("'" + spec.key + "'") != std::string::npos) return spec.key;
  }
  return {};
}

bool may_follow(const MethodInfo& info, const MethodInfo& before) {
  const auto& places = info.may_follow;
  return std::any_of(places.begin(), places.end(), [&](const std::string& id) { return id == "*" || id == before.id; });
}

}  // namespace

SetupEditor::SetupEditor(PlanSide side, JobRunner* jobs, QWidget* parent)
    : QWidget(parent), side_(side), methods_(side == PlanSide::Kv ? kv_method_infos() : weight_method_infos()) {
  const QString prefix = side == PlanSide::Kv ? QStringLiteral("plan") : QStringLiteral("planWeight");
  auto* column = new QVBoxLayout(this);
  head_ = new QFormLayout;
  column->addLayout(head_);
  method_ = new QComboBox(this);
  method_->setObjectName(prefix + QStringLiteral("Method"));
  method_->setAccessibleName(tr("Method"));
  method_->setToolTip(tr("None leaves this side in full precision"));
  method_->setPlaceholderText(tr("Differs from layer to layer"));
  method_->addItem(tr("None (full precision)"));
  for (const MethodInfo& info : methods_) {
    const bool activations = info.family == MethodFamily::WeightActivation;
    method_->addItem(activations ? tr("%1 (weights and activations)").arg(text(info.title)) : text(info.title),
                     text(info.id));
    method_->setItemData(method_->count() - 1, text(info.summary), Qt::ToolTipRole);
  }
  head_->addRow(tr("M&ethod"), method_);
  next_ = new QComboBox(this);
  next_->setObjectName(prefix + QStringLiteral("Next"));
  next_->setAccessibleName(tr("Second method"));
  next_->setToolTip(tr("A method that works on the result of the first; setup lines join the two by a plus sign"));
  head_->addRow(tr("&Followed by"), next_);
  form_ = new ParamForm(this);
  column->addWidget(form_);
  next_box_ = new QGroupBox(this);
  auto* next_column = new QVBoxLayout(next_box_);
  next_form_ = new ParamForm(next_box_);
  next_form_->setObjectName(prefix + QStringLiteral("NextForm"));
  next_column->addWidget(next_form_);
  column->addWidget(next_box_);
  layers_box_ = new QWidget(this);
  auto* layers_column = new QVBoxLayout(layers_box_);
  layers_column->setContentsMargins(0, 0, 0, 0);
  layers_text_ = new QLabel(layers_box_);
  layers_text_->setObjectName(prefix + QStringLiteral("LayersText"));
  layers_text_->setWordWrap(true);
  layers_text_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  layers_column->addWidget(layers_text_);
  auto* edit = new QPushButton(tr("Edit layer by &layer..."), layers_box_);
  edit->setObjectName(prefix + QStringLiteral("EditLayers"));
  edit->setAutoDefault(false);
  layers_column->addWidget(edit, 0, Qt::AlignLeft);
  column->addWidget(layers_box_);
  cost_ = new QLabel(this);
  cost_->setObjectName(prefix + QStringLiteral("Cost"));
  cost_->setWordWrap(true);
  column->addWidget(cost_);
  if (jobs) {
    solve_ = new SolveRow(side == PlanSide::Kv, *jobs, this);
    column->addWidget(solve_);
    connect(solve_, &SolveRow::solved, this, &SetupEditor::applySolution);
    published_box_ = new QGroupBox(tr("Published, measured elsewhere under other protocols"), this);
    auto* published_column = new QVBoxLayout(published_box_);
    published_model_ = new PublishedModel(this);
    published_table_ = new QTableView(published_box_);
    published_table_->setObjectName(prefix + QStringLiteral("Published"));
    published_table_->setAccessibleName(tr("Published numbers of the method"));
    published_table_->setModel(published_model_);
    published_table_->setSelectionBehavior(QAbstractItemView::SelectRows);
    published_table_->setTabKeyNavigation(false);
    published_table_->verticalHeader()->hide();
    published_table_->verticalHeader()->setDefaultSectionSize(fontMetrics().lineSpacing() + 6);
    published_table_->setMinimumHeight(fontMetrics().lineSpacing() * 9);
    published_column->addWidget(published_table_);
    column->addWidget(published_box_);
  }
  column->addStretch(1);
  connect(method_, &QComboBox::currentIndexChanged, this, &SetupEditor::chooseMethod);
  connect(next_, &QComboBox::currentIndexChanged, this, &SetupEditor::chooseNext);
  connect(form_, &ParamForm::valuesChanged, this, &SetupEditor::refresh);
  connect(next_form_, &ParamForm::valuesChanged, this, &SetupEditor::refresh);
  connect(edit, &QPushButton::clicked, this, &SetupEditor::perLayerRequested);
  chooseMethod();
}

SetupEditor::~SetupEditor() {
  if (published_table_) published_table_->setModel(nullptr);
}

const MethodInfo* SetupEditor::info() const {
  const int row = method_->currentIndex() - 1;
  return row < 0 ? nullptr : &methods_[std::size_t(row)];
}

const MethodInfo* SetupEditor::next() const {
  const std::string id = next_->currentData().toString().toStdString();
  for (const MethodInfo& method : methods_) {
    if (!id.empty() && method.id == id) return &method;
  }
  return nullptr;
}

std::optional<Setup> SetupEditor::parse(const QString& line) const {
  return side_ == PlanSide::Kv ? parse_kv_setup(line.toStdString()) : parse_weight_setup(line.toStdString());
}

bool SetupEditor::differsByLayer() const { return !layers_.isEmpty(); }

QString SetupEditor::line() const {
  if (differsByLayer()) return layers_;
  if (!info()) return {};
  return next() ? form_->setupLine() + u'+' + next_form_->setupLine() : form_->setupLine();
}

std::optional<Setup> SetupEditor::setup() const { return issues_.isEmpty() ? parse(line()) : std::nullopt; }

QStringList SetupEditor::issues() const { return issues_; }

void SetupEditor::setLine(const QString& line) {
  std::optional<Setup> setup;
  try {
    setup = parse(line);
  } catch (const Error&) {
    setup.reset();
  }
  setting_ = true;
  layers_.clear();
  if (setup && !setup->layers.empty()) {
    layers_ = line;
    method_->setCurrentIndex(-1);
    chooseMethod();
  } else {
    method_->setCurrentIndex(setup ? std::max(0, method_->findData(text(setup->method))) : 0);
    chooseMethod();
    if (setup && info()) form_->setMethod(*info(), setup->params);
    if (setup && !setup->then.empty()) {
      next_->setCurrentIndex(std::max(0, next_->findData(text(setup->then.front().method))));
      chooseNext();
      if (next()) next_form_->setMethod(*next(), setup->then.front().params);
    }
  }
  setting_ = false;
  refresh();
}

void SetupEditor::chooseMethod() {
  if (!setting_) layers_.clear();
  const MethodInfo* chosen = info();
  {
    const QSignalBlocker quiet(next_);
    next_->clear();
    next_->addItem(tr("Nothing"));
    for (const MethodInfo& method : methods_) {
      if (chosen && may_follow(method, *chosen)) next_->addItem(text(method.title), text(method.id));
    }
  }
  next_->setVisible(next_->count() > 1);
  head_->labelForField(next_)->setVisible(next_->count() > 1);
  form_->setVisible(chosen != nullptr);
  if (chosen) form_->setMethod(*chosen);
  chooseNext();
}

void SetupEditor::chooseNext() {
  const MethodInfo* chosen = next();
  next_box_->setVisible(chosen != nullptr);
  if (chosen) {
    next_box_->setTitle(tr("Followed by %1").arg(text(chosen->title)));
    next_form_->setMethod(*chosen);
  }
  refresh();
}

void SetupEditor::setShape(std::optional<BitsShape> shape) {
  shape_ = std::move(shape);
  if (solve_) solve_->setShape(shape_);
  refresh();
}

void SetupEditor::setPublished(std::vector<PublishedNumber> numbers) {
  published_ = std::move(numbers);
  showPublished();
}

void SetupEditor::focusSolve() {
  if (solve_) solve_->focusTarget();
}

void SetupEditor::applySolution(const QString& key, const ParamValue& value) {
  const QString behind = next() ? text(next()->id) + u'.' : QString();
  ParamForm* form = !behind.isEmpty() && key.startsWith(behind) ? next_form_ : form_;
  ParamSet values = form->values();
  values[(form == next_form_ ? key.mid(behind.size()) : key).toStdString()] = value;
  form->setValues(values);
}

void SetupEditor::refresh() {
  if (setting_) return;
  layers_box_->setVisible(differsByLayer());
  layers_text_->setText(tr("The setup differs from layer to layer:\n%1").arg(layers_));
  form_->setOutsideIssues({});
  next_form_->setOutsideIssues({});
  issues_.clear();
  std::optional<Setup> setup;
  for (const ParamForm* form : {info() ? form_ : nullptr, next() ? next_form_ : nullptr}) {
    if (!form) continue;
    if (!form->method().runs_here) issues_ << text(form->method().why_not);
    for (const ParamIssue& issue : form->issues()) issues_ << text(issue.message);
  }
  if (issues_.isEmpty()) {
    try {
      setup = parse(line());
      if (setup && shape_) side_ == PlanSide::Kv ? kv_setup_bits(setup, *shape_) : weight_setup_bits(setup, *shape_);
    } catch (const Error& error) {
      const std::string message = error.what();
      issues_ << text(message);
      setup.reset();
      if (next() && !named_key(message, *next()).empty())
        next_form_->setOutsideIssues({{named_key(message, *next()), message}});
      else if (info())
        form_->setOutsideIssues({{named_key(message, *info()), message}});
    }
  }
  showCost(setup);
  if (solve_) {
    solve_->setVisible(info() != nullptr);
    solve_->setSetup(setup, methods_);
  }
  showPublished();
  Q_EMIT changed();
}

void SetupEditor::showCost(const std::optional<Setup>& setup) {
  cost_->setVisible(shape_ && (setup || !issues_.isEmpty()));
  if (!issues_.isEmpty()) {
    // Issues of a form stand at their parameter; those of a per-layer line have no other place.
    cost_->setText(differsByLayer() ? issues_.join(u'\n') : QString());
    cost_->setVisible(differsByLayer());
    return;
  }
  if (!shape_ || !setup) return;
  if (side_ == PlanSide::Weights) {
    cost_->setText(tr("%1 effective bits a weight").arg(weight_setup_bits(setup, *shape_), 0, 'f', 3));
    return;
  }
  const double bits = kv_setup_bits(setup, *shape_);
  const double bytes = bits * double(shape_->cached_elements_per_token()) / 8.0;
  cost_->setText(tr("%1 effective bits at %L2 tokens: %L3 B a token over all layers, %L4 B in 16 bits")
                     .arg(bits, 0, 'f', 3)
                     .arg(shape_->tokens)
                     .arg(qRound64(bytes))
                     .arg(shape_->cached_elements_per_token() * 2));
}

void SetupEditor::showPublished() {
  if (!published_model_) return;
  std::vector<PublishedNumber> rows;
  if (info()) rows = nearest_published(published_, *info(), form_->setupLine().toStdString());
  if (rows.size() > std::size_t(kPublishedRows)) rows.resize(kPublishedRows);
  published_box_->setVisible(!rows.empty());
  published_model_->setNumbers(std::move(rows));
  published_table_->resizeColumnsToContents();
}

}  // namespace qs
