#include <QApplication>
#include <QCommandLineParser>
#include <QFileInfo>
#include <QLocale>
#include <QTextStream>
#include <QTimer>
#include <algorithm>
#include <thread>

#include "app/figure_command.h"
#include "app/headless.h"
#include "app/main_window.h"
#include "app/settings.h"
#include "app/theme.h"
#include "app/workbench.h"
#include "backend/methods/packed_from_codes.h"
#include "backend/model/threads.h"
#include "backend/types/error.h"

namespace {

/// Before QApplication exists: whether this run may need a screen, and whether there is one.
void choose_platform(int argc, char** argv) {
  bool offscreen = qEnvironmentVariableIsEmpty("DISPLAY") && qEnvironmentVariableIsEmpty("WAYLAND_DISPLAY");
  for (int i = 1; i < argc; ++i) {
    const QByteArray argument(argv[i]);
    offscreen = offscreen || argument == "--headless" || argument.startsWith("--screenshot") ||
                (i == 1 && argument == "figure");
  }
#if defined(Q_OS_UNIX) && !defined(Q_OS_MACOS)
  if (offscreen && qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
#endif
}

int usage_error(const QString& message) {
  QTextStream(stderr) << message << "\nSee quantoscope --help." << Qt::endl;
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  choose_platform(argc, argv);
  QApplication::setApplicationName(QStringLiteral("quantoscope"));
  QApplication::setApplicationDisplayName(QStringLiteral("Quantoscope"));
  QApplication::setApplicationVersion(QStringLiteral(QUANTOSCOPE_VERSION));
  QApplication program(argc, argv);

  QCommandLineParser parser;
  parser.setApplicationDescription(
      QStringLiteral("Quantoscope: a workbench for quantization of language models.\n\n"
                     "  quantoscope [SESSION|MODEL|CAPTURE]              the workbench\n"
                     "  quantoscope figure SESSION --view NAME -o FILE   one figure, without a screen\n"
                     "  quantoscope --headless --output DIR              the sample's main job, without a screen"));
  parser.addHelpOption();
  parser.addVersionOption();
  parser.addPositionalArgument(QStringLiteral("file"),
                               QStringLiteral("Session, model folder or file, capture or results."),
                               QStringLiteral("[FILE...]"));
  parser.addOptions(
      {{QStringLiteral("headless"), QStringLiteral("Run the sample's main job without a display.")},
       {{QStringLiteral("o"), QStringLiteral("output")},
        QStringLiteral("Folder of --headless, or file of figure."),
        QStringLiteral("PATH")},
       {QStringLiteral("view"),
        QStringLiteral("View that figure draws: outliers, error, attention, alpha, chat, distribution, weights, "
                       "results, model or tokens."),
        QStringLiteral("NAME")},
       {QStringLiteral("screenshot"), QStringLiteral("Grab the window with each view active into this folder."),
        QStringLiteral("DIR")},
       {QStringLiteral("theme"), QStringLiteral("system, light, dark or contrast."), QStringLiteral("NAME")},
       {QStringLiteral("size"), QStringLiteral("Window size of --screenshot, such as 1280x800."), QStringLiteral("WxH"),
        QStringLiteral("1280x800")}});
  parser.process(program);
  const QStringList files = parser.positionalArguments();

  const int cores = std::max(1, int(std::thread::hardware_concurrency()));
  qs::load_codes_as_packed_linears();
  const bool headless = parser.isSet(QStringLiteral("headless"));
  // With a window one core stays free for it.
  qs::set_threads(headless || cores == 1 ? cores : cores - 1);

  if (headless) {
    if (!parser.isSet(QStringLiteral("output"))) return usage_error(QStringLiteral("--headless needs --output DIR."));
    return qs::run_headless(parser.value(QStringLiteral("output")));
  }
  if (files.value(0) == QLatin1String("figure")) {
    if (files.size() != 2 || !parser.isSet(QStringLiteral("view")) || !parser.isSet(QStringLiteral("output"))) {
      return usage_error(QStringLiteral("Usage: quantoscope figure SESSION --view NAME -o FILE.svg|pdf|png|csv|tex"));
    }
    return qs::run_figure(files[1], parser.value(QStringLiteral("view")), parser.value(QStringLiteral("output")));
  }
  const QString theme = parser.value(QStringLiteral("theme"));
  qs::apply_theme(
      qs::theme_from_id(theme.isEmpty() ? qs::app_settings().value(QStringLiteral("theme")).toString() : theme));
  if (parser.isSet(QStringLiteral("screenshot"))) {
    const QStringList size = parser.value(QStringLiteral("size")).split(QLatin1Char('x'));
    const QSize pixels(size.value(0).toInt(), size.value(1).toInt());
    if (pixels.isEmpty())
      return usage_error(
          QStringLiteral("--size must look like 1280x800, found '%1'.").arg(parser.value(QStringLiteral("size"))));
    return qs::run_screenshots(parser.value(QStringLiteral("screenshot")), pixels);
  }

  qs::Workbench workbench;
  qs::MainWindow window(workbench);
  window.show();
  QTimer::singleShot(0, &window, [&] {
    bool opened = false;
    for (const QString& file : files) opened = window.openPath(QFileInfo(file).absoluteFilePath()) || opened;
    if (!opened) window.openSample();
    window.setTheme(qs::current_theme());
    window.offerRecovery();
  });
  return QApplication::exec();
}
