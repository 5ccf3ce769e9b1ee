#include "app/presenters/distribution_presenter.h"

#include "app/presenters/applied_setup.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "widgets/views/distribution_view.h"
#include "widgets/views/kv_overlay_marks.h"

namespace qs {

namespace {

constexpr int kBins = 160;

struct Place {
  DistributionScope scope = DistributionScope::Tensor;
  std::int64_t head = 0, channel = 0, token = 0;  ///< channel within the head
};

/// The elements of [heads, tokens, head_dim] that the scope names.
std::vector<float> pick(const TensorView& x, const Place& place) {
  if (x.empty()) return {};
  const std::int64_t heads = x.shape[0], tokens = x.shape[1], dim = x.shape[2];
  std::vector<float> values;
  for (std::int64_t h = 0; h < heads; ++h) {
    const bool one_head = place.scope == DistributionScope::Head || place.scope == DistributionScope::Channel;
    if (one_head && h != place.head) continue;
    for (std::int64_t t = 0; t < tokens; ++t) {
      if (place.scope == DistributionScope::Token && t != place.token) continue;
      const float* row = x.data + (h * tokens + t) * dim;
      if (place.scope == DistributionScope::Channel) {
        values.push_back(row[place.channel]);
      } else {
        values.insert(values.end(), row, row + dim);
      }
    }
  }
  return values;
}

analysis::ElementRange range_of(const Place& place, const CaptureInfo& info) {
  analysis::ElementRange range{0, info.kv_heads, 0, info.tokens, 0, info.head_dim};
  if (place.scope == DistributionScope::Head || place.scope == DistributionScope::Channel) {
    range.head_begin = place.head;
    range.head_end = place.head + 1;
  }
  if (place.scope == DistributionScope::Channel) {
    range.dim_begin = place.channel;
    range.dim_end = place.channel + 1;
  }
  if (place.scope == DistributionScope::Token) {
    range.token_begin = place.token;
    range.token_end = place.token + 1;
  }
  return range;
}

}  // namespace

DistributionPresenter::DistributionPresenter(Workbench& workbench, DistributionView& view)
    : workbench_(workbench), view_(view) {
  connect(&workbench_.selection(), &SelectionHub::changed, this, [this] {
    if (view_.isLinked()) follow(false);
  });
  connect(&view_, &DistributionView::scopeChanged, this, [this] { follow(false); });
  connect(&workbench_, &Workbench::captureReady, this,
          [this](const QString& id) { follow(shown_.startsWith(id + u'|')); });
  connect(&workbench_, &Workbench::variantsChanged, this, [this] { follow(true); });
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] { follow(true); });
  connect(&view_, &ViewBase::cancelRequested, this, [this] { workbench_.jobs().cancel(job_); });
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action == QLatin1String("view.retry")) follow(true);
  });
  QMetaObject::invokeMethod(
      this, [this] { follow(true); }, Qt::QueuedConnection);
}

void DistributionPresenter::follow(bool again) {
  const Selection selection = workbench_.selection().selection();
  QString id = selection.captureA;
  if (!workbench_.captureEntry(id))
    id = workbench_.session().captures.isEmpty() ? QString() : workbench_.session().captures.first().id;
  const auto capture = workbench_.captureEntry(id);
  if (!capture || !workbench_.isReadable(id)) {
    shown_.clear();
    view_.setState(ViewState::Empty,
                   tr("No capture yet. Run a text through a model to see the distribution of its keys and values."),
                   QStringLiteral("capture.kv"), tr("Capture KV…"));
    return;
  }
  QString setup;
  if (const auto variant = workbench_.variantEntry(selection.variantB)) setup = variant->kv;
  if (setup.isEmpty()) {
    for (const VariantEntry& variant : workbench_.session().variants) {
      if (variant.modelId != capture->modelId || variant.kv.isEmpty()) continue;
      setup = variant.kv;
      break;
    }
  }
  const DistributionScope scope = view_.scope();
  const QString key = QStringList{id,
                                  setup,
                                  selection.tensor,
                                  QString::number(selection.layer),
                                  QString::number(selection.kvHead),
                                  QString::number(selection.channelBegin),
                                  QString::number(selection.tokenBegin),
                                  QString::number(static_cast<int>(scope))}
                          .join(u'|');
  if (key == shown_ && !again) return;
  shown_ = key;
  if (job_) workbench_.jobs().cancel(job_);
  const quint64 generation = ++generation_;
  if (view_.state() != ViewState::Ready) view_.setState(ViewState::Loading, tr("Counting values"));
  job_ = workbench_.jobs().compute(
      tr("Distribution"), view_.viewId(), JobLane::Interactive,
      [&workbench = workbench_, id, setup, selection, scope](const JobContext& job) {
        const auto reader = workbench.openCapture(id, job);
        const CaptureInfo& info = reader->info();
        Place place{scope, selection.kvHead, 0, std::max(0, selection.tokenBegin)};
        const std::int64_t layer = std::clamp<std::int64_t>(selection.layer, 0, info.layers - 1);
        if (selection.channelBegin >= 0 && info.head_dim > 0) {
          place.channel = selection.channelBegin % info.head_dim;
          place.head = selection.channelBegin / info.head_dim;
        }
        place.head = std::clamp<std::int64_t>(place.head, 0, info.kv_heads - 1);
        place.token = std::clamp<std::int64_t>(place.token, 0, info.tokens - 1);
        Distribution shown;
        const QString tensor = selection.tensor.isEmpty() ? QStringLiteral("key") : selection.tensor;
        shown.what = tr("layer %1 %2").arg(layer).arg(tensor);
        if (scope == DistributionScope::Head) shown.what += tr(", head %1").arg(place.head);
        if (scope == DistributionScope::Channel)
          shown.what += tr(", head %1 channel %2").arg(place.head).arg(place.channel);
        if (scope == DistributionScope::Token) shown.what += tr(", token %1").arg(place.token);
        if (setup.isEmpty()) {
          shown.grid =
              analysis::value_grid(pick(reader->read_layer(layer, tensor.toStdString()), place), {}, {}, kBins);
          return shown;
        }
        AppliedLayer applied = apply_line(workbench, setup, *reader, layer, job);
        const AppliedTensor& side = tensor == QLatin1String("value") ? applied.value : applied.key;
        const QString tap = QString::fromStdString(side.report.name).section(u'/', -1);
        shown.setup = setup;
        if (tensor == QLatin1String("key_pre_rope") && tap != tensor) {
          shown.note = tr("this setup quantizes keys after RoPE");
          shown.grid =
              analysis::value_grid(pick(reader->read_layer(layer, tensor.toStdString()), place), {}, {}, kBins);
          return shown;
        }
        if (tap != tensor) shown.what.replace(tensor, tr("key before RoPE"));
        shown.grid = analysis::value_grid(pick(side.original, place), pick(side.reconstructed, place),
                                          pick(side.codes, place), kBins);
        shown.report = side.report;
        shown.quantized = true;
        shown.quantizer = analysis::quantizer_grid(side.overlay, side.original, side.codes, range_of(place, info));
        shown.groups = groups_text(side.overlay);
        shown.codebook = side.overlay.steps;
        shown.mixedWidths = side.overlay.has_levels() && side.report.levels == 0;
        shown.publishedBits = side.overlay.published_bits;
        return shown;
      },
      this,
      [this, generation](Distribution shown) {
        if (generation != generation_) return;
        Provenance p;
        p.session = workbench_.session().title;
        p.variant = shown.setup;
        p.data = shown.what;
        p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
        if (const auto entry = workbench_.captureEntry(shown_.section(u'|', 0, 0))) {
          p.command = QStringLiteral("quantoscope-cli apply '%1' --in %2")
                          .arg(shown.setup, workbench_.resolvePath(entry->path));
        }
        view_.setProvenance(p);
        view_.setDistribution(shown);
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_) return;
        shown_.clear();
        if (status.state == JobState::Failed) {
          view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Retry"), status.detail);
        }
      });
}

}  // namespace qs
