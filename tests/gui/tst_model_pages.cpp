#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QImage>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QPlainTextEdit>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTableView>
#include <QTest>
#include <QTreeView>
#include <cmath>

#include "widgets/model_card.h"
#include "widgets/models/module_tree_model.h"
#include "widgets/selection_hub.h"
#include "widgets/views/model_view.h"
#include "widgets/views/token_flow.h"
#include "widgets/views/tokens_view.h"

using namespace qs;

namespace {

ModelInfo tiny_info() {
  ModelInfo info;
  info.name = "tiny";
  info.architecture = "LlamaForCausalLM";
  info.format = "Hugging Face folder";
  info.tokenizer = "none";
  info.parameters = 1000;
  info.layers = 2;
  info.heads = 4;
  info.kv_heads = 2;
  info.head_dim = 8;
  info.hidden_size = 32;
  info.intermediate_size = 64;
  info.vocab_size = 100;
  info.max_context = 4096;
  info.dtype = "float16";
  info.bytes = 2000;
  return info;
}

ModuleInfo tensor(const std::string& path, std::int64_t rows, std::int64_t columns, const std::string& linear = {}) {
  ModuleInfo info;
  info.name = path.substr(path.rfind('.') + 1);
  info.path = path;
  info.linear = linear;
  info.shape = {rows, columns};
  info.dtype = "float16";
  info.parameters = rows * columns;
  info.bytes = 2 * info.parameters;
  return info;
}

ModuleInfo module(const std::string& path, std::vector<ModuleInfo> children) {
  ModuleInfo info;
  info.name = path.substr(path.rfind('.') + 1);
  info.path = path;
  for (const ModuleInfo& child : children) {
    info.parameters += child.parameters;
    info.bytes += child.bytes;
  }
  info.children = std::move(children);
  return info;
}

ModuleInfo tiny_modules() {
  const auto layer = [](int i) {
    const std::string path = "model.layers." + std::to_string(i);
    return module(path, {module(path + ".q_proj", {tensor(path + ".q_proj.weight", 32, 32,
                                                          "layers." + std::to_string(i) + ".self_attn.q_proj")}),
                         module(path + ".norm", {tensor(path + ".norm.weight", 32, 1)})});
  };
  return module("", {module("model", {module("model.embed", {tensor("model.embed.weight", 100, 32)}),
                                      module("model.layers", {layer(0), layer(1)})})});
}

QModelIndex find(const QAbstractItemModel& model, const QString& path) {
  const QModelIndexList found =
      model.match(model.index(0, 0), ModuleTreeModel::PathRole, path, 1, Qt::MatchExactly | Qt::MatchRecursive);
  return found.value(0);
}

MemoryForecast forecast(qint64 weights, qint64 kv, qint64 scratch, qint64 available) {
  MemoryForecast result;
  result.estimate.weights = weights;
  result.estimate.kv = kv;
  result.estimate.scratch = scratch;
  result.estimate.context = 2048;
  result.available = available;
  return result;
}

}  // namespace

class TestModelPages : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void aModuleShowsTheLargestValueBelowIt() {
    ModuleTreeModel model;
    const QAbstractItemModelTester tester(&model);
    model.setModules(tiny_modules());
    model.setColumn({QStringLiteral("peak"),
                     {},
                     {},
                     {{QStringLiteral("model.layers.0.q_proj.weight"), 4.0},
                      {QStringLiteral("model.layers.0.norm.weight"), 1.0},
                      {QStringLiteral("model.layers.1.q_proj.weight"), 16.0}},
                     true});
    const auto value = [&](const char* path) {
      return find(model, QLatin1String(path)).data(ModuleTreeModel::ValueRole).toDouble();
    };
    QCOMPARE(value("model.layers.0"), 4.0);
    QCOMPARE(value("model.layers"), 16.0);
    QVERIFY(std::isnan(value("model.embed")));
    // On a logarithmic scale from 1 to 16, 4 lies in the middle.
    const QModelIndex middle = find(model, QStringLiteral("model.layers.0.q_proj.weight"));
    QCOMPARE(middle.data(ModuleTreeModel::PositionRole).toDouble(), 0.5);
    QVERIFY(middle.siblingAtColumn(ModuleTreeModel::Statistic).data(Qt::BackgroundRole).isValid());
    QVERIFY(!find(model, QStringLiteral("model.embed"))
                 .siblingAtColumn(ModuleTreeModel::Statistic)
                 .data(Qt::BackgroundRole)
                 .isValid());
  }

  void thePageOpensDownToTheLayers() {
    SelectionHub hub;
    ModelView view(hub);
    view.resize(900, 500);
    view.setModels({QStringLiteral("tiny")}, QStringLiteral("tiny"));
    view.setInfo(tiny_info(), tiny_modules());
    auto* tree = view.findChild<QTreeView*>(QStringLiteral("model_tree"));
    QVERIFY(tree->isExpanded(find(view.modules(), QStringLiteral("model.layers"))));
    QVERIFY(!tree->isExpanded(find(view.modules(), QStringLiteral("model.layers.0"))));
    QCOMPARE(view.state(), ViewState::Ready);
    QCOMPARE(view.dataTable()->rowCount(), 5);  // one row a tensor
  }

  void choosingALinearNamesItsLayer() {
    SelectionHub hub;
    ModelView view(hub);
    view.setModels({QStringLiteral("tiny")}, QStringLiteral("tiny"));
    view.setInfo(tiny_info(), tiny_modules());
    QSignalSpy activated(&view, &ModelView::linearActivated);
    auto* tree = view.findChild<QTreeView*>(QStringLiteral("model_tree"));
    const QModelIndex linear = find(view.modules(), QStringLiteral("model.layers.1.q_proj.weight"));
    tree->setCurrentIndex(linear);
    Q_EMIT tree->activated(linear);
    QCOMPARE(activated.count(), 1);
    QCOMPARE(activated.first().first().toString(), QStringLiteral("layers.1.self_attn.q_proj"));
  }

  void valuesOfAnotherStatisticAreDropped() {
    SelectionHub hub;
    ModelView view(hub);
    view.setStatistics({{QStringLiteral("a"), QStringLiteral("A"), {}, {}, false},
                        {QStringLiteral("b"), QStringLiteral("B"), {}, {}, false}});
    view.setInfo(tiny_info(), tiny_modules());
    view.setValues(QStringLiteral("b"), {{QStringLiteral("model.embed.weight"), 3.0}});
    QVERIFY(std::isnan(view.modules().highest()));
    view.setValues(QStringLiteral("a"), {{QStringLiteral("model.embed.weight"), 3.0}});
    QCOMPARE(view.modules().highest(), 3.0);
  }

  void thePagePaintsItsRows() {
    SelectionHub hub;
    ModelView view(hub);
    view.setStatistics({{QStringLiteral("a"), QStringLiteral("A"), {}, {}, false}});
    view.setInfo(tiny_info(), tiny_modules());
    QImage image(800, 500, QImage::Format_RGB32);
    const auto painted = [&] {
      image.fill(Qt::white);
      QPainter painter(&image);
      view.paintFigure(painter, QRectF(0, 0, 800, 500), FigureStyle::print());
      return image.copy();
    };
    const QImage plain = painted();
    view.setValues(QStringLiteral("a"), {{QStringLiteral("model.layers.0.q_proj.weight"), 1.0},
                                         {QStringLiteral("model.layers.1.q_proj.weight"), 2.0}});
    QVERIFY(painted() != plain);
  }

  void settingsComeBack() {
    SelectionHub hub;
    ModelView view(hub), other(hub);
    for (ModelView* each : {&view, &other}) {
      each->setModels({QStringLiteral("x"), QStringLiteral("tiny")}, QStringLiteral("x"));
      each->setStatistics({{QStringLiteral("a"), QStringLiteral("A"), {}, {}, false},
                           {QStringLiteral("b"), QStringLiteral("B"), {}, {}, false}});
      each->setInfo(tiny_info(), tiny_modules());
    }
    const QJsonObject wanted{{QStringLiteral("model"), QStringLiteral("tiny")},
                             {QStringLiteral("statistic"), QStringLiteral("b")},
                             {QStringLiteral("context"), 777},
                             {QStringLiteral("dtype"), QStringLiteral("bfloat16")}};
    view.restoreSettings(wanted);
    QCOMPARE(view.saveSettings(), wanted);
    other.restoreSettings(view.saveSettings());
    QCOMPARE(other.saveSettings(), wanted);
  }

  void theCardSaysWhatDoesNotFit() {
    ModelCard card;
    auto* advice = card.findChild<QLabel*>(QStringLiteral("modelAdvice"));
    auto* context = card.findChild<QSpinBox*>(QStringLiteral("forecastContext"));
    QVERIFY(!card.isOpenable());
    auto* costs = card.findChild<QWidget*>(QStringLiteral("modelCosts"));
    QVERIFY(costs->isHidden());
    card.setInfo(tiny_info());
    QVERIFY(!costs->isHidden());
    QCOMPARE(context->maximum(), 4096);
    card.setForecast(forecast(100, 10, 10, 1000));
    QVERIFY(advice->text().isEmpty());
    card.setForecast(forecast(2000, 10, 10, 1000));
    QVERIFY2(advice->text().contains(QStringLiteral("block by block")), qPrintable(advice->text()));
    card.setForecast(forecast(100, 1500, 10, 1000));
    QVERIFY2(advice->text().contains(QStringLiteral("shorter context")), qPrintable(advice->text()));
    QSignalSpy wanted(&card, &ModelCard::forecastWanted);
    context->setValue(99);
    QCOMPARE(wanted.count(), 1);
    card.setRefused(QStringLiteral("/x/bad.bin"), QStringLiteral("It is a pickle."));
    QVERIFY(!card.isOpenable());
    QVERIFY(card.findChild<QLabel*>(QStringLiteral("modelVerdict"))->text().contains(QStringLiteral("pickle")));
  }

  void typingAsksForTokensOnce() {
    SelectionHub hub;
    TokensView view(hub);
    view.setModels({QStringLiteral("tiny")}, QStringLiteral("tiny"));
    QSignalSpy requested(&view, &TokensView::requested);
    auto* text = view.findChild<QPlainTextEdit*>(QStringLiteral("tokens_text"));
    text->clear();
    QTest::keyClicks(text, QStringLiteral("two words"));
    QTRY_COMPARE(requested.count(), 1);
    QCOMPARE(view.request().text, QStringLiteral("two words"));
    QCOMPARE(view.request().model, QStringLiteral("tiny"));
  }

  void aRowAndItsTokenAreChosenTogether() {
    SelectionHub hub;
    TokensView view(hub);
    view.resize(800, 400);
    view.setTokens({{5, QStringLiteral("two"), TokensView::Kind::Normal, 3},
                    {3, QStringLiteral("<0x0A>"), TokensView::Kind::Byte, 1},
                    {1, QStringLiteral("<s>"), TokensView::Kind::Special, 0}},
                   QStringLiteral("BPE, 10 tokens"), {});
    QCOMPARE(view.state(), ViewState::Ready);
    QCOMPARE(view.dataTable()->rowCount(), 3);
    QSignalSpy readout(&view, &ViewBase::readoutChanged);
    view.findChild<QTableView*>(QStringLiteral("tokens_list"))->selectRow(1);
    QCOMPARE(view.findChild<TokenFlow*>(QStringLiteral("tokens_flow"))->current(), 1);
    QVERIFY(readout.last().first().toString().contains(QStringLiteral("id 3")));
    QVERIFY(view.accessibleSummary().contains(QStringLiteral("3 tokens for 4 bytes")));
    auto* rendered = view.findChild<QPlainTextEdit*>(QStringLiteral("tokens_rendered"));
    QVERIFY(rendered->isHidden());
    view.setTokens({}, QStringLiteral("BPE"), QStringLiteral("<s>[INST] x [/INST]"));
    QVERIFY(!rendered->isHidden());
  }

  void theModelsOwnTemplateIsMarked() {
    SelectionHub hub;
    TokensView view(hub);
    view.setTemplates(
        {{QStringLiteral("chatml"), QStringLiteral("ChatML")}, {QStringLiteral("zephyr"), QStringLiteral("Zephyr")}},
        QStringLiteral("zephyr"));
    auto* box = view.findChild<QComboBox*>(QStringLiteral("tokens_template"));
    QCOMPARE(box->count(), 3);
    QVERIFY(box->itemText(2).contains(QStringLiteral("the model's own")));
    QVERIFY(view.request().chatTemplate.isEmpty());
    box->setCurrentIndex(1);
    Q_EMIT box->activated(1);
    QCOMPARE(view.request().chatTemplate, QStringLiteral("chatml"));
    const QJsonObject settings = view.saveSettings();
    TokensView other(hub);
    other.setTemplates({{QStringLiteral("chatml"), QStringLiteral("ChatML")}}, {});
    other.restoreSettings(settings);
    QCOMPARE(other.request().chatTemplate, QStringLiteral("chatml"));
  }
};

QTEST_MAIN(TestModelPages)
#include "tst_model_pages.moc"
