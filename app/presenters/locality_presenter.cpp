#include "app/presenters/locality_presenter.h"

#include <algorithm>
#include <limits>

#include "analysis/locality.h"
#include "app/presenters/applied_setup.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kSinkTokens = 4;
constexpr std::int64_t kMostQueries = 512;  ///< rows of a head that the summary looks at
constexpr std::int64_t kMapExtent = 1024;   ///< longest side of a map that is drawn

struct LocalityAnswer {
  LocalitySide a, b;
  CaptureInfo info;
  QStringList tokens;
  ProtectedTokens protection;
};

struct AttentionAnswer {
  AttentionSide a, b;
  HeadInputs inputs;
};

struct TileAnswer {
  TilePtr a, b;
};

struct TokenAnswer {
  analysis::TokenAttention a, b;
};

analysis::AttentionInput captured(CaptureReader& capture, std::int64_t layer) {
  const CaptureInfo& info = capture.info();
  if (!capture.has(layer_dataset(layer, "query")))
    throw Error(ErrorCode::NotFound, "The capture '" + info.path +
                                         "' has no queries; capture the text again with the taps query and attention.");
  analysis::AttentionInput input;
  input.query = capture.read_layer(layer, "query");
  input.key = capture.read_layer(layer, "key");
  if (capture.has(layer_dataset(layer, "log_sum_exp"))) input.log_sum_exp = capture.read_layer(layer, "log_sum_exp");
  input.window = info.window;
  return input;
}

/// The same with quantized keys; their log-sum-exp is another one.
std::optional<std::pair<analysis::AttentionInput, AppliedLayer>> with_quantized_keys(
    const Workbench& bench, analysis::AttentionInput input, CaptureReader& capture, const QString& line,
    std::int64_t layer, const JobContext& job) {
  if (line.isEmpty()) return std::nullopt;
  AppliedLayer applied = apply_line(bench, line, capture, layer, job);
  input.key = applied.keys_seen;
  input.log_sum_exp = {};
  return std::pair{std::move(input), std::move(applied)};
}

/// Keys and values that queries of one window see quantized while decoding; empty for full precision.
std::vector<analysis::QuantizedKeys> quantized_keys(const QString& line, std::int64_t layer, std::int64_t places) {
  const auto setup = line.isEmpty() ? std::nullopt : parse_kv_setup(line.toStdString());
  if (!setup) return {};
  const auto method = make_kv_method(setup_of_layer(*setup, layer));
  std::vector<analysis::QuantizedKeys> quantized;
  for (const KvRole role : {KvRole::Key, KvRole::Value}) {
    analysis::QuantizedKeys& keys = quantized.emplace_back();
    for (std::int64_t place = 0; place < places; ++place) {
      const TokenRange range = method->seen_by_query(role, place);
      keys.push_back({range.begin, std::max(range.begin, range.end)});
    }
  }
  return quantized;
}

/// Newest tokens that a method keeps of a long prompt.
std::int64_t newest_kept(const Setup& setup) {
  constexpr std::int64_t kLong = std::int64_t{1} << 24;
  const TokenRange range = make_kv_method(setup)->after_prefill(KvRole::Value, kLong);
  return range.size() > 0 ? kLong - range.end : kLong;
}

/// The parameter that is the number of newest tokens in full precision: the one whose change changes it.
std::optional<ParamSpec> window_parameter(const Setup& setup) {
  if (!setup.layers.empty()) return std::nullopt;
  for (const MethodInfo& info : kv_method_infos()) {
    if (info.id != setup.method) continue;
    for (const ParamSpec& spec : info.params) {
      const auto* const range = std::get_if<IntRange>(&spec.domain);
      const auto now = setup.params.find(spec.key);
      if (range == nullptr || spec.unit != "tokens" || now == setup.params.end()) continue;
      Setup changed = setup;
      const int wanted = std::get<int>(now->second) > 0 ? 2 * std::get<int>(now->second) : std::max(1, range->min);
      if (wanted > range->max) continue;
      changed.params[spec.key] = wanted;
      try {
        if (newest_kept(setup) == std::get<int>(now->second) && newest_kept(changed) == wanted) return spec;
      } catch (const Error&) {
        continue;  // it may not stand at twice its value: then it is another number of tokens
      }
    }
  }
  return std::nullopt;
}

/// `setup` with the parameter at `tokens`, or at the nearest number that it allows.
Setup with_window(Setup setup, const ParamSpec& spec, std::int64_t tokens) {
  const auto& range = std::get<IntRange>(spec.domain);
  const auto set = [&](std::int64_t value) {
    setup.params[spec.key] = static_cast<int>(std::clamp<std::int64_t>(value, range.min, range.max));
  };
  set(tokens);
  try {
    make_kv_method(setup);
  } catch (const Error&) {
    const auto group = setup.params.find("group_size");
    const std::int64_t size = group == setup.params.end() ? 1 : std::max(1, std::get<int>(group->second));
    set(std::max<std::int64_t>(1, (tokens + size / 2) / size) * size);
  }
  return setup;
}

ProtectedTokens protection_of(const QString& line, const QString& name, const analysis::QuantizedKeys& keys) {
  ProtectedTokens result;
  const auto setup = line.isEmpty() ? std::nullopt : parse_kv_setup(line.toStdString());
  if (!setup || keys.empty()) return result;
  result.label = name;
  const auto places = static_cast<std::int64_t>(keys.size());
  result.newestLeast = places;
  for (std::int64_t place = places / 2; place < places; ++place) {
    const analysis::KeyRange range = keys[static_cast<std::size_t>(place)];
    const std::int64_t newest = range.end > range.begin ? place + 1 - range.end : place + 1;
    result.newestLeast = std::min<qint64>(result.newestLeast, newest);
    result.newestMost = std::max<qint64>(result.newestMost, newest);
    if (range.end > range.begin) result.sinks = range.begin;
  }
  if (const auto parameter = window_parameter(*setup)) result.parameter = QString::fromStdString(parameter->label);
  return result;
}

std::vector<analysis::HeadLocality> heads_of(const analysis::AttentionInput& input,
                                             const std::vector<analysis::QuantizedKeys>& quantized,
                                             const JobContext& job) {
  std::vector<analysis::HeadLocality> heads;
  for (std::int64_t head = 0; head < input.heads(); ++head)
    heads.push_back(analysis::head_locality(
        input, head, kSinkTokens, kMostQueries, [&] { job.checkpoint(head, input.heads(), "Attention locality"); },
        quantized));
  return heads;
}

AttentionSide side_of(const analysis::AttentionInput& input, std::int64_t head, const JobContext& job) {
  const analysis::PooledAttention pooled =
      analysis::pooled_attention(input, head, kMapExtent, [&] { job.checkpoint(0, 1, "Attention map"); });
  AttentionSide side;
  const auto plane = [&](const TensorView& cells) {
    return std::make_shared<analysis::TilePyramid>(
        analysis::coarse_plane(cells, pooled.factor, input.tokens(), input.tokens()));
  };
  side.max = plane(pooled.max);
  side.mean = plane(pooled.mean);
  return side;
}

/// A copy of one query head and its KV head.
std::shared_ptr<const analysis::AttentionInput> input_of_head(const analysis::AttentionInput& input,
                                                              std::int64_t head) {
  const auto slice = [](const TensorView& all, std::int64_t index) {
    const std::int64_t extent = all.size() / all.shape.front();
    std::vector<std::int64_t> shape = all.shape;
    shape.front() = 1;
    return TensorView::own(std::vector<float>(all.data + index * extent, all.data + (index + 1) * extent), shape);
  };
  auto one = std::make_shared<analysis::AttentionInput>();
  one->query = slice(input.query, head);
  one->key = slice(input.key, head / (input.heads() / input.key.shape.front()));
  if (!input.log_sum_exp.empty()) one->log_sum_exp = slice(input.log_sum_exp, head);
  one->window = input.window;
  return one;
}

TilePtr tile_of(const std::shared_ptr<const analysis::AttentionInput>& input, const QRect& cells) {
  if (!input) return nullptr;
  const std::int64_t tokens = input->tokens();
  const auto top = std::clamp<std::int64_t>(cells.top(), 0, tokens),
             bottom = std::clamp<std::int64_t>(cells.top() + cells.height(), top, tokens),
             left = std::clamp<std::int64_t>(cells.left(), 0, tokens),
             right = std::clamp<std::int64_t>(cells.left() + cells.width(), left, tokens);
  if (top == bottom || left == right) return nullptr;
  auto tile = std::make_shared<analysis::ExactTile>();
  tile->row = top;
  tile->col = left;
  tile->plane = analysis::build_pyramid(analysis::attention_tile(*input, 0, top, bottom, left, right));
  return tile;
}

/// A setup line as format_setup writes it; empty when it cannot be read.
QString canonical(const QString& line) {
  try {
    const auto setup = parse_kv_setup(line.toStdString());
    return setup ? QString::fromStdString(format_setup(*setup, kv_method_infos())) : QString();
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

LocalityPresenter::LocalityPresenter(Workbench& workbench, LocalityView& view)
    : TensorPresenter(workbench, view, &view), view_(view) {
  connect(&view_, &LocalityView::windowApplied, this, &LocalityPresenter::applyWindow);
  connect(&view_, &LocalityView::tileWanted, this, [this](const QString& canvas, const QRect& cells) {
    if (canvas == QLatin1String("map")) askTile(cells);
  });
}

void LocalityPresenter::forget() {
  locality_shown_.clear();
  attention_shown_.clear();
  token_shown_.clear();
  tile_shown_.clear();
  head_ = {};
}

std::pair<QString, QString> LocalityPresenter::quantizedVariant() const {
  auto& bench = const_cast<LocalityPresenter*>(this)->workbench();
  for (const QString& id : {view_.selection().variantB, view_.selection().variantA})
    if (const auto entry = bench.variantEntry(id); entry && !entry->kv.isEmpty()) return {entry->kv, entry->name};
  return {};
}

void LocalityPresenter::applyWindow(qint64 tokens) {
  for (const QString& id : {view_.selection().variantB, view_.selection().variantA}) {
    auto entry = workbench().variantEntry(id);
    if (!entry || entry->kv.isEmpty()) continue;
    try {
      const auto setup = parse_kv_setup(entry->kv.toStdString());
      const auto parameter = setup ? window_parameter(*setup) : std::nullopt;
      if (!parameter) continue;
      const Setup changed = with_window(*setup, *parameter, tokens);
      const int length = std::get<int>(changed.params.at(parameter->key));
      entry->kv = QString::fromStdString(format_setup(changed, kv_method_infos()));
      QString chosen;
      for (const VariantEntry& other : workbench().session().variants)
        if (other.modelId == entry->modelId && canonical(other.kv) == entry->kv && other.weights == entry->weights)
          chosen = other.id;
      if (chosen.isEmpty()) {
        // The part behind the dot is the model.
        const qsizetype dot = entry->name.indexOf(QStringLiteral(" · "));
        const QString what = tr(", %1 %2").arg(QString::fromStdString(parameter->label).toLower()).arg(length);
        entry->name.insert(dot < 0 ? entry->name.size() : dot, what);
        entry->id.clear();
        chosen = workbench().addVariant(*entry);
      }
      workbench().selection().edit([&](Selection& s) { s.variantB = chosen; });
      Q_EMIT view_.readoutChanged(tr("B is now %1.").arg(workbench().variantEntry(chosen)->name));
      return;
    } catch (const Error&) {
      continue;  // a setup that does not read has no window to change
    }
  }
  Q_EMIT view_.readoutChanged(tr("Neither A nor B has a number of newest tokens to change."));
}

void LocalityPresenter::update() {
  if (!requireCapture()) return;
  askAttention();
  askLocality();
  askToken();
}

void LocalityPresenter::askLocality() {
  const QString capture = captureA();
  const auto [line, name] = quantizedVariant();
  const QString wanted = QStringList{capture, line, name}.join(QLatin1Char('|'));
  if (wanted == locality_shown_) return;
  locality_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("locality"), tr("Attention locality"), false,
      [bench, capture, line = line, name = name](const JobContext& job) {
        LocalityAnswer answer;
        const auto reader = bench->openCapture(capture, job);
        answer.info = reader->info();
        answer.tokens = token_texts(*reader);
        answer.a.label = LocalityView::tr("captured");
        const std::int64_t layers = answer.info.layers;
        for (std::int64_t layer = 0; layer < layers; ++layer) {
          const JobContext part = job.part(static_cast<double>(layer) / static_cast<double>(layers),
                                           static_cast<double>(layer + 1) / static_cast<double>(layers));
          if (layer > 0 && !reader->has(layer_dataset(layer, "query"))) break;
          const analysis::AttentionInput input = captured(*reader, layer);
          const std::int64_t places = input.window > 0 ? std::min(input.window, input.tokens()) : input.tokens();
          const auto quantized = quantized_keys(line, layer, places);
          if (layer == 0 && !quantized.empty()) answer.protection = protection_of(line, name, quantized.front());
          answer.a.layers.push_back(heads_of(input, quantized, part.part(0.0, 0.5)));
          if (auto other = with_quantized_keys(*bench, input, *reader, line, layer, part.part(0.5, 0.7))) {
            answer.b.label = name;
            answer.b.layers.push_back(heads_of(other->first, {}, part.part(0.7, 1.0)));
          }
        }
        return answer;
      },
      [this, line = line, name = name](LocalityAnswer answer) {
        describe(answer.info, name,
                 QStringLiteral("quantoscope-cli stats %1").arg(QString::fromStdString(answer.info.path)));
        const qint64 per_kv = answer.info.kv_heads > 0 ? answer.info.heads / answer.info.kv_heads : 1;
        view_.setTokens(answer.tokens);
        view_.setLocality(std::move(answer.a), std::move(answer.b), per_kv);
        view_.setProtected(answer.protection);
      });
}

void LocalityPresenter::askAttention() {
  const QString capture = captureA();
  const QString line = quantizedVariant().first;
  const int layer = std::max(0, view_.selection().layer), head = std::max(0, view_.selection().queryHead);
  const QString wanted =
      QStringList{capture, line, QString::number(layer), QString::number(head)}.join(QLatin1Char('|'));
  if (wanted == attention_shown_) return;
  attention_shown_ = wanted;
  drop(QStringLiteral("tile"));
  tile_shown_.clear();
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("attention"), tr("Attention of layer %1, head %2").arg(layer).arg(head), false,
      [=](const JobContext& job) {
        AttentionAnswer answer;
        const auto reader = bench->openCapture(capture, job);
        const CaptureInfo& info = reader->info();
        const std::int64_t at = std::min<std::int64_t>(layer, std::max<std::int64_t>(0, info.layers - 1));
        const std::int64_t h = std::min<std::int64_t>(head, std::max<std::int64_t>(0, info.heads - 1));
        const analysis::AttentionInput input = captured(*reader, at);
        answer.a = side_of(input, h, job);
        if (!answer.a.max->exact()) answer.inputs.a = input_of_head(input, h);
        if (auto other = with_quantized_keys(*bench, input, *reader, line, at, job)) {
          answer.b = side_of(other->first, h, job);
          if (!answer.b.max->exact()) answer.inputs.b = input_of_head(other->first, h);
          answer.b.outputError = other->second.key.report.functional_error;
        }
        return answer;
      },
      [this, layer, head](AttentionAnswer answer) {
        head_ = std::move(answer.inputs);
        view_.setAttention(layer, head, std::move(answer.a), std::move(answer.b));
      });
}

void LocalityPresenter::askTile(const QRect& cells) {
  // While another map is under way, what is shown is not what head_ will be; the new map asks for itself.
  if (!head_.a || isAsking(QStringLiteral("attention"))) return;
  const QString wanted =
      QStringLiteral("%1 %2 %3 %4").arg(cells.left()).arg(cells.top()).arg(cells.width()).arg(cells.height());
  if (wanted == tile_shown_) return;
  tile_shown_ = wanted;
  ask(
      QStringLiteral("tile"), tr("Exact attention, queries from %1").arg(cells.top()), true,
      [inputs = head_, cells](const JobContext& job) {
        TileAnswer answer;
        answer.a = tile_of(inputs.a, cells);
        job.checkpoint(1, 2, "Exact attention");
        answer.b = tile_of(inputs.b, cells);
        return answer;
      },
      [this](TileAnswer answer) {
        view_.setTiles(view_.heatmap(QStringLiteral("map")), std::move(answer.a), std::move(answer.b));
      });
}

void LocalityPresenter::askToken() {
  const Selection& s = view_.selection();
  if (s.tokenBegin < 0) return;
  const QString capture = captureA(), line = quantizedVariant().first;
  const int layer = std::max(0, s.layer), head = std::max(0, s.queryHead), token = s.tokenBegin;
  const QString wanted =
      QStringList{capture, line, QString::number(layer), QString::number(head), QString::number(token)}.join(
          QLatin1Char('|'));
  if (wanted == token_shown_) return;
  token_shown_ = wanted;
  Workbench* bench = &workbench();
  ask(
      QStringLiteral("token"), tr("Attention of token %1").arg(token), true,
      [=](const JobContext& job) {
        TokenAnswer answer;
        const auto reader = bench->openCapture(capture, job);
        const CaptureInfo& info = reader->info();
        const std::int64_t at = std::min<std::int64_t>(layer, std::max<std::int64_t>(0, info.layers - 1));
        const std::int64_t h = std::min<std::int64_t>(head, std::max<std::int64_t>(0, info.heads - 1));
        const std::int64_t t = std::min<std::int64_t>(token, info.tokens - 1);
        const analysis::AttentionInput input = captured(*reader, at);
        answer.a = analysis::token_attention(input, h, t);
        if (const auto other = with_quantized_keys(*bench, input, *reader, line, at, job))
          answer.b = analysis::token_attention(other->first, h, t);
        return answer;
      },
      [this, token](TokenAnswer answer) { view_.setTokenAttention(token, std::move(answer.a), std::move(answer.b)); });
}

}  // namespace qs
