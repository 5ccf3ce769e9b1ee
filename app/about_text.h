#pragma once

#include <QString>

namespace qs {

QString about_text();        ///< HTML: versions, licence, what is bundled
QString help_text();         ///< HTML: the short manual
QString tutorial_text();     ///< HTML: a walk through the sample
QString view_keys_text();    ///< HTML: mouse and keys inside views
QString diagnostics_text();  ///< plain: versions and platform

}  // namespace qs
