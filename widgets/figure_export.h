#pragma once

#include <QByteArray>
#include <QImage>
#include <QString>
#include <optional>

class QAbstractItemModel;

namespace qs {

class ViewBase;

enum class FigureFormat { Svg, Pdf, Png, Csv, Latex };

/// Size and looks of an exported figure. It is always drawn in the light print style.
struct FigureOptions {
  static constexpr double kColumnMm = 85.0, kPageMm = 178.0;  ///< one and two columns of a paper
  double widthMm = kPageMm, heightMm = 0.0;                   ///< height 0: the shape of the view on screen
  double fontPointSize = 7.0;
  int dpi = 300;           ///< PNG only
  bool provenance = true;  ///< the line under the figure that says how it was made
};

/// By the file's suffix: svg, pdf, png, csv, tex.
std::optional<FigureFormat> figure_format(const QString& path);

/// Draws what the view shows now. Axes are vectors; a heatmap keeps one pixel a cell, without loss.
QByteArray figure_bytes(ViewBase& view, FigureFormat format, const FigureOptions& options = {});
QImage figure_image(ViewBase& view, const FigureOptions& options = {});

/// The same into a file, written beside its target and renamed when whole.
/// @throws Error InvalidArgument for an unknown suffix, Io when it cannot be written
void export_figure(ViewBase& view, const QString& path, const FigureOptions& options = {});

/// Image (and, for the data, tab-separated text) to the clipboard.
void copy_figure(ViewBase& view, const FigureOptions& options = {});
void copy_data(ViewBase& view);

/// RFC 4180 with a header row; numbers in the C locale with all their digits.
QByteArray table_csv(const QAbstractItemModel& table, char separator = ',');
/// A booktabs table of at most `rows` rows.
QByteArray table_latex(const QAbstractItemModel& table, const QString& caption, int rows = 60);

}  // namespace qs
