#include <QPainter>
#include <QSignalSpy>
#include <QtTest>
#include <cmath>
#include <limits>

#include "tests/support/tensor_scenes.h"
#include "widgets/paint/axes.h"
#include "widgets/paint/color_map.h"
#include "widgets/paint/line_painter.h"
#include "widgets/selection_hub.h"
#include "widgets/views/heatmap_canvas.h"
#include "widgets/views/outlier_view.h"

using namespace qs;

namespace {

QPoint center_of(HeatmapCanvas& canvas, std::int64_t row, std::int64_t col) {
  const QRectF body = canvas.panel().bodyRect(canvas.rect(), canvas.figureStyle());
  return canvas.panel().toScreen(static_cast<double>(col) + 0.5, static_cast<double>(row) + 0.5, body).toPoint();
}

void wheel(QWidget& widget, QPoint at, int steps, Qt::KeyboardModifiers modifiers = {}) {
  QWheelEvent event(at, widget.mapToGlobal(at), QPoint(), QPoint(0, 120 * steps), Qt::NoButton, modifiers,
                    Qt::NoScrollPhase, false);
  QCoreApplication::sendEvent(&widget, &event);
}

}  // namespace

class TestHeatmapView : public QObject {
  Q_OBJECT

  static std::unique_ptr<HeatmapCanvas> canvasWith(std::int64_t rows, std::int64_t cols) {
    auto canvas = std::make_unique<HeatmapCanvas>(QStringLiteral("test"), nullptr);
    canvas->resize(640, 420);
    canvas->panel().setData(test::pyramid(test::gaussian({rows, cols}, 2)));
    canvas->panel().scale =
        analysis::fit_scale(canvas->panel().plane(), analysis::ScaleKind::Linear, analysis::RangeMode::Full, false);
    canvas->describe = [](Cell c) { return QStringLiteral("%1,%2").arg(c.row).arg(c.col); };
    canvas->show();
    return canvas;
  }

 private Q_SLOTS:
  void colourMapsAreEvenAndMonotone() {
    for (const MapName name : {MapName::Viridis, MapName::Cividis, MapName::Grey}) {
      const auto& lut = ColorMap::get(name).lut();
      double smallest = 1e9, largest = 0;
      for (std::size_t i = 0; i + 8 < lut.size(); i += 8) {
        const double step = oklab_distance(lut[i], lut[i + 8]);
        smallest = std::min(smallest, step), largest = std::max(largest, step);
        QVERIFY2(oklab_lightness(lut[i + 8]) > oklab_lightness(lut[i]), qPrintable(ColorMap::id(name)));
      }
      QVERIFY2(largest < 1.35 * smallest,
               qPrintable(QStringLiteral("%1 %2 %3").arg(ColorMap::id(name)).arg(smallest).arg(largest)));
    }
    const auto& diverging = ColorMap::get(MapName::Diverging).lut();
    for (std::size_t i = 0; i < 128; ++i)
      QVERIFY(std::fabs(oklab_lightness(diverging[i]) - oklab_lightness(diverging[255 - i])) < 0.06);
    for (const MapName name : {MapName::Viridis, MapName::Cividis, MapName::Grey})
      for (const QRgb odd : {ColorMap::kNan, ColorMap::kInfinite, ColorMap::kZero})
        for (const QRgb c : ColorMap::get(name).lut()) QVERIFY(oklab_distance(odd, c) > 0.03);
  }

  void ticksAreRoundAndInside() {
    QCOMPARE(nice_ticks(0.0, 1.0, 5), (std::vector<double>{0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0}));
    for (const double t : index_ticks(0, 7, 20)) QCOMPARE(t, std::floor(t));
    QVERIFY(nice_ticks(1.0, 1.0, 5).empty());
  }

  void decimatedLinesKeepTheExtremes() {
    std::vector<float> values(100000, 0.0f);
    values[54321] = 9.0f;
    values[777] = -4.0f;
    const QPolygonF line = decimated_line(
        values, [](std::size_t i) { return static_cast<double>(i) / 100.0; },
        [](float v) { return static_cast<double>(v); });
    QVERIFY(line.size() <= 2002);
    QCOMPARE(line.boundingRect().top(), -4.0);
    QCOMPARE(line.boundingRect().bottom(), 9.0);
  }

  void pixelsInvertToTheData() {
    for (const auto kind : {analysis::ScaleKind::Linear, analysis::ScaleKind::Log10}) {
      HeatmapPanel panel;
      const TensorView plane = analysis::magnitude_by_token(test::gaussian({1, 60, 40}, 8));
      panel.setData(test::pyramid(plane));
      panel.scale = analysis::fit_scale(panel.plane(), kind, analysis::RangeMode::Full, false);
      const QImage image = panel.renderBody({40, 60});
      for (int r = 0; r < 60; ++r)
        for (int c = 0; c < 40; ++c) {
          const QRgb pixel = image.pixel(c, r);
          const auto& lut = ColorMap::get(MapName::Viridis).lut();
          const auto at =
              std::min_element(lut.begin(), lut.end(),
                               [&](QRgb a, QRgb b) { return oklab_distance(a, pixel) < oklab_distance(b, pixel); }) -
              lut.begin();
          const double position = panel.scale.position(plane.data[r * 40 + c]);
          QVERIFY2(std::fabs(static_cast<double>(at) / 255.0 - position) < 1.6 / 255.0,
                   qPrintable(QStringLiteral("%1 %2").arg(at).arg(position * 255)));
        }
    }
  }

  void oddValuesHaveTheirOwnColours() {
    HeatmapPanel panel;
    std::vector<float> v(64, 1.0f);
    v[0] = std::numeric_limits<float>::quiet_NaN(), v[1] = -std::numeric_limits<float>::infinity(), v[2] = 0.0f;
    v[3] = 2.0f;
    panel.setData(test::pyramid(TensorView::own(v, {8, 8})));
    panel.scale = analysis::fit_scale(panel.plane(), analysis::ScaleKind::Linear, analysis::RangeMode::Full, false);
    const QImage image = panel.renderBody({80, 80});
    QCOMPARE(image.pixel(5, 5), ColorMap::kNan);
    QCOMPARE(image.pixel(15, 5), ColorMap::kInfinite);
    QCOMPARE(image.pixel(25, 5), ColorMap::kZero);
    QCOMPARE(panel.plane().nan, std::int64_t{1});
  }

  void oneLargeCellIsSeenFromAfar() {
    std::vector<float> v(4000 * 3000, 0.5f);
    v[1234 * 3000 + 2222] = 100.0f;
    HeatmapPanel panel;
    panel.setData(test::pyramid(TensorView::own(std::move(v), {4000, 3000})));
    panel.scale.low = 0, panel.scale.high = 100;
    const QImage image = panel.renderBody({300, 200});
    int bright = 0;
    for (int y = 0; y < 200; ++y)
      for (int x = 0; x < 300; ++x) bright += image.pixel(x, y) == ColorMap::get(MapName::Viridis).at(255);
    QVERIFY(bright >= 1 && bright <= 6);
  }

  void everyPixelHasItsValuesColourHoweverManyThreads() {
    const TensorView plane = test::gaussian({500, 900}, 4);
    for (const auto kind : {analysis::ScaleKind::Linear, analysis::ScaleKind::Log10, analysis::ScaleKind::SymLog}) {
      HeatmapPanel panel;
      panel.setData(test::pyramid(plane));
      panel.scale =
          analysis::fit_scale(panel.plane(), kind, analysis::RangeMode::Full, kind == analysis::ScaleKind::SymLog);
      const QImage image = panel.renderBody({900, 500});
      const auto& lut = ColorMap::get(panel.map).lut();
      for (int r = 0; r < 500; ++r)
        for (int c = 0; c < 900; ++c) {
          const float value = plane.data[r * 900 + c];
          const QRgb pixel = image.pixel(c, r);
          const auto near = static_cast<int>(std::lround(panel.scale.position(value) * 255.0));
          bool found = false;
          for (int i = std::max(0, near - 1); i <= std::min(255, near + 1); ++i)
            found = found || lut[static_cast<std::size_t>(i)] == pixel;
          QVERIFY2(found, qPrintable(QStringLiteral("%1 at %2").arg(value).arg(near)));
        }
      QVERIFY(panel.renderBody({900, 500}) == image);
    }
  }

  void coarsePlanesBecomeExactWhereTheyAreLookedAt() {
    const TensorView whole = analysis::magnitude_by_token(test::gaussian({1, 4096, 2048}, 6));
    const auto pooled = analysis::build_pyramid(whole);
    const auto coarse = std::make_shared<analysis::TilePyramid>(
        analysis::coarse_plane(pooled.levels[3].max, pooled.levels[3].factor, 4096, 2048));
    QVERIFY(!coarse->exact());
    SelectionHub hub;
    OutlierView view(hub);
    view.resize(900, 600);
    view.setDetail(0, coarse, nullptr);
    view.setState(ViewState::Ready);
    view.show();
    HeatmapCanvas* canvas = view.heatmap(QStringLiteral("detail"));
    QSignalSpy wanted(&view, &HeatmapView::tileWanted);
    QTest::qWait(120);
    QVERIFY(wanted.isEmpty());  // all of it in sight: the coarse levels do
    canvas->panel().setViewport({500, 1000, 60, 50});
    Q_EMIT canvas->viewportChanged();
    QTRY_COMPARE_WITH_TIMEOUT(wanted.size(), 1, 2000);
    const QRect cells = wanted.first().at(1).toRect();
    QVERIFY(cells.contains(QRect(500, 1000, 60, 50)));
    canvas->grab();
    QVERIFY2(canvas->panel().pooledText().contains(QStringLiteral("8×8")), qPrintable(canvas->panel().pooledText()));
    QVERIFY2(canvas->describe({1010, 520}).contains(QStringLiteral("pooled 8×8")),
             qPrintable(canvas->describe({1010, 520})));
    auto tile = std::make_shared<analysis::ExactTile>();
    tile->row = cells.top();
    tile->col = cells.left();
    std::vector<float> values;
    for (int r = 0; r < cells.height(); ++r)
      for (int c = 0; c < cells.width(); ++c) values.push_back(whole.data[(cells.top() + r) * 2048 + cells.left() + c]);
    tile->plane = analysis::build_pyramid(TensorView::own(values, {cells.height(), cells.width()}));
    view.setTiles(canvas, tile, nullptr);
    canvas->grab();
    QCOMPARE(canvas->panel().pooledText(), QStringLiteral("exact"));
    const QString text = canvas->describe({1010, 520});
    QVERIFY2(text.contains(number_text(whole.data[1010 * 2048 + 520], 6)), qPrintable(text));
    const QImage image = canvas->panel().renderBody({60, 50});
    QCOMPARE(image.pixel(20, 10), canvas->panel().colorOf(whole.data[1010 * 2048 + 520]));
    QTest::qWait(120);
    QCOMPARE(wanted.size(), 1);
    view.setDetail(0, coarse, nullptr);  // another plane: the tile is not of it
    QTRY_COMPARE_WITH_TIMEOUT(wanted.size(), 2, 2000);
  }

  void arrowsMoveTheDataCursor() {
    auto canvas = canvasWith(50, 80);
    canvas->setCursorCell({10, 10});
    QSignalSpy readout(canvas.get(), &PanelCanvas::readout);
    QTest::keyClick(canvas.get(), Qt::Key_Right);
    QTest::keyClick(canvas.get(), Qt::Key_Down, Qt::ShiftModifier);
    QCOMPARE(*canvas->panel().cursor, (Cell{20, 11}));
    QCOMPARE(readout.last().first().toString(), QStringLiteral("20,11"));
    QTest::keyClick(canvas.get(), Qt::Key_End);
    QCOMPARE(canvas->panel().cursor->col, std::int64_t{79});
    QTest::keyClick(canvas.get(), Qt::Key_Home);
    QTest::keyClick(canvas.get(), Qt::Key_PageDown);
    QCOMPARE(*canvas->panel().cursor, (Cell{49, 0}));
    QTest::keyClick(canvas.get(), Qt::Key_Left);
    QCOMPARE(*canvas->panel().cursor, (Cell{49, 0}));
  }

  void wheelZoomsAtTheCursor() {
    auto canvas = canvasWith(500, 800);
    const QPoint at = center_of(*canvas, 100, 200);
    const QRectF body = canvas->panel().bodyRect(canvas->rect(), canvas->figureStyle());
    const QPointF before = canvas->panel().toCells(at, body);
    wheel(*canvas, at, 3);
    const QRectF v = canvas->panel().viewport();
    QVERIFY(v.width() < 500 && v.height() < 300);
    const QPointF after = canvas->panel().toCells(at, canvas->panel().bodyRect(canvas->rect(), canvas->figureStyle()));
    QVERIFY(std::fabs(after.x() - before.x()) < 6 && std::fabs(after.y() - before.y()) < 6);
    wheel(*canvas, at, 2, Qt::ControlModifier);
    QCOMPARE(canvas->panel().viewport().height(), v.height());
    const double left = canvas->panel().viewport().left();
    wheel(*canvas, at, -1, Qt::ShiftModifier);
    QVERIFY(canvas->panel().viewport().left() > left);
    QTest::keyClick(canvas.get(), Qt::Key_F);
    QVERIFY(canvas->panel().isFitted());
  }

  void dragsPanZoomAndBrush() {
    auto canvas = canvasWith(100, 100);
    canvas->panel().setViewport({20, 20, 40, 40});
    QTest::mousePress(canvas.get(), Qt::LeftButton, {}, center_of(*canvas, 40, 40));
    QTest::mouseMove(canvas.get(), center_of(*canvas, 45, 50));
    QTest::mouseRelease(canvas.get(), Qt::LeftButton, {}, center_of(*canvas, 45, 50));
    QVERIFY(canvas->panel().viewport().left() < 20);
    canvas->fit();
    const auto drag = [&](Qt::MouseButton button, Qt::KeyboardModifiers modifiers) {
      const QPoint from = center_of(*canvas, 10, 20), to = center_of(*canvas, 29, 49);
      QTest::mousePress(canvas.get(), button, modifiers, from);
      QMouseEvent move(QEvent::MouseMove, to, canvas->mapToGlobal(to), Qt::NoButton, button, modifiers);
      QCoreApplication::sendEvent(canvas.get(), &move);
      QTest::mouseRelease(canvas.get(), button, modifiers, to);
    };
    QSignalSpy brushed(canvas.get(), &HeatmapCanvas::brushed);
    drag(Qt::LeftButton, Qt::ControlModifier);
    QCOMPARE(brushed.first().first().toRect(), QRect(20, 10, 30, 20));
    QTest::keyClick(canvas.get(), Qt::Key_Escape);
    QVERIFY(canvas->panel().brush.isEmpty());
    drag(Qt::RightButton, {});
    QCOMPARE(canvas->panel().viewport(), QRectF(20, 10, 30, 20));
  }

  void compareKeysSwitchTheMode() {
    SelectionHub hub;
    OutlierView view(hub);
    view.resize(1000, 700);
    const auto stats = [](std::uint32_t seed) {
      OutlierSide side;
      side.label = QStringLiteral("s%1").arg(seed);
      for (std::uint32_t l = 0; l < 4; ++l)
        side.layers.push_back(analysis::channel_stats(test::keys_with_outliers(2, 30, 16, seed + l)));
      return side;
    };
    view.setChannels(stats(1), stats(50), 16);
    view.setState(ViewState::Ready);
    view.show();
    HeatmapCanvas* map = view.heatmap(QStringLiteral("map"));
    map->setFocus();
    const float a = map->panel().data()->at(2, 3);
    QTest::keyClick(map, Qt::Key_2);
    const float b = map->panel().data()->at(2, 3);
    QVERIFY(a != b);
    QTest::keyClick(map, Qt::Key_3);
    QCOMPARE(map->panel().data()->at(2, 3), a - b);
    QVERIFY(map->panel().scale.is_signed);
    QCOMPARE(map->panel().map, MapName::Diverging);
    QTest::keyClick(map, Qt::Key_4);
    QCOMPARE(map->panel().data()->at(2, 3), a / b);
    QTest::keyClick(map, Qt::Key_B);
    QVERIFY(view.isBlinking());
    QTRY_COMPARE_WITH_TIMEOUT(map->panel().data()->at(2, 3), b, 2000);
    QTest::keyClick(map, Qt::Key_1);
    QVERIFY(!view.isBlinking());
    QTest::keyClick(map, Qt::Key_L);
    QCOMPARE(view.scaleKind(), analysis::ScaleKind::Log10);
    QSignalSpy pin(&view, &ViewBase::pinRequested);
    map->setCursorCell({1, 2});
    QTest::keyClick(map, Qt::Key_P);
    QCOMPARE(pin.size(), 1);
    QCOMPARE(map->panel().pins.size(), std::size_t{1});
  }

  void linkedScalesAreEqualAndLockedOnesStay() {
    SelectionHub hub;
    OutlierView view(hub);
    OutlierSide a, b;
    a.layers = {analysis::channel_stats(test::gaussian({1, 40, 32}, 1))};
    b.layers = {analysis::channel_stats(test::keys_with_outliers(1, 40, 32, 2))};
    view.setChannels(a, b, 32);
    HeatmapCanvas* map = view.heatmap(QStringLiteral("map"));
    const auto scale_a = map->panel().scale;
    view.setCompareMode(HeatmapView::B);
    QVERIFY(map->panel().scale == scale_a);
    view.setScaleLinked(false);
    view.setCompareMode(HeatmapView::A);
    QVERIFY(map->panel().scale.high < scale_a.high);
    view.setScaleLocked(true);
    const auto locked = map->panel().scale;
    view.setCompareMode(HeatmapView::B);
    QVERIFY(map->panel().scale == locked);
  }
};

QTEST_MAIN(TestHeatmapView)
#include "tst_heatmap_view.moc"
