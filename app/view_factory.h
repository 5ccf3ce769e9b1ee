#pragma once

#include <QList>
#include <QString>

class QWidget;

namespace qs {

class ViewBase;
class Workbench;

struct ViewType {
  QString id, title, tip;
};

/// What the + button and the Window menu offer, in the order of the default tabs.
const QList<ViewType>& view_types();

/// A view with its presenter, which the view owns. Null for an unknown type.
ViewBase* make_view(const QString& type, Workbench& workbench, QWidget* parent);

}  // namespace qs
