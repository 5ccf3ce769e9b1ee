#pragma once

#include <QPalette>
#include <QString>

namespace qs {

enum class Theme { System, Light, Dark, HighContrast };

QString theme_id(Theme theme);  ///< "system", "light", "dark", "contrast"
Theme theme_from_id(const QString& id);

/// The palette of a theme; System gives the light or the dark one, as the desktop's own palette is.
QPalette theme_palette(Theme theme);

/// Fusion with the theme's palette, for the whole program.
void apply_theme(Theme theme);
Theme current_theme();

}  // namespace qs
