#include "app/open_model_dialog.h"

#include <QDialogButtonBox>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTimer>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "app/model_forecast.h"
#include "app/settings.h"
#include "app/workbench.h"
#include "backend/model/hub_cache.h"
#include "backend/model/model.h"
#include "sessions/recent_files.h"
#include "widgets/model_card.h"
#include "widgets/models/dataset_tree_model.h"

namespace qs {
namespace {

constexpr int kTypingPauseMs = 300;
constexpr int kPathRole = Qt::UserRole + 1;

std::filesystem::path file_path(const QString& path) { return std::filesystem::path(path.toStdU16String()); }

}  // namespace

OpenModelDialog::OpenModelDialog(Workbench& workbench, QWidget* parent) : QDialog(parent), workbench_(workbench) {
  setObjectName(QStringLiteral("openModelDialog"));
  setWindowTitle(tr("Open a model"));
  resize(980, 560);
  auto* column = new QVBoxLayout(this);
  auto* top = new QHBoxLayout;
  column->addLayout(top);
  path_ = new QLineEdit(this);
  path_->setObjectName(QStringLiteral("modelPath"));
  path_->setAccessibleName(tr("Path of the model"));
  path_->setPlaceholderText(tr("A Hugging Face folder, a .gguf file, or a llama2.c .bin file"));
  auto* label = new QLabel(tr("&Path"), this);
  label->setBuddy(path_);
  auto* folder = new QPushButton(tr("Choose &folder…"), this);
  folder->setObjectName(QStringLiteral("modelBrowseFolder"));
  auto* file = new QPushButton(tr("Choose f&ile…"), this);
  file->setObjectName(QStringLiteral("modelBrowseFile"));
  for (QWidget* each : {static_cast<QWidget*>(label), static_cast<QWidget*>(path_), static_cast<QWidget*>(folder),
                        static_cast<QWidget*>(file)})
    top->addWidget(each);

  auto* splitter = new QSplitter(Qt::Horizontal, this);
  column->addWidget(splitter, 1);
  list_ = new QTreeWidget(splitter);
  list_->setObjectName(QStringLiteral("modelList"));
  list_->setAccessibleName(tr("Models on this machine"));
  list_->setHeaderLabels({tr("Model"), tr("Size")});
  list_->header()->setStretchLastSection(false);
  list_->header()->setSectionResizeMode(0, QHeaderView::Stretch);
  list_->header()->setSectionResizeMode(1, QHeaderView::ResizeToContents);
  auto* scroll = new QScrollArea(splitter);
  scroll->setObjectName(QStringLiteral("modelCardScroll"));
  scroll->setAccessibleName(tr("Model card"));
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidgetResizable(true);
  card_ = new ModelCard(scroll);
  card_->layout()->setContentsMargins(12, 4, 4, 4);
  static_cast<QVBoxLayout*>(card_->layout())->addStretch(1);
  scroll->setWidget(card_);
  splitter->addWidget(list_);
  splitter->addWidget(scroll);
  splitter->setSizes({360, 600});
  buttons_ = new QDialogButtonBox(QDialogButtonBox::Open | QDialogButtonBox::Cancel, this);
  column->addWidget(buttons_);
  connect(buttons_, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons_, &QDialogButtonBox::rejected, this, &QDialog::reject);

  typing_ = new QTimer(this);
  typing_->setSingleShot(true);
  typing_->setInterval(kTypingPauseMs);
  connect(typing_, &QTimer::timeout, this, &OpenModelDialog::inspect);
  connect(path_, &QLineEdit::textChanged, typing_, qOverload<>(&QTimer::start));
  connect(path_, &QLineEdit::textChanged, this, &OpenModelDialog::refreshButtons);
  connect(folder, &QPushButton::clicked, this, [this] { browse(true); });
  connect(file, &QPushButton::clicked, this, [this] { browse(false); });
  connect(card_, &ModelCard::forecastWanted, this, &OpenModelDialog::forecast);
  connect(list_, &QTreeWidget::currentItemChanged, this, [this](QTreeWidgetItem* item) {
    const QString path = item ? item->data(0, kPathRole).toString() : QString();
    if (!path.isEmpty()) setPath(path);
  });
  connect(list_, &QTreeWidget::itemDoubleClicked, this, [this](QTreeWidgetItem* item) {
    if (!item->data(0, kPathRole).toString().isEmpty() && card_->isOpenable()) accept();
  });
  card_->clear(tr("Choose a model on the left, or name a path. Nothing is loaded before you say Open."));
  fillList();
  refreshButtons();
}

void OpenModelDialog::fillList() {
  const auto group = [&](const QString& title) {
    auto* item = new QTreeWidgetItem(list_, {title});
    item->setFlags(Qt::ItemIsEnabled);
    QFont font = item->font(0);
    font.setBold(true);
    item->setFont(0, font);
    item->setExpanded(true);
    return item;
  };
  const auto add = [&](QTreeWidgetItem* under, const QString& name, const QString& path, const QString& size,
                       const QString& tip) {
    auto* item = new QTreeWidgetItem(under, {name, size});
    item->setData(0, kPathRole, path);
    item->setToolTip(0, tip.isEmpty() ? path : tip);
    item->setTextAlignment(1, Qt::AlignRight | Qt::AlignVCenter);
    return item;
  };
  auto* sample = group(tr("Bundled"));
  for (const char* name : {"sample-hf", "sample-outliers-hf"})
    add(sample, QLatin1String(name), QStringLiteral("sample:") + QLatin1String(name), {}, {});
  auto* recent = group(tr("Opened before"));
  for (const QString& path : recent_files()) {
    const FileKind kind = detect_file_kind(workbench_.resolvePath(path));
    if (kind == FileKind::ModelFolder || kind == FileKind::ModelFile)
      add(recent, QFileInfo(path).fileName(), path, {}, {});
  }
  recent->setHidden(recent->childCount() == 0);
  auto* hub = group(tr("Hugging Face cache"));
  auto* searching = new QTreeWidgetItem(hub, {tr("Looking…")});
  searching->setFlags(Qt::NoItemFlags);
  workbench_.jobs().compute(
      tr("List the hub cache"), QStringLiteral("openModel"), JobLane::Interactive,
      [](const JobContext&) { return hub_models(); }, this,
      [this, hub, searching, add](const std::vector<HubModel>& models) {
        delete searching;
        for (const HubModel& model : models) {
          auto* item = add(hub, QString::fromStdString(model.name), QString::fromStdString(model.path.string()),
                           bytesText(model.bytes), QString::fromStdString(model.why_not));
          if (!model.why_not.empty()) item->setForeground(0, palette().brush(QPalette::Disabled, QPalette::Text));
        }
        if (models.empty()) {
          auto* none = new QTreeWidgetItem(hub, {tr("No models in HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface")});
          none->setFlags(Qt::NoItemFlags);
        }
      },
      [searching](const JobStatus& status) { searching->setText(0, status.message); });
}

QString OpenModelDialog::path() const { return path_->text().trimmed(); }
QString OpenModelDialog::dtype() const { return card_->dtype(); }

void OpenModelDialog::setPath(const QString& path) {
  path_->setText(path);
  typing_->stop();
  inspect();
}

void OpenModelDialog::browse(bool folder) {
  const QString chosen =
      folder ? QFileDialog::getExistingDirectory(this, tr("Model folder"))
             : QFileDialog::getOpenFileName(this, tr("Model file"), {},
                                            tr("Models (*.gguf *.bin *.json *.safetensors);;All files (*)"));
  if (!chosen.isEmpty()) setPath(chosen);
}

void OpenModelDialog::inspect() {
  const QString asked = path();
  const quint64 generation = ++generation_;
  if (asked.isEmpty()) {
    card_->clear(tr("Choose a model on the left, or name a path."));
    return refreshButtons();
  }
  card_->setWaiting(asked);
  refreshButtons();
  workbench_.jobs().compute(
      tr("Read the headers of %1").arg(QFileInfo(asked).fileName()), QStringLiteral("openModel"), JobLane::Interactive,
      [file = workbench_.resolvePath(asked)](const JobContext&) { return inspect_model(file_path(file)); }, this,
      [this, generation](const ModelInfo& info) {
        if (generation != generation_) return;
        card_->setInfo(info);
        forecast();
        refreshButtons();
      },
      [this, generation, asked](const JobStatus& status) {
        if (generation != generation_) return;
        card_->setRefused(asked, status.message);
        refreshButtons();
      });
}

void OpenModelDialog::forecast() {
  if (!card_->isOpenable()) return;
  const quint64 generation = ++forecast_generation_;
  workbench_.jobs().compute(
      tr("Forecast"), QStringLiteral("openModel"), JobLane::Interactive,
      [info = *card_->info(), dtype = card_->dtype(), context = card_->context()](const JobContext&) {
        return forecast_of(info, dtype, context);
      },
      this,
      [this, generation](const MemoryForecast& forecast) {
        if (generation == forecast_generation_) card_->setForecast(forecast);
      },
      {});
}

void OpenModelDialog::refreshButtons() {
  QPushButton* open = buttons_->button(QDialogButtonBox::Open);
  open->setEnabled(card_->isOpenable() && !typing_->isActive());
  open->setToolTip(card_->isOpenable() ? QString() : tr("Choose a model that can be opened"));
}

}  // namespace qs
