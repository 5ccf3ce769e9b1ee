#include "app/theme.h"

#include <QApplication>
#include <QFontInfo>
#include <QStyle>
#include <QStyleFactory>
#include <QToolTip>

namespace qs {
namespace {

Theme chosen = Theme::System;

struct Colours {
  QRgb window, base, alternate, button, text, muted, highlight, highlighted, link, mid, tip;
};

QPalette palette_of(const Colours& c) {
  QPalette p{QColor(c.button), QColor(c.window)};
  p.setColor(QPalette::Window, c.window);
  p.setColor(QPalette::WindowText, c.text);
  p.setColor(QPalette::Base, c.base);
  p.setColor(QPalette::AlternateBase, c.alternate);
  p.setColor(QPalette::Text, c.text);
  p.setColor(QPalette::Button, c.button);
  p.setColor(QPalette::ButtonText, c.text);
  p.setColor(QPalette::BrightText, c.highlighted);
  p.setColor(QPalette::Highlight, c.highlight);
  p.setColor(QPalette::HighlightedText, c.highlighted);
  p.setColor(QPalette::Link, c.link);
  p.setColor(QPalette::LinkVisited, c.link);
  p.setColor(QPalette::ToolTipBase, c.tip);
  p.setColor(QPalette::ToolTipText, c.text);
  p.setColor(QPalette::PlaceholderText, c.muted);
  p.setColor(QPalette::Mid, c.mid);
  p.setColor(QPalette::Midlight, c.alternate);
  for (const QPalette::ColorRole role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText}) {
    p.setColor(QPalette::Disabled, role, c.muted);
  }
  p.setColor(QPalette::Disabled, QPalette::Highlight, c.mid);
  return p;
}

bool system_is_dark() {
  static const QPalette desktop = QApplication::style()->standardPalette();
  return desktop.color(QPalette::Window).lightness() < 128;
}

}  // namespace

QString theme_id(Theme theme) {
  switch (theme) {
    case Theme::Light:
      return QStringLiteral("light");
    case Theme::Dark:
      return QStringLiteral("dark");
    case Theme::HighContrast:
      return QStringLiteral("contrast");
    case Theme::System:
      break;
  }
  return QStringLiteral("system");
}

Theme theme_from_id(const QString& id) {
  for (const Theme theme : {Theme::Light, Theme::Dark, Theme::HighContrast}) {
    if (theme_id(theme) == id) return theme;
  }
  return Theme::System;
}

QPalette theme_palette(Theme theme) {
  if (theme == Theme::System) theme = system_is_dark() ? Theme::Dark : Theme::Light;
  if (theme == Theme::Dark) {
    return palette_of(
        {0x1f2226, 0x17191c, 0x24282d, 0x2c3137, 0xe4e7eb, 0x8b939d, 0x2f6fb3, 0xffffff, 0x6fb3ff, 0x4a5159, 0x2c3137});
  }
  if (theme == Theme::HighContrast) {
    return palette_of(
        {0x000000, 0x000000, 0x101010, 0x000000, 0xffffff, 0xc0c0c0, 0xffe000, 0x000000, 0x66e0ff, 0xffffff, 0x000000});
  }
  return palette_of(
      {0xf3f4f6, 0xffffff, 0xf6f7f9, 0xe9ebee, 0x1b1f24, 0x6a737d, 0x0b63b5, 0xffffff, 0x0b63b5, 0xc3c8ce, 0xffffff});
}

void apply_theme(Theme theme) {
  system_is_dark();  // asks the desktop's palette before ours replaces it
  chosen = theme;
  if (QApplication::style()->name().compare(QLatin1String("fusion"), Qt::CaseInsensitive) != 0) {
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
  }
  QApplication::setPalette(theme_palette(theme));
  QToolTip::setPalette(theme_palette(theme));
}

Theme current_theme() { return chosen; }

}  // namespace qs
