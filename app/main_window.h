#pragma once

#include <QHash>
#include <QMainWindow>
#include <QPointer>
#include <QTimer>
#include <memory>

#include "app/theme.h"
#include "sessions/session_state.h"

class QComboBox;
class QFrame;
class QLabel;
class QMenu;
class QStackedWidget;
class QToolButton;

namespace qs {

class ActionTable;
class CommandPalette;
class DataTableDock;
class InspectorDock;
class JobsDock;
class LogDock;
class ProjectDock;
class Recovery;
class ViewArea;
class ViewBase;
class WelcomePage;
class Workbench;
struct ArchitectureSpec;

/// The workbench's window: views in the middle, docks around them, one table of actions behind menus, keys and palette.
class MainWindow : public QMainWindow {
  Q_OBJECT
 public:
  explicit MainWindow(Workbench& workbench, QWidget* parent = nullptr);
  ~MainWindow() override;

  ActionTable& actions() { return *actions_; }
  ViewArea& area() { return *area_; }
  CommandPalette& commands() { return *commands_; }
  Workbench& workbench() { return workbench_; }

  /// Session, model folder or file, capture or results: judged by content. Failures go to the banner; what is open
  /// stays.
  bool openPath(const QString& path);
  bool openSample();
  bool saveSession(const QString& path);
  void applyLayout(const QString& name);  ///< explore, compare, chat, present
  void setTheme(Theme theme);

  ViewBase* openView(const QString& type);  ///< shows the one that is there, else makes it
  ViewBase* viewOfType(const QString& type) const;
  QString exportView(ViewBase& view, const QString& path);  ///< empty, or what went wrong

  void showBanner(const QString& text, const QString& detail = {}, bool failure = true);
  QString bannerText() const;

  /// Offers what a crashed program left; nothing happens when there is nothing.
  void offerRecovery();
  void autosave();

 protected:
  void childEvent(QChildEvent* event) override;
  void closeEvent(QCloseEvent* event) override;
  bool eventFilter(QObject* watched, QEvent* event) override;
  void dragEnterEvent(QDragEnterEvent* event) override;
  void dropEvent(QDropEvent* event) override;

 private:
  void buildFrame();
  void buildDocks();
  void buildActions();
  void buildFileActions();
  void buildViewActions();
  void buildWorkActions();
  void buildWindowActions();
  void buildMenus();
  void buildToolBar();
  void buildStatusBar();
  void connectWorkbench();

  bool maySaveFirst();
  void openDialog();
  void openModelDialog();
  void fillRecentMenu();
  void saveAs();

  void rebuildViews();
  void adopt(ViewBase* view);
  void viewSettingsChanged(ViewBase* view);
  void restoreFromDocument();
  void recordArrangement(const QString& text);
  QList<ViewEntry> currentEntries() const;
  void activeViewChanged(ViewBase* view);
  void runViewAction(const QString& id);
  void sendKeyToView(int key);
  void addPin(const QString& viewId, const QString& value);
  void exportDialog(bool data);
  void exportReport(const QString& path);

  bool isDark() const;
  void refreshTitle();
  void refreshActions();
  void refreshCombos();
  void refreshStatus();
  void refreshCacheSize();
  void elideHint();
  void cyclePanes(int step);
  void showText(const QString& title, const QString& html);
  void captureDialog(bool weights, bool taps);
  void variantDialog();
  void showNewPlan(const VariantEntry& entry);
  void changePlan(bool solve);
  void overridesDialog();
  void overridesDialog(const QString& planId, const ArchitectureSpec& spec);
  void autoDialog();
  QString currentPlanId() const;  ///< of the project panel, else of the tool bar
  void evaluateDialog();
  void verifyCapture();
  QString currentModelId() const;

  Workbench& workbench_;
  ActionTable* actions_ = nullptr;
  CommandPalette* commands_ = nullptr;
  QStackedWidget* stack_ = nullptr;
  ViewArea* area_ = nullptr;
  WelcomePage* welcome_ = nullptr;
  QFrame* banner_ = nullptr;
  QLabel *banner_text_ = nullptr, *readout_ = nullptr, *memory_ = nullptr, *kv_ = nullptr, *hint_ = nullptr;
  QToolButton* banner_details_ = nullptr;
  QString banner_detail_;
  ProjectDock* project_ = nullptr;
  InspectorDock* inspector_ = nullptr;
  JobsDock* jobs_ = nullptr;
  LogDock* log_ = nullptr;
  DataTableDock* table_ = nullptr;
  QComboBox *model_combo_ = nullptr, *plan_combo_ = nullptr, *a_combo_ = nullptr, *b_combo_ = nullptr;
  QMenu* recent_menu_ = nullptr;
  std::unique_ptr<Recovery> recovery_;
  QTimer autosave_, status_;
  QByteArray default_state_;
  qreal normal_points_ = 0;
  struct Measured {
    QString kv;
    qint64 bytes = 0, full = 0, tokens = 0;
  };
  QHash<QString, Measured> measured_;  ///< last generation, by variant
  quint64 kv_request_ = 0;
  bool restoring_ = false, sample_seen_ = false;
};

}  // namespace qs
