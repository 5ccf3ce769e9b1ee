#pragma once

#include <QString>

namespace qs {

/// `quantoscope figure`: opens a session, fills one view and exports it. @return exit status
int run_figure(const QString& session, const QString& view, const QString& file);

}  // namespace qs
