#include "app/figure_command.h"

#include <QFileInfo>
#include <QTextStream>

#include "app/headless.h"
#include "app/main_window.h"
#include "app/theme.h"
#include "app/view_factory.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "widgets/view_base.h"

namespace qs {

int run_figure(const QString& session, const QString& view, const QString& file) {
  QTextStream out(stdout), err(stderr);
  apply_theme(Theme::Light);
  Workbench workbench;
  MainWindow window(workbench);
  window.setProperty("quiet", true);
  window.resize(1280, 800);
  try {
    if (session == QLatin1String("sample"))
      workbench.openSample();
    else
      workbench.openSession(QFileInfo(session).absoluteFilePath());
  } catch (const Error& error) {
    err << error.what() << Qt::endl;
    return 1;
  }
  window.show();
  ViewBase* shown = window.openView(view);
  if (!shown) {
    QStringList names;
    for (const ViewType& type : view_types()) names << type.id;
    err << "There is no view '" << view << "'. Known ones: " << names.join(QStringLiteral(", ")) << "." << Qt::endl;
    return 2;
  }
  const QString missing = fill_view(window, *shown, 120'000);
  if (!missing.isEmpty()) {
    err << "The view '" << view << "' has nothing to draw: " << missing << Qt::endl;
    return 1;
  }
  const QString problem = window.exportView(*shown, file);
  if (!problem.isEmpty()) {
    err << problem << Qt::endl;
    return 1;
  }
  out << file << Qt::endl;
  return 0;
}

}  // namespace qs
