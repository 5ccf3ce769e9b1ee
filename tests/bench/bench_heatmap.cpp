#include <QElapsedTimer>
#include <QtTest>
#include <algorithm>

#include "tests/support/tensor_scenes.h"
#include "widgets/views/heatmap_canvas.h"

using namespace qs;

/// First paint and pan frames of the two sizes that the views promise to draw at 60 frames a second.
class BenchHeatmap : public QObject {
  Q_OBJECT

  struct Times {
    double first_ms = 0, median_ms = 0, p95_ms = 0;
  };

  static Times measure(const std::shared_ptr<analysis::TilePyramid>& data, bool zoomed) {
    HeatmapCanvas canvas(QStringLiteral("bench"), nullptr);
    canvas.resize(1200, 700);
    QElapsedTimer timer;
    QImage screen(canvas.size(), QImage::Format_RGB32);
    canvas.panel().setData(data);
    canvas.panel().scale =
        analysis::fit_scale(canvas.panel().plane(), analysis::ScaleKind::Log10, analysis::RangeMode::Full, false);
    if (zoomed)
      canvas.panel().setViewport(
          QRectF(0, 0, static_cast<double>(data->cols) * 0.7, static_cast<double>(data->rows) * 0.7));
    Times times;
    timer.start();
    canvas.render(&screen);
    times.first_ms = static_cast<double>(timer.nsecsElapsed()) * 1e-6;
    std::vector<double> frames;
    for (int i = 0; i < 60; ++i) {
      canvas.panel().zoom(i < 2 ? 1.1 : 1.0, {10, 10}, false);
      canvas.panel().pan(static_cast<double>(data->cols) * 0.004, static_cast<double>(data->rows) * 0.004);
      timer.start();
      canvas.render(&screen);
      frames.push_back(static_cast<double>(timer.nsecsElapsed()) * 1e-6);
    }
    std::sort(frames.begin(), frames.end());
    times.median_ms = frames[frames.size() / 2];
    times.p95_ms = frames[frames.size() * 95 / 100];
    return times;
  }

  static void report(const char* what, const Times& t) {
    qInfo("%s: first paint %.1f ms, pan frame median %.1f ms, 95 %% within %.1f ms", what, t.first_ms, t.median_ms,
          t.p95_ms);
  }

  /// Milliseconds of colouring one screen without any pooling: what a frame costs at least.
  static double reference() {
    HeatmapPanel panel;
    panel.setData(test::pyramid(analysis::magnitude_by_token(test::gaussian({1, 700, 1200}, 1))));
    panel.scale = analysis::fit_scale(panel.plane(), analysis::ScaleKind::Log10, analysis::RangeMode::Full, false);
    QElapsedTimer timer;
    timer.start();
    for (int i = 0; i < 10; ++i) panel.renderBody({1200, 700});
    const double ms = static_cast<double>(timer.nsecsElapsed()) * 1e-7;
    qInfo("one screen without pooling: %.1f ms", ms);
    return ms;
  }

 private Q_SLOTS:
  void channelByLayerMap() {
    const Times t = measure(test::pyramid(analysis::magnitude_by_token(test::gaussian({1, 32, 4096}, 1))), true);
    report("32 x 4096", t);
    QVERIFY(t.median_ms < 4 * reference());
  }

  void channelByTokenPyramid() {
    QElapsedTimer timer;
    std::vector<float> values(std::size_t{32768} * 4096);
    std::uint32_t state = 1;
    for (float& v : values) {
      state = state * 1664525u + 1013904223u;
      v = 1e-3f + static_cast<float>(state >> 8) * 1e-6f;
    }
    timer.start();
    const auto data = test::pyramid(TensorView::own(std::move(values), {32768, 4096}));
    qInfo("pyramid of 32768 x 4096: %lld ms", timer.elapsed());
    const Times t = measure(data, true);
    report("32768 x 4096", t);
    QVERIFY(t.median_ms < 12 * reference());
  }
};

QTEST_MAIN(BenchHeatmap)
#include "bench_heatmap.moc"
