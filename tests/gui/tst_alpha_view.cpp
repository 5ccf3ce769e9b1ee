#include <QDoubleSpinBox>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QSignalSpy>
#include <QSlider>
#include <QTest>
#include <QToolButton>
#include <cmath>

#include "widgets/selection_hub.h"
#include "widgets/views/alpha_sweep_view.h"
#include "widgets/views/layer_alpha_map.h"

using namespace qs;

namespace {

AlphaSweepResult sweep(double optimum = 0.55) {
  AlphaSweepResult result;
  result.metric = "perplexity";
  result.full_precision = 6.0;
  result.layers = 4;
  result.pairs = {"input_layernorm", "post_attention_layernorm"};
  AlphaScheme scheme;
  scheme.label = "W8A8";
  for (int i = 0; i <= 11; ++i) {
    AlphaPoint p;
    p.alpha = 0.35 + 0.05 * i;
    p.value = 6.1 + 4.0 * std::pow(p.alpha - optimum, 2);
    p.low = p.value - 0.02;
    p.high = p.value + 0.02;
    p.state = i == 11   ? AlphaPoint::State::Pending
              : i == 10 ? AlphaPoint::State::Failed
              : i == 3  ? AlphaPoint::State::Cached
                        : AlphaPoint::State::Done;
    p.failure = i == 10 ? "Not enough memory." : "";
    for (int w = 0; w < 6; ++w) p.per_window.push_back(p.value + 0.1 * w + 0.02 * ((w * 7 + i * 3) % 5));
    for (int l = 0; l < 8; ++l)
      p.layer_mse.push_back(1e-3 * (l + 1) * (1 + 10 * std::pow(p.alpha - 0.4 - 0.05 * l, 2)));
    scheme.points.push_back(p);
  }
  result.schemes = {scheme};
  return result;
}

std::vector<MigrationInput> inputs() {
  std::vector<MigrationInput> all;
  for (int layer = 0; layer < 4; ++layer) {
    MigrationInput input;
    input.pair = "layers." + std::to_string(layer) + ".input_layernorm";
    for (int c = 0; c < 64; ++c) {
      input.activation_absmax.push_back(c % 17 == 3 ? 60.0F : 1.0F + 0.01F * static_cast<float>(c));
      input.weight_absmax.push_back(0.3F + 0.002F * static_cast<float>(c));
    }
    all.push_back(input);
  }
  return all;
}

}  // namespace

class AlphaViewTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void theBestPointIsRingedAndTheTiedRangeShaded() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setResult(sweep());
    const PlotSpec& spec = view.sweepPlot()->spec();
    QCOMPARE(spec.series.size(), 1);
    QCOMPARE(spec.series[0].points[4].marker, PlotPoint::Marker::Ringed);
    QCOMPARE(spec.series[0].points[3].marker, PlotPoint::Marker::Tick);
    QCOMPARE(spec.series[0].points[10].marker, PlotPoint::Marker::Cross);
    QVERIFY(spec.series[0].points[10].note.contains("Not enough memory."));
    QCOMPARE(spec.series[0].points[11].marker, PlotPoint::Marker::Hollow);
    QCOMPARE(spec.spans.size(), 1);
    QVERIFY(spec.spans[0].from <= 0.55 && spec.spans[0].to >= 0.55);
    QCOMPARE(spec.rules[0].at, 6.0);
  }

  void theSliderMovesTheMigrationPlotWithoutRunning() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setMigrationInputs(inputs());
    QSignalSpy asked(&view, &AlphaSweepView::pointsRequested);
    const auto peak = [&] {
      double high = 0.0;
      for (const PlotPoint& p : view.migrationPlot()->spec().series[1].points) high = std::max(high, p.y);
      return high;
    };
    view.setAlpha(0.2);
    const double before = peak();
    view.setAlpha(0.9);
    QVERIFY(peak() < before);
    QCOMPARE(asked.count(), 0);
    QTRY_COMPARE(hub.selection().alpha, 0.9);
  }

  void arrowsStepByFiveHundredthsAndShiftByOne() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.show();
    auto* slider = view.findChild<QSlider*>("alpha_slider");
    slider->setFocus();
    QTest::keyClick(slider, Qt::Key_Right);
    QCOMPARE(view.alpha(), 0.55);
    QTest::keyClick(slider, Qt::Key_Left, Qt::ShiftModifier);
    QCOMPARE(view.alpha(), 0.54);
  }

  void refineAsksForTheMidpointsAroundTheMinimum() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setResult(sweep());
    QSignalSpy asked(&view, &AlphaSweepView::pointsRequested);
    QTest::mouseClick(view.findChild<QToolButton*>("alpha_refine"), Qt::LeftButton);
    QCOMPARE(asked.count(), 1);
    QCOMPARE(asked[0][0].value<std::vector<double>>(), (std::vector<double>{0.525, 0.575}));
  }

  void aMinimumOnTheEdgeIsWarnedOf() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setResult(sweep(0.2));
    QVERIFY(view.edgeWarning().contains("edge"));
    view.setResult(sweep(0.55));
    QVERIFY(view.edgeWarning().isEmpty());
  }

  void clickingACellSelectsLayerAndAlpha() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.resize(1280, 800);
    view.setResult(sweep());
    view.setState(ViewState::Ready);
    view.show();
    QVERIFY(QTest::qWaitForWindowExposed(&view));
    QSignalSpy cell(view.layerMap(), &LayerAlphaMap::cellActivated);
    view.grab();
    QTest::mouseClick(view.layerMap(), Qt::LeftButton, {}, view.layerMap()->rect().center());
    QCOMPARE(cell.count(), 1);
    QTRY_COMPARE(hub.selection().layer, cell[0][0].toInt());
  }

  void settingsRoundTrip() {
    SelectionHub hub;
    AlphaSweepView view(hub), other(hub);
    view.setResult(sweep());
    view.setMigrationInputs(inputs());
    other.setResult(sweep());
    other.setMigrationInputs(inputs());
    view.setLinked(false);
    other.setLinked(false);
    view.setAlpha(0.73);
    view.setLogScale(true);
    other.restoreSettings(view.saveSettings());
    QCOMPARE(other.saveSettings(), view.saveSettings());
  }

  void theTableHoldsEveryPoint() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setResult(sweep());
    QAbstractTableModel* table = view.dataTable();
    QCOMPARE(table->rowCount(), 12);
    QCOMPARE(table->index(4, 3).data(Qt::EditRole).toDouble(), sweep().schemes[0].points[4].value);
    QCOMPARE(table->index(10, 8).data().toString(), QString("Not enough memory."));
  }

  void everyControlHasNameAndToolTip() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    for (QWidget* child : view.findChildren<QWidget*>()) {
      if (child->focusPolicy() == Qt::NoFocus || child->objectName().startsWith("qt_") ||
          child->inherits("QAbstractItemView") || child->inherits("QComboBoxPrivateContainer"))
        continue;
      if (!view.isAncestorOf(child) || child->parentWidget()->inherits("ViewOverlay") ||
          child->parentWidget()->inherits("qs::ViewOverlay"))
        continue;
      QVERIFY2(!child->objectName().isEmpty() && !child->toolTip().isEmpty() && !child->accessibleName().isEmpty(),
               child->metaObject()->className());
    }
  }

  void theFigureIsPaintedInTheStyleAsked() {
    SelectionHub hub;
    AlphaSweepView view(hub);
    view.setResult(sweep());
    view.setMigrationInputs(inputs());
    QImage image(900, 600, QImage::Format_RGB32);
    image.fill(Qt::black);
    QPainter painter(&image);
    view.paintFigure(painter, QRectF(0, 0, 900, 600), FigureStyle::print());
    painter.end();
    QCOMPARE(image.pixelColor(1, 1), QColor(Qt::white));
    int inked = 0;
    for (int y = 0; y < 300; ++y) {
      for (int x = 0; x < 450; ++x) inked += image.pixelColor(x, y) != QColor(Qt::white);
    }
    QVERIFY2(inked > 2000, qPrintable(QString::number(inked)));
  }
};

QTEST_MAIN(AlphaViewTest)
#include "tst_alpha_view.moc"
