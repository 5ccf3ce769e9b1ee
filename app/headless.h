#pragma once

#include <QSize>
#include <QString>
#include <functional>

namespace qs {

class MainWindow;
class ViewBase;
class Workbench;

/// Runs the event loop until `done` or the time is over. @return whether it was done
bool wait_until(const std::function<bool()>& done, int timeout_ms);

/// Waits for a view to have something to show, starting what a user would start (the sweep, the chat).
/// @return empty, or why it has nothing
QString fill_view(MainWindow& window, ViewBase& view, int timeout_ms);

/// The main job of the sample without a display: capture, four variants, evaluation, and the five views as figures.
/// @return exit status
int run_headless(const QString& folder);

/// The window with each view active, as PNG files. @return exit status
int run_screenshots(const QString& folder, QSize size);

}  // namespace qs
