#include "app/view_factory.h"

#include <QCoreApplication>

#include "app/presenters/alpha_presenter.h"
#include "app/presenters/chat_presenter.h"
#include "app/presenters/distribution_presenter.h"
#include "app/presenters/error_presenter.h"
#include "app/presenters/locality_presenter.h"
#include "app/presenters/model_presenter.h"
#include "app/presenters/outlier_presenter.h"
#include "app/presenters/results_presenter.h"
#include "app/presenters/tokens_presenter.h"
#include "app/presenters/weights_presenter.h"
#include "app/workbench.h"
#include "widgets/view_base.h"
#include "widgets/views/alpha_sweep_view.h"
#include "widgets/views/chat_view.h"
#include "widgets/views/distribution_view.h"
#include "widgets/views/error_heatmap.h"
#include "widgets/views/locality_view.h"
#include "widgets/views/model_view.h"
#include "widgets/views/outlier_view.h"
#include "widgets/views/results_view.h"
#include "widgets/views/tokens_view.h"
#include "widgets/views/weights_view.h"

namespace qs {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("qs::ViewFactory", text); }

/// A presenter lives as long as its view.
template <typename View, typename Presenter>
ViewBase* make(Workbench& workbench, QWidget* parent) {
  auto* view = new View(workbench.selection(), parent);
  auto* presenter = new Presenter(workbench, *view);
  if (!presenter->parent()) presenter->setParent(view);
  return view;
}

}  // namespace

const QList<ViewType>& view_types() {
  static const QList<ViewType> types = {
      {QStringLiteral("outliers"), tr("Outliers"),
       tr("Which channels are larger than the rest, by layer, channel and token")},
      {QStringLiteral("error"), tr("Error"), tr("What a quantizer does to keys and values")},
      {QStringLiteral("attention"), tr("Attention"),
       tr("How far back attention looks, and what quantized keys change")},
      {QStringLiteral("weights"), tr("Weights"),
       tr("What quantization does to each linear, and how far a layer-by-layer method is")},
      {QStringLiteral("alpha"), tr("Alpha"),
       tr("SmoothQuant: how much difficulty to move from activations to weights")},
      {QStringLiteral("chat"), tr("Chat"), tr("Several variants answer one prompt side by side")},
      {QStringLiteral("distribution"), tr("Distribution"), tr("Histogram of a tensor under the levels of a quantizer")},
      {QStringLiteral("model"), tr("Model"), tr("Modules, sizes and statistics of a model, and what it costs to run")},
      {QStringLiteral("tokens"), tr("Tokens"), tr("What the tokenizer makes of a text, and of a chat template")},
      {QStringLiteral("results"), tr("Results"), tr("Evaluated variants: quality against bits")},
  };
  return types;
}

ViewBase* make_view(const QString& type, Workbench& workbench, QWidget* parent) {
  if (type == QLatin1String("outliers")) return make<OutlierView, OutlierPresenter>(workbench, parent);
  if (type == QLatin1String("error")) return make<ErrorHeatmap, ErrorPresenter>(workbench, parent);
  if (type == QLatin1String("attention")) return make<LocalityView, LocalityPresenter>(workbench, parent);
  if (type == QLatin1String("alpha")) return make<AlphaSweepView, AlphaPresenter>(workbench, parent);
  if (type == QLatin1String("chat")) return make<ChatView, ChatPresenter>(workbench, parent);
  if (type == QLatin1String("distribution")) return make<DistributionView, DistributionPresenter>(workbench, parent);
  if (type == QLatin1String("model")) return make<ModelView, ModelPresenter>(workbench, parent);
  if (type == QLatin1String("tokens")) return make<TokensView, TokensPresenter>(workbench, parent);
  if (type == QLatin1String("weights")) return make<WeightsView, WeightsPresenter>(workbench, parent);
  if (type == QLatin1String("results")) return make<ResultsView, ResultsPresenter>(workbench, parent);
  return nullptr;
}

}  // namespace qs
