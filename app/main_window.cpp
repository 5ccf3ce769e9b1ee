#include "app/main_window.h"

#include <QApplication>
#include <QCloseEvent>
#include <QComboBox>
#include <QDesktopServices>
#include <QDockWidget>
#include <QFile>
#include <QFrame>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QMenuBar>
#include <QPushButton>
#include <QSettings>
#include <QStackedWidget>
#include <QStatusBar>
#include <QTabBar>
#include <QToolBar>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/actions.h"
#include "app/command_palette.h"
#include "app/docks/inspector_dock.h"
#include "app/docks/project_dock.h"
#include "app/docks/table_docks.h"
#include "app/inspection.h"
#include "app/settings.h"
#include "app/view_area.h"
#include "app/view_factory.h"
#include "app/welcome.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "sessions/recovery.h"
#include "sessions/session_document.h"
#include "widgets/models/dataset_tree_model.h"
#include "widgets/models/log_model.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr int kStateVersion = 3;  // of saveState(); an older blob is dropped for the default layout

struct Memory {
  qint64 used = 0, total = 0;
};

Memory memory_now() {
  Memory result;
  QFile statm(QStringLiteral("/proc/self/statm")), meminfo(QStringLiteral("/proc/meminfo"));
  if (statm.open(QIODevice::ReadOnly)) result.used = statm.readAll().split(' ').value(1).toLongLong() * 4096;
  if (meminfo.open(QIODevice::ReadOnly)) {
    result.total = meminfo.readLine().simplified().split(' ').value(1).toLongLong() * 1024;
  }
  return result;
}

}  // namespace

MainWindow::MainWindow(Workbench& workbench, QWidget* parent) : QMainWindow(parent), workbench_(workbench) {
  setObjectName(QStringLiteral("mainWindow"));
  setAcceptDrops(true);
  setDockOptions(AnimatedDocks | AllowTabbedDocks | AllowNestedDocks);
  resize(1440, 900);
  normal_points_ = QApplication::font().pointSizeF();
  actions_ = new ActionTable(this);
  buildFrame();
  buildDocks();
  buildActions();
  buildMenus();
  buildToolBar();
  buildStatusBar();
  connectWorkbench();
  actions_->loadShortcuts();
  default_state_ = saveState(kStateVersion);
  QSettings& settings = app_settings();
  if (settings.contains(QStringLiteral("geometry")))
    restoreGeometry(settings.value(QStringLiteral("geometry")).toByteArray());
  if (!restoreState(settings.value(QStringLiteral("state")).toByteArray(), kStateVersion))
    restoreState(default_state_, kStateVersion);
  try {
    recovery_ = std::make_unique<Recovery>(workbench_.dataFolder() + QStringLiteral("/recovery"));
  } catch (const Error& error) {
    log_->model().append(LogLine::Level::Warning, QString::fromUtf8(error.what()));
  }
  autosave_.setInterval(60'000);
  connect(&autosave_, &QTimer::timeout, this, &MainWindow::autosave);
  autosave_.start();
  status_.setInterval(2000);
  connect(&status_, &QTimer::timeout, this, &MainWindow::refreshStatus);
  status_.start();
  rebuildViews();
  refreshTitle();
  refreshStatus();
}

MainWindow::~MainWindow() {
  // Views tell of themselves while they go; nobody should listen any more.
  disconnect(&workbench_, nullptr, this, nullptr);
  disconnect(&workbench_.document(), nullptr, this, nullptr);
  area_->disconnect(this);
  area_->clear();
}

void MainWindow::buildFrame() {
  auto* central = new QWidget(this);
  auto* column = new QVBoxLayout(central);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);

  banner_ = new QFrame(central);
  banner_->setObjectName(QStringLiteral("banner"));
  banner_->setFrameShape(QFrame::StyledPanel);
  banner_->setAutoFillBackground(true);
  auto* row = new QHBoxLayout(banner_);
  row->setContentsMargins(10, 4, 6, 4);
  banner_text_ = new QLabel(banner_);
  banner_text_->setObjectName(QStringLiteral("bannerText"));
  banner_text_->setWordWrap(true);
  banner_text_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  row->addWidget(banner_text_, 1);
  banner_details_ = new QToolButton(banner_);
  banner_details_->setObjectName(QStringLiteral("bannerDetails"));
  banner_details_->setText(tr("Show log"));
  banner_details_->setAccessibleName(tr("Show the details in the log"));
  banner_details_->setToolTip(banner_details_->accessibleName());
  row->addWidget(banner_details_);
  auto* dismiss = new QToolButton(banner_);
  dismiss->setObjectName(QStringLiteral("bannerDismiss"));
  dismiss->setText(QStringLiteral("✕"));
  dismiss->setAutoRaise(true);
  dismiss->setAccessibleName(tr("Dismiss this message"));
  dismiss->setToolTip(dismiss->accessibleName());
  row->addWidget(dismiss);
  banner_->hide();
  connect(dismiss, &QToolButton::clicked, banner_, &QWidget::hide);
  connect(banner_details_, &QToolButton::clicked, this,
          [this] { actions_->action(QStringLiteral("jobs.log"))->trigger(); });
  column->addWidget(banner_);

  hint_ = new QLabel(central);
  hint_->setObjectName(QStringLiteral("hint"));
  hint_->setAccessibleName(tr("What one is looking at"));
  hint_->setContentsMargins(10, 3, 10, 3);
  hint_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
  hint_->installEventFilter(this);
  hint_->hide();
  column->addWidget(hint_);

  stack_ = new QStackedWidget(central);
  area_ = new ViewArea(stack_);
  welcome_ = new WelcomePage(stack_);
  stack_->addWidget(area_);
  stack_->addWidget(welcome_);
  column->addWidget(stack_, 1);
  setCentralWidget(central);
  connect(welcome_, &WelcomePage::actionRequested, this, &MainWindow::runViewAction);
  connect(area_, &ViewArea::activeViewChanged, this, &MainWindow::activeViewChanged);
  connect(area_, &ViewArea::arrangementChanged, this, [this] { recordArrangement(tr("Arrange views")); });
  connect(area_, &ViewArea::closeRequested, this, [this](ViewBase* view) { area_->closeView(view); });
  connect(area_, &ViewArea::newTabRequested, this, [this](const QPoint& position) {
    QMenu menu(this);
    for (const ViewType& type : view_types()) menu.addAction(actions_->action(QStringLiteral("view.add.") + type.id));
    menu.exec(position);
  });
}

void MainWindow::buildDocks() {
  setCorner(Qt::BottomLeftCorner, Qt::BottomDockWidgetArea);
  setCorner(Qt::BottomRightCorner, Qt::BottomDockWidgetArea);
  project_ = new ProjectDock(workbench_, this);
  inspector_ = new InspectorDock(workbench_, this);
  jobs_ = new JobsDock(workbench_.jobs(), this);
  log_ = new LogDock(this);
  table_ = new DataTableDock(this);
  addDockWidget(Qt::LeftDockWidgetArea, project_);
  addDockWidget(Qt::RightDockWidgetArea, inspector_);
  addDockWidget(Qt::BottomDockWidgetArea, jobs_);
  tabifyDockWidget(jobs_, log_);
  tabifyDockWidget(jobs_, table_);
  jobs_->raise();
  resizeDocks({project_, inspector_}, {170, 290}, Qt::Horizontal);
  resizeDocks({jobs_}, {110}, Qt::Vertical);
  // Floated docks cannot be put back on Wayland before Qt 6.5.4.
  const bool wayland = QGuiApplication::platformName().startsWith(QLatin1String("wayland"));
  for (QDockWidget* dock : findChildren<QDockWidget*>()) {
    dock->setAccessibleName(dock->windowTitle());
    if (wayland && QT_VERSION < QT_VERSION_CHECK(6, 5, 4))
      dock->setFeatures(dock->features() & ~QDockWidget::DockWidgetFloatable);
  }
  connect(project_, &ProjectDock::actionRequested, this, &MainWindow::runViewAction);
}

void MainWindow::buildMenus() {
  const QStringList order = {tr("File"),     tr("Edit"),    tr("View"), tr("Model"),  tr("Capture"),
                             tr("Quantize"), tr("Compare"), tr("Jobs"), tr("Window"), tr("Help")};
  const QStringList mnemonics = {tr("&File"),     tr("&Edit"),    tr("&View"), tr("&Model"),  tr("&Capture"),
                                 tr("&Quantize"), tr("C&ompare"), tr("&Jobs"), tr("&Window"), tr("&Help")};
  QHash<QString, QMenu*> menus;
  for (qsizetype i = 0; i < order.size(); ++i) {
    QMenu* menu = menuBar()->addMenu(mnemonics[i]);
    menu->setObjectName(QStringLiteral("menu.") + order[i].toLower());
    menu->setToolTipsVisible(true);
    menus.insert(order[i], menu);
  }
  for (const ActionSpec& spec : actions_->specs()) {
    if (!menus.contains(spec.menu)) {
      const qsizetype slash = spec.menu.lastIndexOf(QLatin1Char('/'));
      QMenu* parent = menus.value(spec.menu.left(slash));
      QMenu* sub = parent->addMenu(spec.menu.mid(slash + 1));
      sub->setToolTipsVisible(true);
      menus.insert(spec.menu, sub);
    }
    QMenu* menu = menus[spec.menu];
    if (spec.text.startsWith(QLatin1Char('-'))) menu->addSeparator();
    menu->addAction(actions_->action(spec.id));
    if (spec.id == QLatin1String("file.open_folder")) {
      recent_menu_ = menu->addMenu(tr("Open &Recent"));
      recent_menu_->setObjectName(QStringLiteral("menu.recent"));
      connect(recent_menu_, &QMenu::aboutToShow, this, &MainWindow::fillRecentMenu);
      fillRecentMenu();
    }
  }
}

void MainWindow::buildToolBar() {
  QToolBar* bar = addToolBar(tr("Tools"));
  bar->setObjectName(QStringLiteral("toolbar"));
  bar->setMovable(false);
  bar->setToolButtonStyle(Qt::ToolButtonTextOnly);
  const auto combo = [&](const char* name, const QString& label, const QString& tip, int characters) {
    auto* text = new QLabel(label, bar);
    text->setContentsMargins(6, 0, 2, 0);
    bar->addWidget(text);
    auto* box = new QComboBox(bar);
    box->setObjectName(QLatin1String(name));
    box->setAccessibleName(tip);
    box->setToolTip(tip);
    box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    box->setMinimumContentsLength(characters);
    box->setFocusPolicy(Qt::StrongFocus);
    bar->addWidget(box);
    return box;
  };
  const auto add = [&](const char* id) { bar->addAction(actions_->action(QLatin1String(id))); };
  add("file.open");
  add("file.save");
  bar->addSeparator();
  model_combo_ = combo("modelCombo", tr("Model"), tr("Model of new captures and plans; its capture is shown"), 14);
  add("capture.kv");
  bar->addSeparator();
  plan_combo_ = combo("planCombo", tr("Plan"), tr("Plan that Apply makes variant B"), 14);
  add("quantize.apply");
  bar->addSeparator();
  a_combo_ = combo("variantA", tr("A"), tr("Variant A of all linked views"), 12);
  add("compare.swap");
  b_combo_ = combo("variantB", tr("B"), tr("Variant B of all linked views"), 12);
  bar->addSeparator();
  add("file.export_view");
  auto* space = new QWidget(bar);
  space->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  bar->addWidget(space);
  add("window.palette");
  actions_->action(QStringLiteral("compare.swap"))->setIconText(QStringLiteral("⇄"));
  actions_->action(QStringLiteral("file.open"))->setIconText(tr("Open"));
  actions_->action(QStringLiteral("capture.kv"))->setIconText(tr("Capture"));
  actions_->action(QStringLiteral("file.export_view"))->setIconText(tr("Export"));
  actions_->action(QStringLiteral("window.palette"))->setIconText(tr("Commands"));
  for (QToolButton* button : bar->findChildren<QToolButton*>()) {
    if (!button->defaultAction()) {
      button->setAccessibleName(tr("More tools"));  // the arrow that appears when the bar is too narrow
      continue;
    }
    button->setObjectName(QStringLiteral("tool.") + button->defaultAction()->objectName());
    button->setAccessibleName(button->defaultAction()->text().remove(QLatin1Char('&')));
    button->setFocusPolicy(Qt::TabFocus);
  }
  SelectionHub& hub = workbench_.selection();
  connect(a_combo_, &QComboBox::activated, this,
          [this, &hub] { hub.edit([&](Selection& s) { s.variantA = a_combo_->currentData().toString(); }); });
  connect(b_combo_, &QComboBox::activated, this,
          [this, &hub] { hub.edit([&](Selection& s) { s.variantB = b_combo_->currentData().toString(); }); });
  connect(model_combo_, &QComboBox::activated, this, [this, &hub] {
    const QString id = model_combo_->currentData().toString();
    for (const CaptureEntry& capture : workbench_.session().captures) {
      if (capture.modelId != id) continue;
      hub.edit([&](Selection& s) { s.captureA = capture.id; });
      break;
    }
    refreshActions();
  });
}

void MainWindow::buildStatusBar() {
  readout_ = new QLabel(tr("Ready"), this);
  readout_->setObjectName(QStringLiteral("readout"));
  readout_->setAccessibleName(tr("Value under the cursor"));
  readout_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  readout_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  memory_ = new QLabel(this);
  memory_->setObjectName(QStringLiteral("memory"));
  memory_->setToolTip(tr("Memory of this program, and of the machine"));
  kv_ = new QLabel(tr("KV -"), this);
  kv_->setObjectName(QStringLiteral("kvBits"));
  auto* gpu = new QLabel(tr("GPU -"), this);
  gpu->setToolTip(tr("The workbench computes on the CPU."));
  for (QLabel* label : {memory_, kv_, gpu}) label->setContentsMargins(8, 0, 8, 0);
  statusBar()->addWidget(readout_, 1);
  statusBar()->addPermanentWidget(memory_);
  statusBar()->addPermanentWidget(kv_);
  statusBar()->addPermanentWidget(gpu);
}

void MainWindow::connectWorkbench() {
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    banner_->hide();
    measured_.clear();
    rebuildViews();
    refreshTitle();
  });
  connect(&workbench_, &Workbench::modelsChanged, this, &MainWindow::refreshCombos);
  connect(&workbench_, &Workbench::capturesChanged, this, &MainWindow::refreshCombos);
  connect(&workbench_, &Workbench::variantsChanged, this, &MainWindow::refreshCombos);
  connect(&workbench_, &Workbench::captureReady, this, [this] {
    refreshActions();
    refreshStatus();
  });
  connect(&workbench_.selection(), &SelectionHub::changed, this, &MainWindow::refreshCombos);
  connect(&workbench_, &Workbench::cacheMeasured, this,
          [this](const QString& id, const QString& kv, qint64 bytes, qint64 full, qint64 tokens) {
            measured_.insert(id, {kv, bytes, full, tokens});
            refreshCacheSize();
          });
  connect(&workbench_, &Workbench::message, this, [this](const QString& text, const QString& detail) {
    log_->model().append(LogLine::Level::Info, text, detail);
  });
  connect(&workbench_, &Workbench::failed, this,
          [this](const QString& text, const QString& detail) { showBanner(text, detail); });
  connect(&workbench_.document(), &SessionDocument::changed, this, [this] {
    refreshTitle();
    refreshActions();
  });
  connect(&workbench_.document(), &SessionDocument::stateReplaced, this, &MainWindow::restoreFromDocument);
  connect(&workbench_.jobs(), &JobRunner::jobChanged, this, [this](const JobStatus& status) {
    if (status.state == JobState::Queued && status.lane == JobLane::Compute) autosave();
    if (status.state == JobState::Failed)
      log_->model().append(LogLine::Level::Error, tr("%1: %2").arg(status.title, status.message), status.detail);
    if (status.lane == JobLane::Compute && status.state == JobState::Succeeded) {
      log_->model().append(LogLine::Level::Info,
                           tr("%1: done in %2 s").arg(status.title).arg(double(status.elapsedMs) / 1000, 0, 'f', 1));
    }
    if (status.state == JobState::Running) return;
    refreshActions();
  });
}

void MainWindow::showBanner(const QString& text, const QString& detail, bool failure) {
  if (failure) log_->model().append(LogLine::Level::Error, text, detail);
  const bool dark = isDark();
  QPalette colours = palette();
  colours.setColor(QPalette::Window, failure ? (dark ? QColor(0x5a, 0x1f, 0x1f) : QColor(0xfd, 0xe3, 0xe1))
                                             : (dark ? QColor(0x1f, 0x3a, 0x5a) : QColor(0xe1, 0xef, 0xfd)));
  banner_->setPalette(colours);
  banner_text_->setText(text);
  banner_details_->setVisible(failure);
  banner_->show();
}

bool MainWindow::isDark() const { return QApplication::palette().color(QPalette::Window).lightness() < 128; }

QString MainWindow::bannerText() const { return banner_->isHidden() ? QString() : banner_text_->text(); }

void MainWindow::setTheme(Theme theme) {
  apply_theme(theme);
  app_settings().setValue(QStringLiteral("theme"), theme_id(theme));
  for (const char* id : {"system", "light", "dark", "contrast"}) {
    actions_->action(QStringLiteral("view.theme.") + QLatin1String(id))
        ->setChecked(theme_id(theme) == QLatin1String(id));
  }
  banner_->hide();
}

void MainWindow::applyLayout(const QString& name) {
  const bool present = name == QLatin1String("present");
  restoreState(default_state_, kStateVersion);
  for (QDockWidget* dock :
       {static_cast<QDockWidget*>(project_), static_cast<QDockWidget*>(inspector_), static_cast<QDockWidget*>(jobs_),
        static_cast<QDockWidget*>(log_), static_cast<QDockWidget*>(table_)}) {
    dock->setFloating(false);
    dock->setVisible(!present);
  }
  QFont font = QApplication::font();
  font.setPointSizeF(normal_points_ * (present ? 1.35 : 1.0));
  QApplication::setFont(font);
  if (name == QLatin1String("chat")) {
    project_->hide();
    jobs_->hide();
    log_->hide();
    table_->hide();
    openView(QStringLiteral("chat"));
  } else if (name == QLatin1String("compare")) {
    area_->joinPanes();
    if (ViewBase* error = openView(QStringLiteral("error"))) {
      area_->activate(error);
      area_->split(Qt::Horizontal);
    }
    if (ViewBase* outliers = viewOfType(QStringLiteral("outliers"))) area_->activate(outliers);
  } else if (name == QLatin1String("explore")) {
    area_->joinPanes();
  }
  workbench_.document().edit(tr("Layout %1").arg(name), [&](SessionState& state) { state.layout = name; });
}

void MainWindow::refreshTitle() {
  const SessionState& state = workbench_.session();
  setWindowTitle(tr("%1[*] - Quantoscope").arg(state.title.isEmpty() ? tr("Untitled") : state.title));
  setWindowFilePath(workbench_.document().path());
  setWindowModified(workbench_.document().isModified());
}

void MainWindow::refreshCombos() {
  const SessionState& state = workbench_.session();
  const Selection& chosen = workbench_.selection().selection();
  const auto fill = [](QComboBox* box, const QList<std::pair<QString, QString>>& items, const QString& current) {
    const QSignalBlocker quiet(box);
    box->clear();
    for (const auto& [id, text] : items) box->addItem(text, id);
    box->setCurrentIndex(box->findData(current));
  };
  QList<std::pair<QString, QString>> models, variants;
  for (const ModelEntry& model : state.models) models.append({model.id, model.id});
  for (const VariantEntry& variant : state.variants) variants.append({variant.id, variant.name});
  const QString plan = plan_combo_->currentData().toString();
  QString model = model_combo_->currentData().toString();
  if (const auto capture = workbench_.captureEntry(chosen.captureA); capture && !capture->modelId.isEmpty())
    model = capture->modelId;
  fill(model_combo_, models, model);
  fill(plan_combo_, variants, plan.isEmpty() ? chosen.variantB : plan);
  fill(a_combo_, variants, chosen.variantA);
  fill(b_combo_, variants, chosen.variantB);
  refreshActions();
  refreshStatus();
}

void MainWindow::refreshStatus() {
  const Memory memory = memory_now();
  memory_->setText(tr("RAM %1 / %2").arg(bytesText(memory.used), bytesText(memory.total)));
  refreshCacheSize();
}

void MainWindow::refreshCacheSize() {
  const Selection& chosen = workbench_.selection().selection();
  const auto variant = workbench_.variantEntry(chosen.variantB);
  const auto capture = workbench_.captureEntry(chosen.captureA);
  const auto none = [this] {
    ++kv_request_;
    kv_->setProperty("key", QVariant());
    kv_->setText(tr("KV -"));
    kv_->setToolTip(tr("Key-value cache of variant B: choose a variant and a capture, or chat with it."));
  };
  if (!variant) return none();
  if (const auto known = measured_.constFind(variant->id);
      known != measured_.constEnd() && known->kv == variant->kv && known->bytes > 0) {
    ++kv_request_;
    kv_->setProperty("key", QVariant());
    kv_->setText(tr("KV %1 (%2 fp16)").arg(bytesText(known->bytes), bytesText(known->full)));
    kv_->setToolTip(
        tr("Measured: what the key-value cache of %1 had allocated after its last generation, %2 tokens; in "
           "brackets the same tokens in 16-bit floats")
            .arg(variant->name)
            .arg(known->tokens));
    return;
  }
  if (!capture || !workbench_.isCaptureReady(capture->id)) return none();
  const QString key = capture->id + QLatin1Char('\n') + variant->kv;
  if (kv_->property("key").toString() == key) return;
  kv_->setProperty("key", key);
  const quint64 request = ++kv_request_;
  struct Sizes {
    double bytes = 0, full = 0;
  };
  workbench_.jobs().compute(
      tr("Cache size"), QStringLiteral("status"), JobLane::Interactive,
      [this, id = capture->id, kv = variant->kv.toStdString()](const JobContext& job) {
        const CaptureInfo info = workbench_.openCapture(id, job)->info();
        const double full = 4.0 * double(info.layers * info.kv_heads * info.head_dim * info.tokens);
        const double bits = kv_effective_bits(kv, info.heads, info.kv_heads, info.head_dim, info.tokens, info.layers);
        return Sizes{full * bits / 16.0, full};
      },
      this,
      [this, request](Sizes sizes) {
        if (request != kv_request_) return;
        kv_->setText(tr("KV est. %1 (%2 fp16)").arg(bytesText(qint64(sizes.bytes)), bytesText(qint64(sizes.full))));
        kv_->setToolTip(
            tr("Estimated: key-value cache of variant B at the length of the capture, by the method's "
               "formula; a chat measures it. In brackets 16-bit floats"));
      },
      [this, request](const JobStatus&) {
        if (request != kv_request_) return;
        kv_->setText(tr("KV -"));
        kv_->setProperty("key", QVariant());
      });
}

void MainWindow::cyclePanes(int step) {
  QList<QWidget*> panes{area_};
  for (QDockWidget* dock :
       {static_cast<QDockWidget*>(project_), static_cast<QDockWidget*>(inspector_), static_cast<QDockWidget*>(jobs_),
        static_cast<QDockWidget*>(log_), static_cast<QDockWidget*>(table_)}) {
    if (dock->isVisible() && !dock->visibleRegion().isEmpty()) panes << dock;
  }
  qsizetype at = 0;
  for (qsizetype i = 0; i < panes.size(); ++i) {
    if (panes[i]->isAncestorOf(QApplication::focusWidget())) at = i;
  }
  QWidget* next = panes[(at + step + panes.size()) % panes.size()];
  if (next == area_) {
    if (area_->activeView()) area_->activate(area_->activeView());
    return;
  }
  for (QWidget* child : next->findChildren<QWidget*>()) {
    if ((child->focusPolicy() & Qt::TabFocus) && child->isVisible() && child->isEnabled()) {
      child->setFocus(Qt::ShortcutFocusReason);
      return;
    }
  }
}

void MainWindow::childEvent(QChildEvent* event) {
  // QMainWindow makes the tab bars of stacked docks itself.
  if (event->polished()) {
    if (auto* tabs = qobject_cast<QTabBar*>(event->child())) tabs->setAccessibleName(tr("Panels"));
  }
  QMainWindow::childEvent(event);
}

void MainWindow::closeEvent(QCloseEvent* event) {
  if (!maySaveFirst()) return event->ignore();
  app_settings().setValue(QStringLiteral("geometry"), saveGeometry());
  app_settings().setValue(QStringLiteral("state"), saveState(kStateVersion));
  if (recovery_) recovery_->drop();
  workbench_.jobs().cancelAll();
  event->accept();
}

}  // namespace qs
