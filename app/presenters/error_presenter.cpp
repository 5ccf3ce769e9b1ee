#include "app/presenters/error_presenter.h"

#include <algorithm>

#include "analysis/error_map.h"
#include "app/presenters/applied_setup.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kHotSpots = 100;

struct DetailAnswer {
  ErrorSide a, b;
  CaptureInfo info;
  QStringList tokens;
};

Setup parsed(const QString& line) {
  const auto setup = parse_kv_setup(line.toStdString());
  if (!setup)
    throw Error(ErrorCode::InvalidArgument, "The variant has no KV setup; choose one with a quantized KV cache.");
  return *setup;
}

ErrorSide side_of(const Workbench& bench, CaptureReader& capture, const QString& line, const QString& label,
                  const QString& tensor, std::int64_t layer, const JobContext& job) {
  ErrorSide side;
  side.label = label;
  if (line.isEmpty()) {
    side.why = ErrorHeatmap::tr(
                   "%1 keeps its KV cache in full precision: there is no error to show. Choose a quantized variant.")
                   .arg(label.isEmpty() ? ErrorHeatmap::tr("This variant") : label);
    return side;
  }
  AppliedLayer applied = apply_line(bench, line, capture, layer, job);
  AppliedTensor& chosen = tensor == QLatin1String("value") ? applied.value : applied.key;
  auto map = std::make_shared<analysis::ErrorMap>(analysis::error_map(chosen.original, chosen.reconstructed));
  side.absolute = std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(map->absolute_error));
  side.signedError = std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(map->signed_error));
  side.hotSpots = analysis::hot_spots(*map, kHotSpots);
  side.map = std::move(map);
  side.report = chosen.report;
  const auto overlay = std::make_shared<const KvOverlay>(std::move(chosen.overlay));
  side.overlay = overlay;
  if (!chosen.codes.empty() && chosen.report.levels > 0) {
    side.saturation = analysis::saturation_mask(chosen.codes, chosen.report.levels);
    side.codes = analysis::code_counts(chosen.codes, chosen.report.levels);
  } else if (!chosen.codes.empty() && overlay->has_levels()) {
    side.saturation = analysis::saturation_mask(chosen.codes, *overlay);
    side.codes = analysis::width_counts(chosen.codes, *overlay);
    side.countsWidths = true;
  }
  return side;
}

TensorView heads_matrix(const std::vector<std::vector<float>>& layers) {
  if (layers.empty() || layers.front().empty()) return {};
  const std::size_t heads = layers.front().size();
  std::vector<float> values(heads * layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l)
    for (std::size_t h = 0; h < heads; ++h) values[h * layers.size() + l] = layers[l][h];
  return TensorView::own(std::move(values),
                         {static_cast<std::int64_t>(heads), static_cast<std::int64_t>(layers.size())});
}

}  // namespace

ErrorPresenter::ErrorPresenter(Workbench& workbench, ErrorHeatmap& view)
    : TensorPresenter(workbench, view, &view), view_(view) {}

void ErrorPresenter::forget() {
  detail_shown_.clear();
  overview_of_.clear();
  heads_shown_.clear();
  overview_.clear();
  failed_.clear();
}

QString ErrorPresenter::setupOf(const QString& variantId) const {
  const auto entry = const_cast<ErrorPresenter*>(this)->workbench().variantEntry(variantId);
  return entry ? entry->kv : QString();
}

QString ErrorPresenter::labelOf(const QString& variantId) const {
  const auto entry = const_cast<ErrorPresenter*>(this)->workbench().variantEntry(variantId);
  return entry ? entry->name : tr("full precision");
}

QString ErrorPresenter::variantB() const {
  const Selection& s = view_.selection();
  if (!s.variantB.isEmpty()) return s.variantB;
  if (!setupOf(s.variantA).isEmpty()) return {};
  // Nothing quantized is chosen: the first quantized variant of the session is what this view is for.
  for (const VariantEntry& entry : const_cast<ErrorPresenter*>(this)->workbench().session().variants)
    if (!entry.kv.isEmpty()) return entry.id;
  return {};
}

void ErrorPresenter::update() {
  if (!requireCapture()) return;
  const QString capture = captureA();
  if (overview_of_ != capture) {
    overview_.clear();
    failed_.clear();
    overview_of_ = capture;
  }
  const bool any = !setupOf(view_.selection().variantA).isEmpty() || !setupOf(variantB()).isEmpty();
  if (!any) {
    view_.setState(ViewState::Empty,
                   tr("No variant with a quantized KV cache yet. Make one to see what it does to keys and values."),
                   QStringLiteral("quantize.new"), tr("New variant..."));
    return;
  }
  askDetail(view_.selection().tensor == QLatin1String("value") ? QStringLiteral("value") : QStringLiteral("key"));
  showOverview();
  askNextOverview();
}

void ErrorPresenter::askDetail(const QString& tensor) {
  const QString capture = captureA(), a = view_.selection().variantA, b = variantB();
  const QString line_a = setupOf(a), line_b = setupOf(b), label_a = labelOf(a), label_b = labelOf(b);
  const int layer = std::max(0, view_.selection().layer);
  const QString wanted =
      QStringList{capture, line_a, line_b, label_a, label_b, tensor, QString::number(layer)}.join(QLatin1Char('|'));
  if (wanted == detail_shown_) return;
  detail_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("detail"), tr("Quantizing layer %1").arg(layer), false,
      [=](const JobContext& job) {
        DetailAnswer answer;
        const auto reader = bench->openCapture(capture, job);
        answer.info = reader->info();
        answer.tokens = token_texts(*reader);
        const std::int64_t at = std::min<std::int64_t>(layer, std::max<std::int64_t>(0, answer.info.layers - 1));
        answer.a = side_of(*bench, *reader, line_a, label_a, tensor, at, job.part(0.0, 0.5));
        answer.b = side_of(*bench, *reader, line_b, label_b, tensor, at, job.part(0.5, 1.0));
        return answer;
      },
      [this, layer, tensor, line_a, line_b](DetailAnswer answer) {
        const QString setup = line_b.isEmpty() ? line_a : line_b;
        describe(answer.info, answer.b.map ? answer.b.label : answer.a.label,
                 QStringLiteral("quantoscope-cli apply %1 --in %2 -o OUT.h5")
                     .arg(setup, QString::fromStdString(answer.info.path)));
        view_.setTokens(answer.tokens);
        const bool only_b = !answer.a.map && answer.b.map;
        view_.setDetail(layer, tensor, std::move(answer.a), std::move(answer.b), answer.info.head_dim);
        if (only_b && view_.compareMode() == HeatmapView::A && !view_.isBlinking())
          view_.setCompareMode(HeatmapView::B);
        askNextOverview();
      });
}

void ErrorPresenter::askNextOverview() {
  if (isAsking(QStringLiteral("overview"))) return;
  QString next;
  QString label;
  int count = 0;
  for (const VariantEntry& entry : workbench().session().variants) {
    if (entry.kv.isEmpty() || ++count > ErrorHeatmap::kMostVariants) continue;
    if (overview_.contains(entry.kv) || failed_.contains(entry.kv)) continue;
    next = entry.kv;
    label = entry.name;
    break;
  }
  if (next.isEmpty()) return;
  Workbench* bench = &workbench();
  failed_.insert(next);  // until it succeeds: a setup that does not fit is not asked for again
  ask(
      QStringLiteral("overview"), tr("Error overview of %1").arg(label), true,
      [bench, next, capture = captureA()](const JobContext& job) {
        Overview overview;
        const auto reader = bench->openCapture(capture, job);
        const Setup setup = parsed(next);
        const std::optional<KvArtifact> calibration = remembered_calibration(*bench, setup, reader->info());
        overview.errors.kinds = {"K", "V"};
        const std::int64_t layers = reader->info().layers;
        for (std::int64_t layer = 0; layer < layers; ++layer) {
          job.checkpoint(layer, layers, "Error overview");
          const AppliedLayer applied =
              apply_to_capture(setup, *reader, layer,
                               job.part(static_cast<double>(layer) / static_cast<double>(layers),
                                        static_cast<double>(layer + 1) / static_cast<double>(layers)),
                               calibration ? &*calibration : nullptr);
          overview.errors.reports.push_back({applied.key.report, applied.value.report});
          overview.key_heads.push_back(
              analysis::relative_error_by_head(applied.key.original, applied.key.reconstructed));
          overview.value_heads.push_back(
              analysis::relative_error_by_head(applied.value.original, applied.value.reconstructed));
        }
        return overview;
      },
      [this, next](Overview overview) {
        failed_.remove(next);
        overview_.insert(next, std::move(overview));
        heads_shown_.clear();
        showOverview();
        askNextOverview();
      });
}

void ErrorPresenter::showOverview() {
  const QString tensor =
      view_.selection().tensor == QLatin1String("value") ? QStringLiteral("value") : QStringLiteral("key");
  const QString line_a = setupOf(view_.selection().variantA), line_b = setupOf(variantB());
  QStringList names;
  std::vector<analysis::VariantErrors> variants;
  QSet<QString> seen;
  for (const VariantEntry& entry : workbench().session().variants) {
    const auto known = overview_.constFind(entry.kv);
    if (entry.kv.isEmpty() || known == overview_.constEnd() || seen.contains(entry.kv)) continue;
    seen.insert(entry.kv);
    analysis::VariantErrors errors = known->errors;
    errors.label = entry.name.toStdString();
    names << entry.name;
    variants.push_back(std::move(errors));
  }
  const QString wanted = QStringList{tensor, line_a, line_b, names.join(QLatin1Char(','))}.join(QLatin1Char('|'));
  if (wanted == heads_shown_) return;
  heads_shown_ = wanted;
  view_.setOverview(std::move(variants));
  const auto heads = [&](const QString& line) {
    const auto known = overview_.constFind(line);
    if (known == overview_.constEnd()) return TensorView{};
    return heads_matrix(tensor == QLatin1String("value") ? known->value_heads : known->key_heads);
  };
  view_.setHeads(heads(line_a), heads(line_b));
}

}  // namespace qs
