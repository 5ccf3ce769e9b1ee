#include "widgets/figure_export.h"

#include <QAbstractTableModel>
#include <QBuffer>
#include <QClipboard>
#include <QFileInfo>
#include <QFontMetricsF>
#include <QGuiApplication>
#include <QPageSize>
#include <QPainter>
#include <QPdfWriter>
#include <QSaveFile>
#include <QSvgGenerator>
#include <algorithm>

#include "backend/types/error.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr double kUnitsPerMm = 96.0 / 25.4;

QSizeF figure_size(const ViewBase& view, const FigureOptions& options) {
  const double shape = view.width() > 0 && view.height() > 0 ? static_cast<double>(view.height()) / view.width() : 0.62;
  const double height = options.heightMm > 0 ? options.heightMm : options.widthMm * std::clamp(shape, 0.35, 1.4);
  return {options.widthMm * kUnitsPerMm, height * kUnitsPerMm};
}

void paint_whole(ViewBase& view, QPainter& painter, const QSizeF& size, const FigureOptions& options) {
  const FigureStyle style = FigureStyle::print(options.fontPointSize);
  painter.setRenderHint(QPainter::LosslessImageRendering, true);
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  painter.fillRect(QRectF(QPointF(), size), style.background);
  QRectF target(QPointF(), size);
  const QString line = view.provenance().line();
  if (options.provenance && !line.isEmpty()) {
    QFont small = style.font;
    small.setPixelSize(std::max(1, static_cast<int>(style.font.pixelSize() * 0.8)));
    const QFontMetricsF metrics(small);
    target.setBottom(target.bottom() - metrics.height() - 4);
    painter.setFont(small);
    painter.setPen(style.muted);
    painter.drawText(QPointF(6, size.height() - 3 - metrics.descent()),
                     metrics.elidedText(line, Qt::ElideMiddle, size.width() - 12));
  }
  view.paintFigure(painter, target, style);
}

QString cell_text(const QAbstractItemModel& table, int row, int column) {
  const QVariant value = table.data(table.index(row, column), Qt::EditRole);
  const QVariant shown = value.isValid() ? value : table.data(table.index(row, column), Qt::DisplayRole);
  switch (shown.typeId()) {
    case QMetaType::Double:
      return QString::number(shown.toDouble(), 'g', 17);
    case QMetaType::Float:
      return QString::number(static_cast<double>(shown.toFloat()), 'g', 9);
    default:
      return shown.toString();
  }
}

QString tex(QString text) {
  QString out;
  for (const QChar c : text) {
    if (c == QLatin1Char('\\'))
      out += QStringLiteral("\\textbackslash{}");
    else if (QStringLiteral("&%$#_{}").contains(c))
      out += QLatin1Char('\\') + QString(c);
    else if (c == QLatin1Char('~'))
      out += QStringLiteral("\\textasciitilde{}");
    else if (c == QLatin1Char('^'))
      out += QStringLiteral("\\textasciicircum{}");
    else
      out += c;
  }
  return out;
}

}  // namespace

std::optional<FigureFormat> figure_format(const QString& path) {
  const QString suffix = QFileInfo(path).suffix().toLower();
  if (suffix == QLatin1String("svg")) return FigureFormat::Svg;
  if (suffix == QLatin1String("pdf")) return FigureFormat::Pdf;
  if (suffix == QLatin1String("png")) return FigureFormat::Png;
  if (suffix == QLatin1String("csv")) return FigureFormat::Csv;
  if (suffix == QLatin1String("tex")) return FigureFormat::Latex;
  return std::nullopt;
}

QImage figure_image(ViewBase& view, const FigureOptions& options) {
  const QSizeF size = figure_size(view, options);
  const double scale = options.dpi / 96.0;
  QImage image((size * scale).toSize(), QImage::Format_RGB32);
  image.fill(Qt::white);
  image.setDotsPerMeterX(qRound(options.dpi / 0.0254));
  image.setDotsPerMeterY(qRound(options.dpi / 0.0254));
  QPainter painter(&image);
  painter.scale(scale, scale);
  paint_whole(view, painter, size, options);
  return image;
}

QByteArray figure_bytes(ViewBase& view, FigureFormat format, const FigureOptions& options) {
  if (format == FigureFormat::Csv) return table_csv(*view.dataTable());
  if (format == FigureFormat::Latex)
    return table_latex(*view.dataTable(), view.title() + QStringLiteral(". ") + view.provenance().line());
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  const QSizeF size = figure_size(view, options);
  if (format == FigureFormat::Png) {
    figure_image(view, options).save(&buffer, "PNG");
  } else if (format == FigureFormat::Svg) {
    QSvgGenerator svg;
    svg.setOutputDevice(&buffer);
    svg.setResolution(96);
    svg.setSize(size.toSize());
    svg.setViewBox(QRect(QPoint(), size.toSize()));
    svg.setTitle(view.title());
    svg.setDescription(view.accessibleSummary() + QLatin1Char('\n') + view.provenance().line() + QLatin1Char('\n') +
                       view.provenance().command);
    QPainter painter(&svg);
    paint_whole(view, painter, size, options);
  } else {
    QPdfWriter pdf(&buffer);
    pdf.setPageSize(QPageSize(QSizeF(size.width() / kUnitsPerMm, size.height() / kUnitsPerMm), QPageSize::Millimeter));
    pdf.setPageMargins(QMarginsF(0, 0, 0, 0));
    pdf.setResolution(1200);
    pdf.setTitle(view.title());
    pdf.setCreator(QStringLiteral("Quantoscope"));
    QPainter painter(&pdf);
    painter.scale(1200.0 / 96.0, 1200.0 / 96.0);
    paint_whole(view, painter, size, options);
  }
  return bytes;
}

void export_figure(ViewBase& view, const QString& path, const FigureOptions& options) {
  const auto format = figure_format(path);
  if (!format)
    throw Error(ErrorCode::InvalidArgument,
                "'" + path.toStdString() + "' does not end in .svg, .pdf, .png, .csv or .tex; choose one of these.");
  QSaveFile file(path);
  const QByteArray bytes = figure_bytes(view, *format, options);
  if (!file.open(QIODevice::WriteOnly) || file.write(bytes) != bytes.size() || !file.commit())
    throw Error(ErrorCode::Io,
                "'" + path.toStdString() + "' could not be written: " + file.errorString().toStdString() + ".");
}

void copy_figure(ViewBase& view, const FigureOptions& options) {
  QGuiApplication::clipboard()->setImage(figure_image(view, options));
}

void copy_data(ViewBase& view) {
  QGuiApplication::clipboard()->setText(QString::fromUtf8(table_csv(*view.dataTable(), '\t')));
}

QByteArray table_csv(const QAbstractItemModel& table, char separator) {
  QByteArray out;
  const auto field = [&](const QString& text) {
    const bool quoted = text.contains(QLatin1Char(separator)) || text.contains(QLatin1Char('"')) ||
                        text.contains(QLatin1Char('\n')) || text.contains(QLatin1Char('\r'));
    QString escaped = text;
    if (quoted)
      escaped = QLatin1Char('"') + escaped.replace(QLatin1Char('"'), QStringLiteral("\"\"")) + QLatin1Char('"');
    out += escaped.toUtf8();
  };
  const int columns = table.columnCount();
  for (int c = 0; c < columns; ++c) {
    if (c) out += separator;
    field(table.headerData(c, Qt::Horizontal).toString());
  }
  out += '\n';
  for (int r = 0; r < table.rowCount(); ++r) {
    for (int c = 0; c < columns; ++c) {
      if (c) out += separator;
      field(cell_text(table, r, c));
    }
    out += '\n';
  }
  return out;
}

QByteArray table_latex(const QAbstractItemModel& table, const QString& caption, int rows) {
  const int columns = std::min(table.columnCount(), 12), shown = std::min(table.rowCount(), rows);
  QString out =
      QStringLiteral("% \\usepackage{booktabs}\n\\begin{table}\n\\centering\n\\begin{tabular}{l%1}\n\\toprule\n")
          .arg(QString(std::max(0, columns - 1), QLatin1Char('r')));
  for (int c = 0; c < columns; ++c)
    out += (c ? QStringLiteral(" & ") : QString()) + tex(table.headerData(c, Qt::Horizontal).toString());
  out += QStringLiteral(" \\\\\n\\midrule\n");
  for (int r = 0; r < shown; ++r) {
    for (int c = 0; c < columns; ++c) {
      const QVariant value = table.data(table.index(r, c), Qt::EditRole);
      const bool real = value.typeId() == QMetaType::Double || value.typeId() == QMetaType::Float;
      out += (c ? QStringLiteral(" & ") : QString()) +
             tex(real ? QString::number(value.toDouble(), 'g', 4) : cell_text(table, r, c));
    }
    out += QStringLiteral(" \\\\\n");
  }
  out += QStringLiteral("\\bottomrule\n\\end{tabular}\n\\caption{%1}\n\\end{table}\n").arg(tex(caption));
  return out.toUtf8();
}

}  // namespace qs
