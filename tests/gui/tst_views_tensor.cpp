#include <QAbstractItemModelTester>
#include <QAccessible>
#include <QApplication>
#include <QDir>
#include <QJsonDocument>
#include <QRandomGenerator>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QtTest>

#include "backend/types/error.h"
#include "tests/support/tensor_scenes.h"
#include "widgets/figure_export.h"
#include "widgets/selection_hub.h"
#include "widgets/views/error_heatmap.h"
#include "widgets/views/locality_view.h"
#include "widgets/views/outlier_view.h"

using namespace qs;

namespace {

constexpr int kLayers = 6, kHeads = 4, kKvHeads = 2, kTokens = 256, kDim = 64;

QStringList words() {
  const QStringList some = {QStringLiteral(" the"),    QStringLiteral(" old"),  QStringLiteral(" man"),
                            QStringLiteral(" walked"), QStringLiteral(" down"), QStringLiteral(" to"),
                            QStringLiteral(" sea"),    QStringLiteral("."),     QStringLiteral(" un"),
                            QStringLiteral("til")};
  QStringList out;
  for (int i = 0; i < kTokens; ++i) out << (i == 0 ? QStringLiteral("<s>") : some[(i * 7 + i / 5) % some.size()]);
  return out;
}

void fill(OutlierView& view) {
  OutlierSide a, b;
  a.label = QStringLiteral("sample-outliers-hf");
  b.label = QStringLiteral("sample-hf");
  for (std::uint32_t l = 0; l < kLayers; ++l) {
    a.layers.push_back(analysis::channel_stats(test::keys_with_outliers(kKvHeads, kTokens, kDim, 10 + l)));
    b.layers.push_back(analysis::channel_stats(test::gaussian({kKvHeads, kTokens, kDim}, 30 + l)));
  }
  view.setTokens(words());
  view.setChannels(a, b, kDim);
  view.setDetail(0, test::pyramid(analysis::magnitude_by_token(test::keys_with_outliers(kKvHeads, kTokens, kDim, 10))),
                 test::pyramid(analysis::magnitude_by_token(test::gaussian({kKvHeads, kTokens, kDim}, 30))));
  view.setState(ViewState::Ready);
}

ErrorSide error_side(const QString& label, int levels) {
  const TensorView x = test::keys_with_outliers(kKvHeads, kTokens, kDim, 10), y = test::rounded(x, levels, 32);
  ErrorSide side;
  side.label = label;
  auto map = std::make_shared<analysis::ErrorMap>(analysis::error_map(x, y));
  side.absolute = test::pyramid(map->absolute_error);
  side.signedError = test::pyramid(map->signed_error);
  side.hotSpots = analysis::hot_spots(*map, 100);
  side.map = map;
  KvOverlay overlay;
  overlay.tokens = kTokens;
  overlay.kv_heads = kKvHeads;
  overlay.head_dim = kDim;
  overlay.quantized_end = kTokens - 32;
  side.overlay = std::make_shared<const KvOverlay>(overlay);
  side.codes.counts.assign(static_cast<std::size_t>(levels), 100);
  side.codes.counts[1] = 900;
  side.report.levels = levels;
  side.report.levels_used = levels;
  side.report.saturated_fraction = 0.031;
  return side;
}

void fill(ErrorHeatmap& view) {
  std::vector<analysis::VariantErrors> variants;
  for (int v = 0; v < 3; ++v) {
    analysis::VariantErrors errors;
    errors.label = QStringList{QStringLiteral("KIVI-2"), QStringLiteral("RTN-4 per token"), QStringLiteral("KIVI-4")}[v]
                       .toStdString();
    errors.kinds = {"K", "V"};
    for (int l = 0; l < kLayers; ++l) {
      TensorReport k, w;
      k.relative_error = std::vector<double>{0.21, 0.27, 0.05}[static_cast<std::size_t>(v)] * (1 + 0.05 * l);
      w.relative_error = k.relative_error * 0.8;
      k.functional_error = std::vector<double>{0.19, 0.12, 0.03}[static_cast<std::size_t>(v)] * (1 + 0.1 * l);
      w.functional_error = k.functional_error * 0.5;
      errors.reports.push_back({k, w});
    }
    variants.push_back(errors);
  }
  view.setTokens(words());
  view.setOverview(variants);
  std::vector<float> heads(kKvHeads * kLayers);
  for (std::size_t i = 0; i < heads.size(); ++i) heads[i] = 0.1f + 0.02f * static_cast<float>(i);
  const TensorView plane = TensorView::own(heads, {kKvHeads, kLayers});
  view.setHeads(plane, plane);
  view.setDetail(0, QStringLiteral("key"), error_side(QStringLiteral("RTN-4 per token"), 16),
                 error_side(QStringLiteral("KIVI-2"), 4), kDim);
  view.setState(ViewState::Ready);
}

/// A method that keeps the newest tokens of keys and of values.
std::vector<analysis::QuantizedKeys> protected_newest(std::int64_t newest) {
  analysis::QuantizedKeys keys;
  for (std::int64_t place = 0; place < kTokens; ++place)
    keys.push_back({0, std::max<std::int64_t>(0, place + 1 - newest)});
  return {keys, keys};
}

void fill(LocalityView& view) {
  LocalitySide a, b;
  a.label = QStringLiteral("captured");
  b.label = QStringLiteral("KIVI-2");
  for (std::uint32_t l = 0; l < kLayers; ++l) {
    const auto input = test::attention_input(kHeads, kKvHeads, kTokens, 16, 70 + l);
    auto coarse = input;
    coarse.key = test::rounded(input.key, 4, 32);
    std::vector<analysis::HeadLocality> one, two;
    for (int h = 0; h < kHeads; ++h) {
      one.push_back(analysis::head_locality(input, h, 4, 0, {}, protected_newest(32)));
      two.push_back(analysis::head_locality(coarse, h, 4, 0));
    }
    a.layers.push_back(one);
    b.layers.push_back(two);
  }
  const auto input = test::attention_input(kHeads, kKvHeads, kTokens, 16, 70);
  auto coarse = input;
  coarse.key = test::rounded(input.key, 4, 32);
  const auto side = [](const analysis::AttentionInput& in) {
    const auto pooled = analysis::pooled_attention(in, 0, 1024);
    AttentionSide s;
    s.max = test::pyramid(pooled.max);
    s.mean = test::pyramid(pooled.mean);
    return s;
  };
  AttentionSide second = side(coarse);
  second.outputError = 0.083;
  view.setTokens(words());
  view.setLocality(a, b, kHeads / kKvHeads);
  view.setProtected({QStringLiteral("KIVI-2"), 0, 32, 32, QStringLiteral("Residual length")});
  view.setAttention(0, 0, side(input), second);
  view.setTokenAttention(120, analysis::token_attention(input, 0, 120), analysis::token_attention(coarse, 0, 120));
  view.setState(ViewState::Ready);
}

QPalette dark() {
  QPalette p;
  p.setColor(QPalette::Window, QColor(0x25, 0x27, 0x2b));
  p.setColor(QPalette::WindowText, QColor(0xe6, 0xe6, 0xe6));
  p.setColor(QPalette::Base, QColor(0x1b, 0x1d, 0x20));
  p.setColor(QPalette::AlternateBase, QColor(0x22, 0x24, 0x28));
  p.setColor(QPalette::Text, QColor(0xe6, 0xe6, 0xe6));
  p.setColor(QPalette::Button, QColor(0x2f, 0x32, 0x37));
  p.setColor(QPalette::ButtonText, QColor(0xe6, 0xe6, 0xe6));
  p.setColor(QPalette::Highlight, QColor(0x2f, 0x7d, 0xd1));
  return p;
}

}  // namespace

class TestViewsTensor : public QObject {
  Q_OBJECT

  struct Scene {
    SelectionHub hub;
    OutlierView outliers{hub};
    ErrorHeatmap error{hub};
    LocalityView attention{hub};
    QList<HeatmapView*> views() { return {&outliers, &error, &attention}; }
    Scene() {
      fill(outliers);
      fill(error);
      fill(attention);
      for (HeatmapView* view : views()) {
        view->setProvenance({QStringLiteral("Sample"),
                             QStringLiteral("KIVI-2"),
                             QStringLiteral("sample-hf on sample-valid.txt"),
                             QStringLiteral("Quantoscope"),
                             {}});
        view->resize(1000, 640);
        view->show();
      }
    }
  };

 private Q_SLOTS:
  void picturesAreDrawnInBothThemes() {
    const QString folder = qEnvironmentVariable("QUANTOSCOPE_PICTURES");
    const QPalette light = QApplication::palette();
    for (const bool night : {false, true}) {
      QApplication::setPalette(night ? dark() : light);
      Scene scene;
      for (const QSize size : {QSize(960, 560), QSize(1500, 860)})
        for (HeatmapView* view : scene.views()) {
          view->resize(size);
          QCoreApplication::processEvents();
          const QImage image = view->grab().toImage();
          QSet<QRgb> colors;
          for (int y = 0; y < image.height(); y += 3)
            for (int x = 0; x < image.width(); x += 3) colors.insert(image.pixel(x, y));
          QVERIFY(colors.size() > 60);
          if (!folder.isEmpty())
            image.save(
                QDir(folder).filePath(QStringLiteral("%1-%2-%3.png")
                                          .arg(view->viewId(), night ? QStringLiteral("dark") : QStringLiteral("light"))
                                          .arg(size.width())));
        }
    }
    QApplication::setPalette(light);
  }

  void aChoiceInOneViewIsChosenInAll() {
    Scene scene;
    HeatmapCanvas* map = scene.outliers.heatmap(QStringLiteral("map"));
    map->setCursorCell({3, 69});
    QTest::keyClick(map, Qt::Key_Return);
    QTRY_COMPARE(scene.error.selection().layer, 3);
    QCOMPARE(scene.hub.selection().channelBegin, 69);
    QCOMPARE(scene.hub.selection().kvHead, 1);
    QCOMPARE(scene.error.heatmap(QStringLiteral("detail"))->panel().selectedCol, std::int64_t{69});
    QCOMPARE(scene.attention.heatmap(QStringLiteral("matrix"))->panel().selectedRow, std::int64_t{3});
    scene.attention.setLinked(false);
    scene.hub.edit([](Selection& s) { s.layer = 1; });
    QTRY_COMPARE(scene.error.selection().layer, 1);
    QCOMPARE(scene.attention.selection().layer, 3);
  }

  void brushedChannelsFilterTheErrors() {
    Scene scene;
    HeatmapCanvas* map = scene.outliers.heatmap(QStringLiteral("map"));
    map->setCursorCell({0, 0});
    QTest::keyClick(map, Qt::Key_Space);
    map->setCursorCell({0, 9});
    QTest::keyClick(map, Qt::Key_Space, Qt::ShiftModifier);
    QTRY_COMPARE(scene.error.selection().channelEnd, 10);
    QCOMPARE(scene.error.heatmap(QStringLiteral("detail"))->panel().brush.width(), 10.0);
    auto* spots = scene.error.findChild<QTableView*>(QStringLiteral("hotSpots"));
    for (int r = 0; r < spots->model()->rowCount(); ++r)
      QVERIFY(spots->model()->index(r, 1).data(Qt::EditRole).toInt() < 10);
    QTest::keyClick(map, Qt::Key_Escape);
    QTRY_COMPARE(scene.error.selection().channelBegin, -1);
  }

  void hotSpotsJump() {
    Scene scene;
    auto* spots = scene.error.findChild<QTableView*>(QStringLiteral("hotSpots"));
    spots->setCurrentIndex(spots->model()->index(2, 0));
    QTest::keyClick(spots, Qt::Key_Return);
    const int token = spots->model()->index(2, 0).data(Qt::EditRole).toInt();
    QTRY_COMPARE(scene.hub.selection().tokenBegin, token);
    QCOMPARE(scene.error.heatmap(QStringLiteral("detail"))->panel().cursor->row, std::int64_t{token});
  }

  void thresholdIsDraggedByKeys() {
    Scene scene;
    LineCanvas* ranked = scene.outliers.lines(QStringLiteral("ranked"));
    const double before = scene.outliers.threshold();
    ranked->setFocus();
    QTest::keyClick(ranked, Qt::Key_Up);
    QVERIFY(std::fabs(scene.outliers.threshold() / before - 1.05) < 1e-6);
    QCOMPARE(ranked->panel().threshold.has_value(), true);
    scene.outliers.setThreshold(4.0);
    QVERIFY(ranked->panel().note.contains(QStringLiteral("A 4")));
  }

  void disagreeingMetricsAreMarked() {
    Scene scene;
    auto* strip = scene.error.findChild<MetricStripCanvas*>(QStringLiteral("metrics"));
    QCOMPARE(strip->panel().disagree(), (std::vector<bool>{true, true, false}));
  }

  void massOutsideTheProtectedWindowIsStated() {
    Scene scene;
    LineCanvas* curve = scene.attention.lines(QStringLiteral("curve"));
    const auto input = test::attention_input(kHeads, kKvHeads, kTokens, 16, 70);
    double mean = 0.0;
    for (int h = 0; h < kHeads; ++h)
      mean += 100.0 * (1.0 - analysis::head_locality(input, h, 4, 0).mass_within(32)) / kHeads;
    QVERIFY2(curve->panel().caption.contains(QString::number(mean, 'g', 3)), qPrintable(curve->panel().caption));
    QVERIFY(curve->panel().caption.startsWith(QStringLiteral("Mass outside the protected window")));
  }

  void tokenStripChoosesAToken() {
    Scene scene;
    auto* strip = scene.attention.findChild<TokenStripCanvas*>(QStringLiteral("tokens"));
    QSignalSpy chosen(&scene.attention, &LocalityView::tokenChosen);
    strip->panel().cursor = 20;
    QTest::keyClick(strip, Qt::Key_Right);
    QTest::keyClick(strip, Qt::Key_Return);
    QCOMPARE(chosen.first().first().toLongLong(), 21);
    QTRY_COMPARE(scene.hub.selection().tokenBegin, 21);
  }

  void readoutIsExactAndNamesTheCell() {
    Scene scene;
    QSignalSpy readout(&scene.error, &ViewBase::readoutChanged);
    HeatmapCanvas* detail = scene.error.heatmap(QStringLiteral("detail"));
    detail->setCursorCell({100, 69});
    const QString text = readout.last().first().toString();
    QVERIFY2(text.startsWith(QStringLiteral("L0 K h1 ch 5 (global 69) tok 100 '%1'").arg(words()[100])),
             qPrintable(text));
    const TensorView x = test::keys_with_outliers(kKvHeads, kTokens, kDim, 10);
    QVERIFY2(text.contains(QString::number(static_cast<double>(x.data[(kTokens + 100) * kDim + 5]), 'g', 6)),
             qPrintable(text));
  }

  void settingsSurviveARoundTrip() {
    QRandomGenerator random(7);
    Scene scene;
    for (int i = 0; i < 60; ++i)
      for (HeatmapView* view : scene.views()) {
        view->setCompareMode(random.bounded(4));
        view->setScaleKind(static_cast<analysis::ScaleKind>(random.bounded(3)));
        view->setRangeMode(static_cast<analysis::RangeMode>(random.bounded(3)));
        view->setColorMap(static_cast<MapName>(random.bounded(3)));
        view->setScaleLocked(random.bounded(2));
        view->setScaleLinked(random.bounded(2));
        view->setBlink(random.bounded(4) == 0);
        for (auto* canvas : view->findChildren<HeatmapCanvas*>()) {
          canvas->fit();
          if (random.bounded(2) && !canvas->panel().isEmpty())
            canvas->panel().setViewport(
                {random.bounded(50.0), random.bounded(50.0), 4 + random.bounded(60.0), 4 + random.bounded(60.0)});
        }
        scene.outliers.setStat(static_cast<analysis::ChannelStat>(random.bounded(5)));
        scene.outliers.setThreshold(0.5 + random.bounded(20.0));
        scene.error.setMetric(static_cast<analysis::ErrorMetric>(random.bounded(6)));
        scene.error.setSigned(random.bounded(2));
        scene.attention.setWindow(1 + random.bounded(300));
        scene.attention.setSummary(static_cast<LocalityView::Summary>(random.bounded(3)));
        const QByteArray saved = QJsonDocument(view->saveSettings()).toJson();
        view->restoreSettings(view->saveSettings());
        QCOMPARE(QJsonDocument(view->saveSettings()).toJson(), saved);
        SelectionHub hub;
        std::unique_ptr<HeatmapView> fresh;
        if (view == &scene.outliers)
          fresh = std::make_unique<OutlierView>(hub);
        else if (view == &scene.error)
          fresh = std::make_unique<ErrorHeatmap>(hub);
        else
          fresh = std::make_unique<LocalityView>(hub);
        fresh->restoreSettings(QJsonDocument::fromJson(saved).object());
        QCOMPARE(QJsonDocument(fresh->saveSettings()).toJson(), saved);
      }
  }

  void tableAndCsvEqualTheSlice() {
    Scene scene;
    HeatmapCanvas* detail = scene.outliers.heatmap(QStringLiteral("detail"));
    detail->setFocus();
    QTest::keyClick(detail, Qt::Key_Home);
    Q_EMIT detail->focused();
    detail->panel().setViewport({10, 20, 12, 8});
    Q_EMIT detail->viewportChanged();
    QAbstractTableModel* table = scene.outliers.dataTable();
    QTRY_COMPARE(table->rowCount(), 8);
    QCOMPARE(table->columnCount(), 13);
    QAbstractItemModelTester tester(table, QAbstractItemModelTester::FailureReportingMode::QtTest);
    const TensorView plane = analysis::magnitude_by_token(test::keys_with_outliers(kKvHeads, kTokens, kDim, 10));
    const QList<QByteArray> lines = figure_bytes(scene.outliers, FigureFormat::Csv).trimmed().split('\n');
    QCOMPARE(lines.size(), 9);
    for (int r = 0; r < 8; ++r) {
      const QList<QByteArray> cells = lines[r + 1].split(',');
      QCOMPARE(cells[0].toInt(), 20 + r);
      for (int c = 0; c < 12; ++c) QCOMPARE(cells[c + 1].toFloat(), plane.data[(20 + r) * kKvHeads * kDim + 10 + c]);
    }
  }

  void exportsAreLosslessAndWhole() {
    Scene scene;
    QTemporaryDir folder;
    for (HeatmapView* view : scene.views()) {
      const QByteArray pdf = figure_bytes(*view, FigureFormat::Pdf);
      QVERIFY(pdf.startsWith("%PDF"));
      QVERIFY2(!pdf.contains("DCTDecode"), "the PDF holds a lossy image");
      const QByteArray svg = figure_bytes(*view, FigureFormat::Svg);
      QVERIFY(svg.contains("viewBox=\"0 0 "));
      QVERIFY(svg.contains("Sample · KIVI-2"));
      QVERIFY(figure_image(*view).width() == qRound(178.0 / 25.4 * 300));
      QVERIFY(figure_bytes(*view, FigureFormat::Latex).contains("\\toprule"));
      for (const char* suffix : {"svg", "pdf", "png", "csv", "tex"}) {
        const QString path = folder.filePath(view->viewId() + QLatin1Char('.') + QLatin1String(suffix));
        export_figure(*view, path);
        QVERIFY(QFileInfo(path).size() > 0);
      }
      QVERIFY_EXCEPTION_THROWN(export_figure(*view, folder.filePath(QStringLiteral("a.gif"))), Error);
      QVERIFY_EXCEPTION_THROWN(export_figure(*view, folder.filePath(QStringLiteral("none/a.png"))), Error);
      if (const QString pictures = qEnvironmentVariable("QUANTOSCOPE_PICTURES"); !pictures.isEmpty())
        figure_image(*view).save(QDir(pictures).filePath(view->viewId() + QStringLiteral("-print.png")));
    }
  }

  void everyFocusableWidgetHasAName() {
    Scene scene;
    for (HeatmapView* view : scene.views())
      for (QWidget* widget : view->findChildren<QWidget*>()) {
        if (widget->focusPolicy() == Qt::NoFocus || !widget->isVisibleTo(view)) continue;
        if (widget->objectName().startsWith(QLatin1String("qt_"))) continue;
        QAccessibleInterface* face = QAccessible::queryAccessibleInterface(widget);
        QVERIFY2(face && !face->text(QAccessible::Name).isEmpty(),
                 qPrintable(
                     QStringLiteral("%1 in %2").arg(QLatin1String(widget->metaObject()->className()), view->viewId())));
      }
    QAccessibleInterface* map = QAccessible::queryAccessibleInterface(scene.outliers.heatmap(QStringLiteral("map")));
    QCOMPARE(map->role(), QAccessible::Chart);
    QVERIFY(map->text(QAccessible::Description).contains(QStringLiteral("6 by 128 cells")));
    QCOMPARE(QAccessible::queryAccessibleInterface(&scene.error)->role(), QAccessible::Chart);
  }

  void statesSayWhatToDoNext() {
    SelectionHub hub;
    OutlierView view(hub);
    view.resize(700, 500);
    view.show();
    QSignalSpy action(&view, &ViewBase::actionRequested);
    view.setState(ViewState::Empty, QStringLiteral("No capture yet."), QStringLiteral("capture.kv"),
                  QStringLiteral("Capture KV..."));
    auto* button = view.findChild<QWidget*>(QStringLiteral("viewAction"));
    QVERIFY(button->isVisible());
    QTest::mouseClick(button, Qt::LeftButton);
    QCOMPARE(action.last().first().toString(), QStringLiteral("capture.kv"));
    view.setState(ViewState::Failed, QStringLiteral("It broke."), {}, {}, QStringLiteral("detail"));
    QVERIFY(view.findChild<QWidget*>(QStringLiteral("viewCopyDetails"))->isVisible());
    QTest::mouseClick(button, Qt::LeftButton);
    QCOMPARE(action.last().first().toString(), QStringLiteral("view.retry"));
    fill(view);
    view.setState(ViewState::Loading, QStringLiteral("Reading"));
    view.setProgress(0.4, QStringLiteral("layer 2"));
    QSignalSpy cancel(&view, &ViewBase::cancelRequested);
    QTest::mouseClick(view.findChild<QWidget*>(QStringLiteral("viewCancel")), Qt::LeftButton);
    QCOMPARE(cancel.size(), 1);
    view.setState(ViewState::Stale);
    QVERIFY(button->isVisible());
    view.setState(ViewState::Ready);
    QVERIFY(!view.findChild<QWidget*>(QStringLiteral("viewOverlay"))->isVisible());
  }
};

QTEST_MAIN(TestViewsTensor)
#include "tst_views_tensor.moc"
