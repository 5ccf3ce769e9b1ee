#include "app/presenters/outlier_presenter.h"

#include <algorithm>
#include <cmath>

#include "analysis/outliers.h"
#include "app/presenters/applied_setup.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kMostExact = std::int64_t{1} << 26;  ///< cells of a plane that is read whole

struct ChannelsAnswer {
  OutlierSide a, b;
  CaptureInfo info;
  QStringList tokens, tensors;
};

struct DetailAnswer {
  PyramidPtr a, b;
  bool stored = true;
};

const char* linear_of(const QString& tensor) {
  if (tensor == QLatin1String("q_proj")) return "self_attn.q_proj";
  if (tensor == QLatin1String("o_proj")) return "self_attn.o_proj";
  if (tensor == QLatin1String("gate_proj")) return "mlp.gate_proj";
  return "mlp.down_proj";
}

bool is_linear(const QString& tensor) { return tensor.endsWith(QLatin1String("_proj")); }

OutlierSide side_of(CaptureReader& capture, const QString& tensor, const JobContext& job) {
  const CaptureInfo& info = capture.info();
  OutlierSide side;
  side.label = QString::fromStdString(info.model_name);
  for (std::int64_t layer = 0; layer < info.layers; ++layer) {
    job.checkpoint(layer, info.layers, "Channel statistics");
    if (is_linear(tensor)) {
      const std::string name = "layers." + std::to_string(layer) + "." + linear_of(tensor);
      side.layers.push_back(analysis::channel_stats(capture.activation_stats(name)));
    } else {
      const std::string tap = tensor.toStdString();
      if (!capture.has(layer_dataset(layer, tap))) {
        if (layer == 0)
          throw Error(ErrorCode::NotFound,
                      "The capture '" + info.path + "' has no " + tap + "; capture the text again with that tap.");
        break;
      }
      side.layers.push_back(analysis::channel_stats(capture.read_layer(layer, tap)));
    }
  }
  return side;
}

/// The coarse levels that the file keeps, for planes too large to read whole: the largest magnitude of each block.
PyramidPtr coarse_magnitude(CaptureReader& capture, std::int64_t layer, const std::string& tap) {
  const CaptureInfo& info = capture.info();
  auto pyramid = std::make_shared<analysis::TilePyramid>();
  pyramid->rows = info.tokens;
  pyramid->cols = info.kv_heads * info.head_dim;
  for (std::int64_t factor = 2; factor <= 4096; factor *= 2) {
    if (info.tokens / factor * pyramid->cols / factor > kMostExact) continue;
    const TensorView low = capture.read_pyramid(layer, tap, Pool::Min, factor),
                     high = capture.read_pyramid(layer, tap, Pool::Max, factor);
    if (low.empty() || high.empty() || info.head_dim % factor != 0) break;
    std::vector<float> magnitude(static_cast<std::size_t>(high.size()));
    for (std::size_t i = 0; i < magnitude.size(); ++i)
      magnitude[i] = std::max(std::fabs(low.data[i]), std::fabs(high.data[i]));
    const TensorView plane = analysis::magnitude_by_token(TensorView::own(std::move(magnitude), high.shape));
    pyramid->levels.push_back({factor, plane, plane, plane});
  }
  return pyramid->levels.empty() ? nullptr : pyramid;
}

PyramidPtr detail_of(CaptureReader& capture, std::int64_t layer, const std::string& tap) {
  const CaptureInfo& info = capture.info();
  if (!capture.has(layer_dataset(layer, tap))) return nullptr;
  if (info.tokens * info.kv_heads * info.head_dim > kMostExact) return coarse_magnitude(capture, layer, tap);
  return std::make_shared<analysis::TilePyramid>(
      analysis::build_pyramid(analysis::magnitude_by_token(capture.read_layer(layer, tap))));
}

/// |x| of the tokens and channels in `cells` (x: channels, y: tokens), rounded out to whole heads.
TilePtr tile_of(CaptureReader& capture, std::int64_t layer, const std::string& tap, const QRect& cells) {
  const CaptureInfo& info = capture.info();
  if (!capture.has(layer_dataset(layer, tap)) || info.head_dim < 1) return nullptr;
  const auto top = std::clamp<std::int64_t>(cells.top(), 0, info.tokens),
             bottom = std::clamp<std::int64_t>(cells.top() + cells.height(), top, info.tokens);
  const auto first = std::clamp<std::int64_t>(cells.left() / info.head_dim, 0, info.kv_heads),
             last = std::clamp<std::int64_t>((cells.left() + cells.width() + info.head_dim - 1) / info.head_dim, first,
                                             info.kv_heads);
  if (top == bottom || first == last) return nullptr;
  auto tile = std::make_shared<analysis::ExactTile>();
  tile->row = top;
  tile->col = first * info.head_dim;
  tile->plane = analysis::build_pyramid(
      analysis::magnitude_by_token(capture.read_layer(layer, tap, {{first, last}, {top, bottom}})));
  return tile;
}

struct TileAnswer {
  TilePtr a, b;
};

}  // namespace

OutlierPresenter::OutlierPresenter(Workbench& workbench, OutlierView& view)
    : TensorPresenter(workbench, view, &view), view_(view) {
  connect(&view_, &OutlierView::tensorChosen, this, [this] { refresh(); });
  connect(&view_, &OutlierView::quantizerChosen, this, [this] { refresh(); });
  connect(&view_, &OutlierView::tileWanted, this, [this](const QString& canvas, const QRect& cells) {
    if (canvas == QLatin1String("detail")) askTile(cells);
  });
}

void OutlierPresenter::forget() {
  channels_shown_.clear();
  detail_shown_.clear();
  quantizer_shown_.clear();
  tile_shown_.clear();
}

void OutlierPresenter::update() {
  if (!requireCapture()) return;
  askChannels();
  askDetail();
  askQuantizer();
}

void OutlierPresenter::askChannels() {
  const QString a = captureA(), b = captureB(), tensor = view_.tensor();
  const QString wanted = QStringList{a, b, tensor}.join(QLatin1Char('|'));
  if (wanted == channels_shown_) return;
  channels_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("channels"), tr("Channel statistics"), false,
      [bench, a, b, tensor](const JobContext& job) {
        ChannelsAnswer answer;
        const auto capture = bench->openCapture(a, job);
        answer.info = capture->info();
        answer.tokens = token_texts(*capture);
        answer.a = side_of(*capture, tensor, job.part(0.0, b.isEmpty() ? 1.0 : 0.5));
        for (const char* name : {"key", "key_pre_rope", "value"})
          if (capture->has(layer_dataset(0, name))) answer.tensors << QLatin1String(name);
        for (const char* name : {"q_proj", "o_proj", "gate_proj", "down_proj"}) {
          const std::string first = std::string("layers.0.") + linear_of(QLatin1String(name));
          if (std::find(answer.info.linears.begin(), answer.info.linears.end(), first) != answer.info.linears.end())
            answer.tensors << QLatin1String(name);
        }
        if (!b.isEmpty()) answer.b = side_of(*bench->openCapture(b, job), tensor, job.part(0.5, 1.0));
        return answer;
      },
      [this](ChannelsAnswer answer) {
        describe(answer.info, QString(),
                 QStringLiteral("quantoscope-cli stats %1").arg(QString::fromStdString(answer.info.path)));
        view_.setTensors(answer.tensors);
        view_.setTokens(answer.tokens);
        view_.setChannels(std::move(answer.a), std::move(answer.b), answer.info.head_dim);
      });
}

void OutlierPresenter::askDetail() {
  const QString a = captureA(), b = captureB(), tensor = view_.tensor();
  const int layer = std::max(0, view_.selection().layer);
  const QString wanted = QStringList{a, b, tensor, QString::number(layer)}.join(QLatin1Char('|'));
  if (wanted == detail_shown_) return;
  detail_shown_ = wanted;
  drop(QStringLiteral("tile"));
  tile_shown_.clear();
  if (is_linear(tensor)) {
    drop(QStringLiteral("detail"));
    view_.setDetailPlaceholder(
        tr("Of the inputs of linear layers a capture keeps statistics per channel, not every token."));
    return;
  }
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("detail"), tr("Reading layer %1").arg(layer), true,
      [bench, a, b, layer, tap = tensor.toStdString()](const JobContext& job) {
        DetailAnswer answer;
        const auto capture = bench->openCapture(a, job);
        const std::int64_t last = std::max<std::int64_t>(0, capture->info().layers - 1);
        answer.a = detail_of(*capture, std::min<std::int64_t>(layer, last), tap);
        if (!b.isEmpty()) {
          const auto other = bench->openCapture(b, job);
          answer.b = detail_of(*other, std::min<std::int64_t>(layer, other->info().layers - 1), tap);
        }
        return answer;
      },
      [this, layer](DetailAnswer answer) { view_.setDetail(layer, std::move(answer.a), std::move(answer.b)); });
}

void OutlierPresenter::askQuantizer() {
  const QString capture = captureA(), tensor = view_.tensor();
  const int layer = std::max(0, view_.selection().layer);
  std::optional<VariantEntry> variant = workbench().variantEntry(view_.selection().variantB);
  const bool wanted_at_all = view_.quantizer() != OutlierView::Quantizer::None && !is_linear(tensor);
  const bool value = tensor == QLatin1String("value");
  const QString line = variant ? variant->kv : QString(), name = variant ? variant->name : QString();
  const QString wanted = wanted_at_all
                             ? QStringList{capture, line, name, value ? QStringLiteral("value") : QStringLiteral("key"),
                                           QString::number(layer)}
                                   .join(QLatin1Char('|'))
                             : QString();
  if (wanted == quantizer_shown_) return;
  quantizer_shown_ = wanted;
  drop(QStringLiteral("quantizer"));
  if (wanted.isEmpty()) return view_.setQuantizer({});
  QuantizerOverlay none;
  none.label = name;
  if (line.isEmpty()) {
    none.why = variant ? tr("%1 keeps its KV cache in full precision").arg(name)
                       : tr("choose a variant as B to see its quantizer");
    return view_.setQuantizer(std::move(none));
  }
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("quantizer"), tr("Quantizer of %1, layer %2").arg(name).arg(layer), true,
      [bench, capture, line, name, layer, value](const JobContext& job) {
        QuantizerOverlay answer;
        answer.label = name;
        const auto reader = bench->openCapture(capture, job);
        const std::int64_t last = std::max<std::int64_t>(0, reader->info().layers - 1);
        try {
          AppliedLayer applied = apply_line(*bench, line, *reader, std::min<std::int64_t>(layer, last), job);
          AppliedTensor& side = value ? applied.value : applied.key;
          answer.tensor = QString::fromStdString(side.report.name).section(QLatin1Char('/'), -1);
          answer.reach = analysis::channel_reach(side.overlay);
          answer.overlay = std::make_shared<const KvOverlay>(std::move(side.overlay));
        } catch (const Error& error) {
          answer.why = QString::fromUtf8(error.what());
        }
        return answer;
      },
      [this](QuantizerOverlay answer) { view_.setQuantizer(std::move(answer)); });
}

void OutlierPresenter::askTile(const QRect& cells) {
  const QString a = captureA(), b = captureB(), tensor = view_.tensor();
  const int layer = std::max(0, view_.selection().layer);
  // The view may still show the plane before; its own request comes when the new one is there.
  if (detail_shown_.isEmpty() || isAsking(QStringLiteral("detail"))) return;
  const QString wanted = QStringLiteral("%1|%2 %3 %4 %5")
                             .arg(detail_shown_)
                             .arg(cells.left())
                             .arg(cells.top())
                             .arg(cells.width())
                             .arg(cells.height());
  if (wanted == tile_shown_) return;
  tile_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("tile"), tr("Reading layer %1, tokens from %2").arg(layer).arg(cells.top()), true,
      [bench, a, b, layer, cells, tap = tensor.toStdString()](const JobContext& job) {
        TileAnswer answer;
        const auto read = [&](const QString& id) {
          const auto capture = bench->openCapture(id, job);
          const std::int64_t last = std::max<std::int64_t>(0, capture->info().layers - 1);
          return tile_of(*capture, std::min<std::int64_t>(layer, last), tap, cells);
        };
        answer.a = read(a);
        if (!b.isEmpty()) answer.b = read(b);
        return answer;
      },
      [this](TileAnswer answer) {
        view_.setTiles(view_.heatmap(QStringLiteral("detail")), std::move(answer.a), std::move(answer.b));
      });
}

}  // namespace qs
