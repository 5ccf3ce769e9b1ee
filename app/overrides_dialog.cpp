#include "app/overrides_dialog.h"

#include <QDialogButtonBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QItemSelectionModel>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QRegularExpression>
#include <QRegularExpressionValidator>
#include <QScrollArea>
#include <QSplitter>
#include <QTableView>
#include <QVBoxLayout>

#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "widgets/models/layer_setups_model.h"

namespace qs {
namespace {

QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

std::optional<Setup> parse(PlanSide side, const QString& line) {
  return side == PlanSide::Kv ? parse_kv_setup(line.toStdString()) : parse_weight_setup(line.toStdString());
}

}  // namespace

OverridesDialog::OverridesDialog(PlanSide side, const QString& line, BitsShape shape, QWidget* parent)
    : QDialog(parent),
      side_(side),
      shape_(std::move(shape)),
      lines_(std::size_t(shape_.layers()), line),
      methods_(side == PlanSide::Kv ? kv_method_infos() : weight_method_infos()) {
  setObjectName(QStringLiteral("overridesDialog"));
  setWindowTitle(side == PlanSide::Kv ? tr("Key-value cache, layer by layer") : tr("Weights, layer by layer"));
  resize(980, 640);
  auto* column = new QVBoxLayout(this);
  auto* split = new QSplitter(Qt::Horizontal, this);
  split->setObjectName(QStringLiteral("overridesSplit"));
  column->addWidget(split, 1);

  auto* left = new QWidget(split);
  auto* left_column = new QVBoxLayout(left);
  left_column->setContentsMargins(0, 0, 0, 0);
  auto* range_row = new QHBoxLayout;
  range_ = new QLineEdit(left);
  range_->setObjectName(QStringLiteral("overridesRange"));
  range_->setAccessibleName(tr("Layers to select"));
  range_->setPlaceholderText(tr("0-3,7 or *"));
  range_->setToolTip(tr("Layers to select: numbers and ranges separated by commas, * for all; Enter selects them"));
  range_->setValidator(new QRegularExpressionValidator(QRegularExpression(QStringLiteral("[0-9,\\- *]*")), range_));
  auto* range_label = new QLabel(tr("Select &layers"), left);
  range_label->setBuddy(range_);
  range_row->addWidget(range_label);
  range_row->addWidget(range_, 1);
  left_column->addLayout(range_row);
  model_ = new LayerSetupsModel(this);
  table_ = new QTableView(left);
  table_->setObjectName(QStringLiteral("overridesTable"));
  table_->setAccessibleName(tr("Setups of the layers"));
  table_->setToolTip(tr("Select layers with Shift and Ctrl; the form on the right changes all of them"));
  table_->setModel(model_);
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setTabKeyNavigation(false);
  table_->setAlternatingRowColors(true);
  table_->verticalHeader()->setDefaultSectionSize(fontMetrics().lineSpacing() + 6);
  table_->horizontalHeader()->setSectionResizeMode(LayerSetupsModel::Line, QHeaderView::Stretch);
  left_column->addWidget(table_, 1);
  split->addWidget(left);

  auto* right = new QWidget(split);
  auto* right_column = new QVBoxLayout(right);
  right_column->setContentsMargins(6, 0, 0, 0);
  which_ = new QLabel(right);
  which_->setObjectName(QStringLiteral("overridesWhich"));
  right_column->addWidget(which_);
  auto* scroll = new QScrollArea(right);
  scroll->setObjectName(QStringLiteral("overridesScroll"));
  scroll->setAccessibleName(tr("Setup of the selected layers"));
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  editor_ = new SetupEditor(side, nullptr, scroll);
  editor_->setShape(shape_);
  scroll->setWidget(editor_);
  right_column->addWidget(scroll, 1);
  split->addWidget(right);
  split->setSizes({540, 420});

  total_ = new QLabel(this);
  total_->setObjectName(QStringLiteral("overridesTotal"));
  total_->setWordWrap(true);
  column->addWidget(total_);
  assembled_ = new QLineEdit(this);
  assembled_->setObjectName(QStringLiteral("overridesLine"));
  assembled_->setAccessibleName(tr("The whole as one setup line"));
  assembled_->setReadOnly(true);
  column->addWidget(assembled_);
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  QPushButton* use = buttons_->addButton(tr("Use these setups"), QDialogButtonBox::AcceptRole);
  use->setObjectName(QStringLiteral("overridesAccept"));
  column->addWidget(buttons_);

  try {
    if (const std::optional<Setup> setup = parse(side_, line); setup && !setup->layers.empty()) {
      for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
        Setup of_layer = setup_of_layer(*setup, layer);
        of_layer.range = {};
        lines_[std::size_t(layer)] = of_layer.method == "none" ? QString() : text(format_setup(of_layer, methods_));
      }
    }
  } catch (const Error&) {
    // A line that does not fit this model: every layer begins with it and says what is wrong.
  }
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(range_, &QLineEdit::returnPressed, this, &OverridesDialog::selectRange);
  connect(table_->selectionModel(), &QItemSelectionModel::selectionChanged, this, &OverridesDialog::selectionChanged);
  connect(editor_, &SetupEditor::changed, this, &OverridesDialog::applyToSelected);
  refresh();
  table_->selectRow(0);
  table_->setFocus();
}

OverridesDialog::~OverridesDialog() { table_->setModel(nullptr); }

void OverridesDialog::keyPressEvent(QKeyEvent* event) {
  // Enter in the field selects layers; it must not reach the default button.
  const bool enter = event->key() == Qt::Key_Return || event->key() == Qt::Key_Enter;
  if (enter && range_->hasFocus()) return event->accept();
  QDialog::keyPressEvent(event);
}

std::vector<int> OverridesDialog::selectedLayers() const {
  std::vector<int> layers;
  for (const QModelIndex& row : table_->selectionModel()->selectedRows()) layers.push_back(row.row());
  std::sort(layers.begin(), layers.end());
  return layers;
}

void OverridesDialog::selectRange() {
  QItemSelection chosen;
  const int last = model_->rowCount() - 1;
  const auto add = [&](int from, int to) {
    if (from <= to && from <= last)
      chosen.select(model_->index(from, 0), model_->index(std::min(to, last), LayerSetupsModel::ColumnTotal - 1));
  };
  for (const QString& part : range_->text().remove(u' ').split(u',', Qt::SkipEmptyParts)) {
    if (part == QLatin1String("*")) {
      add(0, last);
      continue;
    }
    bool from_ok = false, to_ok = false;
    const int from = part.section(u'-', 0, 0).toInt(&from_ok), to = part.section(u'-', -1).toInt(&to_ok);
    if (from_ok && to_ok) add(from, to);
  }
  table_->selectionModel()->select(chosen, QItemSelectionModel::ClearAndSelect);
  if (!chosen.isEmpty()) table_->scrollTo(chosen.indexes().first());
}

void OverridesDialog::selectionChanged() {
  const std::vector<int> layers = selectedLayers();
  editor_->setEnabled(!layers.empty());
  if (layers.empty()) return which_->setText(tr("Select layers in the table."));
  QStringList parts;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t end = i;
    while (end + 1 < layers.size() && layers[end + 1] == layers[end] + 1) ++end;
    parts << (end == i ? QString::number(layers[i]) : QStringLiteral("%1-%2").arg(layers[i]).arg(layers[end]));
    i = end + 1;
  }
  which_->setText(layers.size() == 1 ? tr("Layer %1").arg(parts.first())
                                     : tr("Layers %1; a change applies to all of them").arg(parts.join(u',')));
  showing_ = true;
  editor_->setLine(lines_[std::size_t(layers.front())]);
  showing_ = false;
}

void OverridesDialog::applyToSelected() {
  if (showing_) return;
  for (const int layer : selectedLayers()) lines_[std::size_t(layer)] = editor_->line();
  refresh();
}

std::optional<Setup> OverridesDialog::assembled() const {
  Setup whole{.method = "layers", .params = {}};
  for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
    if (layer > 0 && lines_[std::size_t(layer)] == lines_[std::size_t(layer - 1)]) {
      whole.layers.back().range.last = layer;
      continue;
    }
    const std::optional<Setup> of_layer = parse(side_, lines_[std::size_t(layer)]);
    whole.layers.push_back(of_layer.value_or(Setup{.method = "none", .params = {}}));
    whole.layers.back().range = {layer, layer};
  }
  if (whole.layers.size() != 1) return whole;
  Setup plain = whole.layers.front();
  plain.range = {};
  return plain.method == "none" ? std::nullopt : std::optional<Setup>(plain);
}

QString OverridesDialog::line() const {
  const std::optional<Setup> setup = assembled();
  return setup ? text(format_setup(*setup, methods_)) : QString();
}

void OverridesDialog::refresh() {
  std::vector<LayerSetupRow> rows;
  bool valid = true;
  for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
    LayerSetupRow& row = rows.emplace_back();
    row.line = lines_[std::size_t(layer)];
    row.method = tr("full precision");
    try {
      if (const std::optional<Setup> setup = parse(side_, row.line)) {
        for (const MethodInfo& info : methods_) {
          if (info.id == setup->method) row.method = text(info.title);
        }
        row.bits =
            side_ == PlanSide::Kv ? kv_layer_bits(*setup, shape_, layer) : weight_layer_bits(*setup, shape_, layer);
      }
    } catch (const Error& error) {
      row.issue = QString::fromUtf8(error.what());
      valid = false;
    }
  }
  const bool first = model_->rowCount() == 0;
  model_->setRows(std::move(rows));
  if (first) table_->resizeColumnsToContents();
  QString problem, whole;
  if (valid) {
    try {
      whole = line();
      const std::optional<Setup> setup = parse(side_, whole);
      if (side_ == PlanSide::Kv) {
        const double bits = kv_setup_bits(setup, shape_);
        const double elements = double(shape_.cached_elements_per_token());
        total_->setText(tr("Whole cache: %1 effective bits at %L2 tokens, %L3 B a token, %L4 B in 16 bits")
                            .arg(bits, 0, 'f', 3)
                            .arg(shape_.tokens)
                            .arg(qRound64(bits * elements / 8.0))
                            .arg(qRound64(elements * 2.0)));
      } else {
        total_->setText(tr("All linears: %1 effective bits a weight").arg(weight_setup_bits(setup, shape_), 0, 'f', 3));
      }
    } catch (const Error& error) {
      problem = QString::fromUtf8(error.what());
    }
  } else {
    problem = tr("The setups of some layers do not fit; see the last column.");
  }
  if (!problem.isEmpty()) total_->setText(QStringLiteral("⚠ ") + problem);
  assembled_->setText(whole.isEmpty() && problem.isEmpty() ? tr("none") : whole);
  assembled_->setCursorPosition(0);
  for (QAbstractButton* button : buttons_->buttons()) {
    if (buttons_->buttonRole(button) == QDialogButtonBox::AcceptRole) button->setEnabled(problem.isEmpty());
  }
}

}  // namespace qs
