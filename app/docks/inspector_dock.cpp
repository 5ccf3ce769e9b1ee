#include "app/docks/inspector_dock.h"

#include <QComboBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QScrollArea>
#include <QSpinBox>
#include <QTableView>
#include <QVBoxLayout>

#include "app/inspection.h"
#include "app/workbench.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "sessions/session_document.h"
#include "widgets/models/plain_table_model.h"
#include "widgets/param_form.h"

namespace qs {
namespace {

QLabel* heading(const QString& text, QWidget* parent) {
  auto* label = new QLabel(text, parent);
  QFont font = label->font();
  font.setBold(true);
  label->setFont(font);
  return label;
}

/// The statistics with a tool tip for each row.
class StatisticsModel : public PlainTableModel {
 public:
  using PlainTableModel::PlainTableModel;
  QStringList helps;
  QVariant data(const QModelIndex& index, int role) const override {
    if (role != Qt::ToolTipRole) return PlainTableModel::data(index, role);
    const QString help = helps.value(index.row());
    return help.isEmpty() ? QVariant() : QVariant(help);
  }
};

}  // namespace

InspectorDock::InspectorDock(Workbench& workbench, QWidget* parent)
    : QDockWidget(tr("Inspector"), parent),
      workbench_(workbench),
      statistics_(new StatisticsModel(this)),
      methods_(all_methods()) {
  setObjectName(QStringLiteral("dock.inspector"));
  auto* scroll = new QScrollArea(this);
  scroll->setObjectName(QStringLiteral("inspectorScroll"));
  scroll->setAccessibleName(tr("Inspector"));
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setFocusPolicy(Qt::NoFocus);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setMinimumWidth(290);
  auto* content = new QWidget(scroll);
  auto* column = new QVBoxLayout(content);
  column->setContentsMargins(6, 6, 6, 6);

  column->addWidget(heading(tr("Selection"), content));
  auto* chosen = new QHBoxLayout;
  const auto spin = [&](const char* name, const QString& label, const QString& tip) {
    auto* box = new QSpinBox(content);
    box->setObjectName(QLatin1String(name));
    box->setPrefix(label + QLatin1Char(' '));
    box->setRange(0, 999);
    box->setAccessibleName(tip);
    box->setToolTip(tip);
    box->setKeyboardTracking(false);
    chosen->addWidget(box);
    return box;
  };
  layer_ = spin("layer", tr("L"), tr("Layer of all linked views"));
  tensor_ = new QComboBox(content);
  tensor_->setObjectName(QStringLiteral("tensor"));
  tensor_->setAccessibleName(tr("Tensor of all linked views"));
  tensor_->setToolTip(tensor_->accessibleName());
  tensor_->addItem(tr("key"), QStringLiteral("key"));
  tensor_->addItem(tr("key pre-RoPE"), QStringLiteral("key_pre_rope"));
  tensor_->addItem(tr("value"), QStringLiteral("value"));
  tensor_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  tensor_->setMinimumContentsLength(5);
  chosen->setSpacing(4);
  chosen->addWidget(tensor_, 1);
  head_ = spin("kvHead", tr("head"), tr("KV head of all linked views"));
  column->addLayout(chosen);
  where_ = new QLabel(content);
  where_->setWordWrap(true);
  where_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  column->addWidget(where_);

  column->addSpacing(6);
  column->addWidget(heading(tr("Statistics and self-check"), content));
  auto* table = new QTableView(content);
  table->setObjectName(QStringLiteral("statistics"));
  table->setAccessibleName(tr("Statistics of the selected tensor under A and B"));
  table->setModel(statistics_);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(table->fontMetrics().height() + 4);
  table->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  table->setShowGrid(false);
  table->setAlternatingRowColors(true);
  table->setTabKeyNavigation(false);
  table->setFixedHeight(16 * (table->fontMetrics().height() + 4) + 8);
  column->addWidget(table);
  note_ = new QLabel(content);
  note_->setWordWrap(true);
  column->addWidget(note_);

  column->addSpacing(6);
  column->addWidget(heading(tr("Parameters of variant B"), content));
  name_ = new QLineEdit(content);
  name_->setObjectName(QStringLiteral("variantName"));
  name_->setAccessibleName(tr("Name of the variant"));
  name_->setToolTip(name_->accessibleName());
  column->addWidget(name_);
  method_ = new QComboBox(content);
  method_->setObjectName(QStringLiteral("method"));
  method_->setAccessibleName(tr("Method of the variant"));
  method_->setToolTip(tr("Another method replaces the one of the same side (KV or weights)"));
  method_->addItem(tr("Full precision"));
  for (const MethodInfo& info : methods_) {
    method_->addItem(tr("%1 (%2)").arg(QString::fromStdString(info.title), QLatin1String(family_id(info.family))));
    method_->setItemData(method_->count() - 1, QString::fromStdString(info.summary), Qt::ToolTipRole);
  }
  method_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  method_->setMinimumContentsLength(8);
  column->addWidget(method_);
  form_ = new ParamForm(content);
  form_->setObjectName(QStringLiteral("parameters"));
  column->addWidget(form_);
  column->addStretch(1);
  scroll->setWidget(content);
  setWidget(scroll);

  SelectionHub& hub = workbench_.selection();
  connect(layer_, &QSpinBox::valueChanged, this, [this, &hub](int value) {
    if (!showing_) hub.edit([&](Selection& s) { s.layer = value; });
  });
  connect(head_, &QSpinBox::valueChanged, this, [this, &hub](int value) {
    if (!showing_) hub.edit([&](Selection& s) { s.kvHead = value; });
  });
  connect(tensor_, &QComboBox::activated, this,
          [this, &hub] { hub.edit([&](Selection& s) { s.tensor = tensor_->currentData().toString(); }); });
  connect(name_, &QLineEdit::editingFinished, this, [this] {
    auto entry = workbench_.variantEntry(variant_);
    if (!entry || entry->name == name_->text() || name_->text().trimmed().isEmpty()) return;
    entry->name = name_->text().trimmed();
    workbench_.changeVariant(*entry);
  });
  connect(method_, &QComboBox::activated, this, &InspectorDock::applyMethod);
  connect(form_, &ParamForm::valuesChanged, this, &InspectorDock::applyForm);
  delay_.setSingleShot(true);
  delay_.setInterval(60);
  connect(&delay_, &QTimer::timeout, this, &InspectorDock::requestStatistics);
  connect(&hub, &SelectionHub::changed, this, [this] {
    showSelection();
    delay_.start();
  });
  connect(&workbench_, &Workbench::captureReady, this, [this] { delay_.start(); });
  connect(&workbench_, &Workbench::variantsChanged, this, [this] {
    showVariant();
    delay_.start();
  });
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    showSelection();
    delay_.start();
  });
  showSelection();
}

void InspectorDock::showSelection() {
  showing_ = true;
  const Selection& s = workbench_.selection().selection();
  layer_->setValue(s.layer);
  head_->setValue(s.kvHead);
  tensor_->setCurrentIndex(std::max(0, tensor_->findData(s.tensor)));
  const auto range = [](int begin, int end) {
    return begin < 0 ? tr("all") : end - begin <= 1 ? QString::number(begin) : tr("%1 to %2").arg(begin).arg(end - 1);
  };
  const auto name = [this](const QString& id) {
    const auto entry = workbench_.variantEntry(id);
    return entry ? entry->name : tr("none");
  };
  where_->setText(tr("channels %1, tokens %2\nA: %3\nB: %4")
                      .arg(range(s.channelBegin, s.channelEnd), range(s.tokenBegin, s.tokenEnd), name(s.variantA),
                           name(s.variantB)));
  showing_ = false;
  if (s.variantB != variant_) editVariant(s.variantB);
}

void InspectorDock::requestStatistics() {
  const Selection s = workbench_.selection().selection();
  const auto capture = workbench_.captureEntry(s.captureA);
  if (!capture) {
    statistics_->clear();
    note_->setText(tr("Open or make a capture to see statistics."));
    return;
  }
  if (!workbench_.isCaptureReady(s.captureA)) {
    note_->setText(tr("The capture is being made."));
    return;
  }
  const auto kv_of = [this](const QString& id) {
    const auto entry = workbench_.variantEntry(id);
    return entry ? entry->kv.toStdString() : std::string();
  };
  const quint64 request = ++request_;
  if (job_) workbench_.jobs().cancel(job_);
  const InspectionRequest what{s.layer, s.tensor.toStdString(), kv_of(s.variantA), kv_of(s.variantB)};
  job_ = workbench_.jobs().compute(
      tr("Statistics of layer %1").arg(s.layer), QStringLiteral("inspector"), JobLane::Interactive,
      [this, id = s.captureA, what](const JobContext& job) {
        return inspect_tensor(workbench_, *workbench_.openCapture(id, job), what, job);
      },
      this,
      [this, request](Inspection result) {
        if (request != request_) return;
        QVector<PlainTableModel::Row> rows;
        QStringList helps;
        for (const InspectionRow& row : result.rows) {
          helps << QString::fromStdString(row.help);
          const auto cell = [](const std::optional<double>& value) {
            return value ? QVariant(QString::number(*value, 'g', 4)) : QVariant(QStringLiteral("-"));
          };
          rows.append({QString::fromStdString(row.name), cell(row.a), cell(row.b)});
        }
        static_cast<StatisticsModel*>(statistics_)->helps = helps;
        statistics_->setTable({tr("Measure"), tr("A"), tr("B")}, rows);
        // The numbers keep their width; the names give way.
        auto* header = findChild<QTableView*>(QStringLiteral("statistics"))->horizontalHeader();
        for (int column = 0; column < 3; ++column)
          header->setSectionResizeMode(column, column == 0 ? QHeaderView::Stretch : QHeaderView::ResizeToContents);
        note_->setText(QString::fromStdString(result.warning));
      },
      [this, request](const JobStatus& status) {
        if (request != request_ || status.state != JobState::Failed) return;
        statistics_->clear();
        note_->setText(status.message);
      });
}

void InspectorDock::editVariant(const QString& variantId) {
  variant_ = variantId;
  showVariant();
}

void InspectorDock::showVariant() {
  const auto entry = workbench_.variantEntry(variant_);
  showing_ = true;
  name_->setEnabled(entry.has_value());
  method_->setEnabled(entry.has_value());
  form_->setEnabled(entry.has_value());
  name_->setText(entry ? entry->name : tr("Choose a variant as B"));
  const bool weights = entry && !entry->weights.isEmpty() && entry->kv.isEmpty();
  const QString line = entry ? (weights ? entry->weights : entry->kv) : QString();
  int index = 0;
  try {
    const std::optional<Setup> setup =
        weights ? parse_weight_setup(line.toStdString()) : parse_kv_setup(line.toStdString());
    for (std::size_t i = 0; setup && i < methods_.size(); ++i) {
      const bool is_kv = methods_[i].family == MethodFamily::Kv;
      if (methods_[i].id != setup->method || is_kv == weights) continue;
      index = int(i) + 1;
      // Rebuilding would take the focus from the editor in which somebody types.
      if (form_->method().id != methods_[i].id || form_->method().family != methods_[i].family) {
        form_->setMethod(methods_[i], setup->params);
      } else if (form_->values() != setup->params) {
        form_->setValues(setup->params);
      }
    }
    if (entry && index > 0) form_->setOutsideIssues({});
  } catch (const Error& error) {
    form_->setOutsideIssues({{"", error.what()}});
  }
  if (index == 0) form_->setMethod(MethodInfo{});
  form_->setVisible(index > 0);
  method_->setCurrentIndex(index);
  showing_ = false;
}

void InspectorDock::applyForm() {
  auto entry = workbench_.variantEntry(variant_);
  if (showing_ || !entry || !form_->issues().empty()) return;
  const QString line = form_->setupLine();
  QString& side = form_->method().family == MethodFamily::Kv ? entry->kv : entry->weights;
  if (side == line) return;
  side = line;
  workbench_.changeVariant(*entry, QStringLiteral("parameters:") + variant_);
}

void InspectorDock::applyMethod(int index) {
  auto entry = workbench_.variantEntry(variant_);
  if (!entry) return;
  if (index == 0) {
    entry->kv.clear();
    entry->weights.clear();
  } else {
    const MethodInfo& info = methods_[std::size_t(index) - 1];
    (info.family == MethodFamily::Kv ? entry->kv : entry->weights) = QString::fromStdString(info.id);
    (info.family == MethodFamily::Kv ? entry->weights : entry->kv).clear();
  }
  workbench_.changeVariant(*entry);
}

}  // namespace qs
