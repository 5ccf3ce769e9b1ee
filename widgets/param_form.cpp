#include "widgets/param_form.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/types/error.h"
#include "backend/types/setup.h"
#include "widgets/view_base.h"

namespace qs {

namespace {

QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

int decimalsOf(double value) {
  for (int decimals = 0; decimals < 9; ++decimals) {
    const double scaled = value * std::pow(10.0, decimals);
    if (std::abs(scaled - std::round(scaled)) < 1e-9 * std::max(1.0, std::abs(scaled))) return decimals;
  }
  return 9;
}

void colour(QLabel* label, const QColor& color) {
  QPalette palette = label->palette();
  palette.setColor(QPalette::WindowText, color);
  label->setPalette(palette);
}

QColor warningColor(const QWidget& widget) { return FigureStyle::screen(widget).warning; }

}  // namespace

ParamForm::ParamForm(QWidget* parent) : QWidget(parent) { build(); }

ParamForm::ParamForm(const std::vector<ParamSpec>& specs, QWidget* parent) : QWidget(parent) {
  method_.params = specs;
  values_ = preset_ = with_fallbacks(specs, {});
  build();
}

void ParamForm::setMethod(const MethodInfo& method, const ParamSet& params) {
  method_ = method;
  values_ = with_fallbacks(method.params, params);
  preset_ = with_fallbacks(method.params, {});
  outside_.clear();
  build();
}

ParamSet ParamForm::presetValues(int index) const {
  if (index <= 0 || index > static_cast<int>(method_.presets.size())) return with_fallbacks(method_.params, {});
  return with_fallbacks(method_.params, method_.presets[static_cast<std::size_t>(index - 1)].params);
}

void ParamForm::build() {
  rows_.clear();
  presets_ = nullptr;
  delete content_;
  delete layout();
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  content_ = new QWidget(this);
  outer->addWidget(content_);
  auto* column = new QVBoxLayout(content_);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(4);

  if (!method_.summary.empty()) {
    auto* summary = new QLabel(text(method_.summary), content_);
    summary->setWordWrap(true);
    summary->setToolTip(text(method_.citation));
    column->addWidget(summary);
  }
  if (!method_.runs_here) {
    auto* why = new QLabel(text(method_.why_not), content_);
    why->setObjectName(QStringLiteral("why_not"));
    why->setWordWrap(true);
    colour(why, warningColor(*this));
    column->addWidget(why);
  }
  general_ = new QLabel(content_);
  general_->setObjectName(QStringLiteral("general_issue"));
  general_->setWordWrap(true);
  colour(general_, warningColor(*this));
  general_->hide();
  column->addWidget(general_);

  auto* form = new QFormLayout;
  form->setHorizontalSpacing(10);
  form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  column->addLayout(form);
  if (!method_.presets.empty()) {
    presets_ = new QComboBox(content_);
    presets_->setObjectName(QStringLiteral("preset"));
    presets_->setAccessibleName(tr("Preset"));
    presets_->setToolTip(tr("Sets all parameters to published values; what you change afterwards is marked."));
    presets_->addItem(tr("Defaults"));
    for (const Preset& preset : method_.presets) {
      presets_->addItem(text(preset.label));
      presets_->setItemData(presets_->count() - 1, text(preset.source), Qt::ToolTipRole);
    }
    auto* label = new QLabel(tr("&Preset"), content_);
    label->setBuddy(presets_);
    form->addRow(label, presets_);
    for (int index = 0; index < presets_->count(); ++index) {
      if (presetValues(index) == values_) {
        presets_->setCurrentIndex(index);
        break;
      }
    }
    preset_ = presetValues(presets_->currentIndex());
    connect(presets_, &QComboBox::activated, this, [this](int index) {
      preset_ = presetValues(index);
      values_ = preset_;
      showValues();
      Q_EMIT valuesChanged();
    });
  }

  const bool any_advanced =
      std::any_of(method_.params.begin(), method_.params.end(), [](const ParamSpec& s) { return s.advanced; });
  advanced_ = new QWidget(content_);
  auto* advancedForm = new QFormLayout(advanced_);
  advancedForm->setContentsMargins(12, 0, 0, 0);
  for (const ParamSpec& spec : method_.params) {
    Row row = makeRow(spec);
    auto* cell = new QWidget(content_);
    auto* stack = new QVBoxLayout(cell);
    stack->setContentsMargins(0, 0, 0, 0);
    stack->setSpacing(0);
    auto* across = new QHBoxLayout;
    across->setSpacing(2);
    across->addWidget(row.editor, 1);
    across->addWidget(row.reset);
    stack->addLayout(across);
    stack->addWidget(row.issue);
    (spec.advanced ? advancedForm : form)->addRow(row.label, cell);
    rows_[spec.key] = row;
  }
  fold_ = new QToolButton(content_);
  fold_->setObjectName(QStringLiteral("advanced"));
  fold_->setText(tr("Advanced"));
  fold_->setAccessibleName(tr("Show advanced parameters"));
  fold_->setToolTip(tr("Parameters that the papers leave at their defaults"));
  fold_->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  fold_->setArrowType(Qt::RightArrow);
  fold_->setCheckable(true);
  fold_->setAutoRaise(true);
  fold_->setVisible(any_advanced);
  advanced_->setVisible(false);
  connect(fold_, &QToolButton::toggled, this, [this](bool open) {
    fold_->setArrowType(open ? Qt::DownArrow : Qt::RightArrow);
    advanced_->setVisible(open);
  });
  column->addWidget(fold_);
  column->addWidget(advanced_);

  line_ = new QLineEdit(content_);
  line_->setObjectName(QStringLiteral("setup_line"));
  line_->setAccessibleName(tr("Setup as one line"));
  line_->setToolTip(tr("The same values as the command line takes them; edit and press Enter."));
  lineIssue_ = new QLabel(content_);
  lineIssue_->setObjectName(QStringLiteral("setup_line_issue"));
  lineIssue_->setWordWrap(true);
  colour(lineIssue_, warningColor(*this));
  lineIssue_->hide();
  line_->setVisible(!method_.id.empty());
  connect(line_, &QLineEdit::editingFinished, this, &ParamForm::applyLine);
  column->addWidget(line_);
  column->addWidget(lineIssue_);
  column->addStretch(1);
  showValues();
}

ParamForm::Row ParamForm::makeRow(const ParamSpec& spec) {
  Row row;
  row.advanced = spec.advanced;
  const std::string key = spec.key;
  const QString unit = spec.unit.empty() ? QString() : QStringLiteral(" ") + text(spec.unit);
  if (std::holds_alternative<bool>(spec.fallback)) {
    auto* box = new QCheckBox(content_);
    connect(box, &QCheckBox::toggled, this, [this, key](bool on) { setValue(key, on); });
    row.editor = box;
  } else if (std::holds_alternative<int>(spec.fallback)) {
    auto* box = new QSpinBox(content_);
    const auto* range = std::get_if<IntRange>(&spec.domain);
    box->setRange(range ? range->min : std::numeric_limits<int>::min(),
                  range ? range->max : std::numeric_limits<int>::max());
    box->setSuffix(unit);
    connect(box, &QSpinBox::valueChanged, this, [this, key](int value) { setValue(key, value); });
    row.editor = box;
  } else if (const auto* real = std::get_if<double>(&spec.fallback)) {
    auto* box = new QDoubleSpinBox(content_);
    const auto* range = std::get_if<RealRange>(&spec.domain);
    const double low = range ? range->min : -1e12, high = range ? range->max : 1e12;
    box->setDecimals(std::clamp(std::max({decimalsOf(*real) + 1, decimalsOf(low), 2}), 2, 9));
    box->setRange(low, high);
    box->setSingleStep(range && high - low <= 2.0 ? 0.05 : range && high - low <= 20.0 ? 0.1 : 1.0);
    box->setSuffix(unit);
    connect(box, &QDoubleSpinBox::valueChanged, this, [this, key](double value) { setValue(key, value); });
    row.editor = box;
  } else if (const auto* choices = std::get_if<Choices>(&spec.domain)) {
    auto* box = new QComboBox(content_);
    for (const std::string& choice : choices->values) box->addItem(text(choice));
    connect(box, &QComboBox::currentTextChanged, this,
            [this, key](const QString& value) { setValue(key, value.toStdString()); });
    row.editor = box;
  } else {
    auto* box = new QLineEdit(content_);
    connect(box, &QLineEdit::textEdited, this,
            [this, key](const QString& value) { setValue(key, value.toStdString()); });
    row.editor = box;
  }
  QString tip = text(spec.help);
  if (const QString domain = text(describe_domain(spec)); !domain.isEmpty()) {
    tip += (tip.isEmpty() ? QString() : QStringLiteral("\n")) + tr("Valid: %1").arg(domain);
  }
  tip += (tip.isEmpty() ? QString() : QStringLiteral("\n")) + tr("Default: %1").arg(text(format_value(spec.fallback)));
  row.editor->setObjectName(text(spec.key));
  row.editor->setToolTip(tip);
  row.editor->setAccessibleName(text(spec.label));
  row.editor->setAccessibleDescription(text(spec.help));
  row.label = new QLabel(text(spec.label), content_);
  row.label->setBuddy(row.editor);
  row.label->setToolTip(tip);
  row.reset = new QToolButton(content_);
  row.reset->setObjectName(text(spec.key) + QStringLiteral("_reset"));
  row.reset->setText(QStringLiteral("↺"));
  row.reset->setAutoRaise(true);
  row.reset->setAccessibleName(tr("Reset %1").arg(text(spec.label)));
  QSizePolicy keep = row.reset->sizePolicy();
  keep.setRetainSizeWhenHidden(true);
  row.reset->setSizePolicy(keep);
  connect(row.reset, &QToolButton::clicked, this, [this, key] {
    setValue(key, preset_.at(key));
    showValues();
  });
  row.issue = new QLabel(content_);
  row.issue->setObjectName(text(spec.key) + QStringLiteral("_issue"));
  row.issue->setWordWrap(true);
  colour(row.issue, warningColor(*this));
  row.issue->hide();
  return row;
}

void ParamForm::setValue(const std::string& key, const ParamValue& value) {
  if (showing_ || values_.at(key) == value) return;
  values_[key] = value;
  showMarks();
  Q_EMIT valuesChanged();
}

void ParamForm::setValues(const ParamSet& params) {
  const ParamSet next = with_fallbacks(method_.params, params);
  if (next == values_) return;
  values_ = next;
  showValues();
  Q_EMIT valuesChanged();
}

void ParamForm::setOutsideIssues(std::vector<ParamIssue> issues) {
  outside_ = std::move(issues);
  showMarks();
}

std::vector<ParamIssue> ParamForm::issues() const {
  std::vector<ParamIssue> all = check(method_.params, values_);
  all.insert(all.end(), outside_.begin(), outside_.end());
  return all;
}

QString ParamForm::setupLine() const {
  if (!method_.id.empty()) return text(format_setup({method_.id, values_}, {method_}));
  QStringList parts;
  for (const auto& [key, value] : values_) parts << text(key) + u'=' + text(format_value(value));
  return parts.join(u',');
}

void ParamForm::showValues() {
  showing_ = true;
  for (const auto& [key, row] : rows_) {
    const ParamValue& value = values_.at(key);
    if (auto* box = qobject_cast<QCheckBox*>(row.editor); box && std::holds_alternative<bool>(value)) {
      box->setChecked(std::get<bool>(value));
    } else if (auto* spin = qobject_cast<QSpinBox*>(row.editor); spin && std::holds_alternative<int>(value)) {
      spin->setValue(std::get<int>(value));
    } else if (auto* real = qobject_cast<QDoubleSpinBox*>(row.editor); real && std::holds_alternative<double>(value)) {
      real->setValue(std::get<double>(value));
    } else if (auto* combo = qobject_cast<QComboBox*>(row.editor);
               combo && std::holds_alternative<std::string>(value)) {
      combo->setCurrentIndex(combo->findText(text(std::get<std::string>(value))));
    } else if (auto* edit = qobject_cast<QLineEdit*>(row.editor); edit && std::holds_alternative<std::string>(value)) {
      edit->setText(text(std::get<std::string>(value)));
    }
  }
  showing_ = false;
  showMarks();
}

void ParamForm::showMarks() {
  std::map<std::string, QString> problems;
  QString general;
  for (const ParamIssue& issue : issues()) {
    QString& place = rows_.count(issue.key) ? problems[issue.key] : general;
    place += (place.isEmpty() ? QString() : QStringLiteral("\n")) + text(issue.message);
  }
  for (const auto& [key, row] : rows_) {
    const auto preset = preset_.find(key);
    const bool differs = preset != preset_.end() && preset->second != values_.at(key);
    QFont font = row.label->font();
    font.setBold(differs);
    row.label->setFont(font);
    row.reset->setVisible(differs);
    if (differs)
      row.reset->setToolTip(tr("Differs from the preset; back to %1").arg(text(format_value(preset->second))));
    const auto problem = problems.find(key);
    row.issue->setVisible(problem != problems.end());
    row.issue->setText(problem != problems.end() ? problem->second : QString());
  }
  general_->setText(general);
  general_->setVisible(!general.isEmpty());
  if (line_) {
    const QSignalBlocker quiet(line_);
    line_->setText(setupLine());
    line_->setCursorPosition(0);
  }
  lineIssue_->hide();
}

void ParamForm::applyLine() {
  const QString wanted = line_->text().trimmed();
  if (wanted == setupLine()) return;
  try {
    const std::optional<Setup> setup = parse_setup(wanted.toStdString(), {method_});
    if (!setup) throw Error(ErrorCode::InvalidArgument, "A setup starts with '" + method_.id + "'.");
    lineIssue_->hide();
    setValues(setup->params);
    showMarks();
  } catch (const Error& error) {
    lineIssue_->setText(QString::fromUtf8(error.what()));
    lineIssue_->show();
  }
}

}  // namespace qs
