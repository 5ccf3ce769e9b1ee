#include "backend/evaluation/alpha_sweep.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/layer_error.h"
#include "backend/evaluation/protocol.h"
#include "backend/evaluation/windows.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/smoothing.h"
#include "backend/methods/smoothquant.h"
#include "backend/metrics.h"
#include "backend/model/decoder.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

std::string scheme_label(int bits_w, int bits_a) { return "W" + std::to_string(bits_w) + "A" + std::to_string(bits_a); }

Setup setup_of(double alpha, int bits_w, int bits_a) {
  std::optional<Setup> setup =
      parse_weight_setup("smoothquant:bits_w=" + std::to_string(bits_w) + ",bits_a=" + std::to_string(bits_a));
  setup->params["alpha"] = alpha;
  return *setup;
}

const AlphaPoint* find_known(const AlphaSweepResult* known, const AlphaSweepResult& now, const AlphaScheme& scheme,
                             double alpha) {
  if (!known || known->fingerprint != now.fingerprint || known->metric != now.metric || known->model != now.model)
    return nullptr;
  for (const AlphaScheme& other : known->schemes) {
    if (other.bits_w != scheme.bits_w || other.bits_a != scheme.bits_a) continue;
    for (const AlphaPoint& point : other.points) {
      const bool ended = point.state == AlphaPoint::State::Done || point.state == AlphaPoint::State::Cached;
      if (ended && std::abs(point.alpha - alpha) < 1e-9) return &point;
    }
  }
  return nullptr;
}

void check_request(const AlphaSweepRequest& request, const Calibration& calibration) {
  if (request.alphas.empty())
    throw Error(ErrorCode::InvalidArgument, "The sweep has no alpha; give a grid such as 0.35:0.90:0.05.");
  for (const double alpha : request.alphas) {
    if (!(alpha >= 0.0 && alpha <= 1.0))
      throw Error(ErrorCode::InvalidArgument, "Alpha must be 0 to 1, found " + std::to_string(alpha) + ".");
  }
  if (request.bits.empty())
    throw Error(ErrorCode::InvalidArgument,
                "The sweep has no scheme; give weight and activation bits such as 8 and 8.");
  if (!request.model_mode && request.calibration_ids.empty() && calibration.input_rows.empty()) {
    throw Error(ErrorCode::InvalidArgument,
                "The layer mode of the sweep compares layer outputs on a text; it was given no tokens.");
  }
}

/// The points of the result that have to be computed, known ones taken over.
std::vector<AlphaPoint*> pending_points(AlphaSweepResult& result, const AlphaSweepResult* known,
                                        const std::function<void(const AlphaSweepResult&)>& on_point) {
  std::vector<AlphaPoint*> pending;
  for (AlphaScheme& scheme : result.schemes) {
    for (AlphaPoint& point : scheme.points) {
      if (const AlphaPoint* earlier = find_known(known, result, scheme, point.alpha)) {
        point = *earlier;
        point.state = AlphaPoint::State::Cached;
        if (on_point) on_point(result);
      } else {
        pending.push_back(&point);
      }
    }
  }
  return pending;
}

const AlphaScheme& scheme_of(const AlphaSweepResult& result, const AlphaPoint* point) {
  const auto found = std::find_if(result.schemes.begin(), result.schemes.end(), [point](const AlphaScheme& scheme) {
    return !scheme.points.empty() && point >= &scheme.points.front() && point <= &scheme.points.back();
  });
  return *found;
}

/// Layer errors of all pending points; a point whose setup is wrong fails alone.
void measure_layers(const Model& model, const Calibration& calibration, const AlphaSweepResult& result,
                    const std::vector<AlphaPoint*>& pending, const JobContext& job) {
  std::vector<PairPoint> points;
  std::vector<AlphaPoint*> measured;
  for (AlphaPoint* point : pending) {
    const AlphaScheme& scheme = scheme_of(result, point);
    try {
      const Setup setup = setup_of(point->alpha, scheme.bits_w, scheme.bits_a);
      points.push_back({point->alpha, SmoothQuant(setup.params).pair_quantizers()});
      measured.push_back(point);
    } catch (const Error& error) {
      point->state = AlphaPoint::State::Failed;
      point->failure = error.what();
    }
  }
  std::vector<std::vector<double>> errors = pair_output_errors(model, calibration, points, job);
  for (std::size_t i = 0; i < measured.size(); ++i) measured[i]->layer_mse = std::move(errors[i]);
}

}  // namespace

AlphaSweepResult alpha_sweep(std::shared_ptr<const Model> model, const Calibration& calibration,
                             const AlphaSweepRequest& request, const AlphaSweepResult* known,
                             const std::function<void(const AlphaSweepResult&)>& on_point, const JobContext& job) {
  check_request(request, calibration);
  AlphaSweepResult result;
  result.model = model->info().name;
  result.metric = request.model_mode ? "perplexity" : "layer_mse";
  result.layers = model->info().layers;
  for (const SmoothingPair& pair : smoothing_pairs(model->spec())) result.pairs.push_back(pair.norm);
  for (const auto& [bits_w, bits_a] : request.bits) {
    AlphaScheme scheme{scheme_label(bits_w, bits_a), bits_w, bits_a, {}};
    for (const double alpha : request.alphas) scheme.points.push_back({alpha});
    result.schemes.push_back(std::move(scheme));
  }

  EvalRequest evaluation = request.evaluation;
  evaluation.tasks = {"ppl"};
  const Calibration* inputs = &calibration;
  Calibration with_rows;
  if (calibration.input_rows.empty() && !request.calibration_ids.empty()) {
    with_rows = calibration;
    with_rows.input_rows =
        calibrate(*model, request.calibration_ids, 0, calibration.source, job.part(0.0, 0.05), kUsualInputSample)
            .input_rows;
    inputs = &with_rows;
  }
  const bool compares_layers = !inputs->input_rows.empty();
  const double layers_end = request.model_mode ? 0.15 : 1.0;
  std::shared_ptr<const Variant> reference;
  if (request.model_mode) {
    reference = make_variant(model, std::nullopt, std::nullopt, nullptr, WeightExecution::Simulated, job);
    const EvalReport report = evaluate(*reference, *reference, evaluation, job.part(0.05, 0.1));
    result.protocol = report.protocol;
    result.fingerprint = report.fingerprint;
    result.full_precision = report.tasks.front().value;
    result.full_precision_per_window = report.tasks.front().per_item;
  } else {
    result.protocol.windows = 1;
    result.protocol.window = inputs->input_rows.begin()->second.size(0);
    result.protocol.text_name = calibration.source;
    result.fingerprint = fingerprint(result.protocol);
  }

  const std::vector<AlphaPoint*> pending = pending_points(result, known, on_point);
  if (compares_layers && !pending.empty()) {
    translate_torch_errors("Comparing layer outputs", [&] {
      measure_layers(*model, *inputs, result, pending, job.part(request.model_mode ? 0.1 : 0.05, layers_end));
    });
  }
  for (std::size_t i = 0; i < pending.size(); ++i) {
    AlphaPoint& point = *pending[i];
    const auto count = static_cast<double>(pending.size());
    const double width = 1.0 - layers_end, from = layers_end + width * static_cast<double>(i) / count;
    const JobContext step = job.part(from, from + width / count);
    step.checkpoint(0, 1, "Alpha sweep");
    if (point.state == AlphaPoint::State::Pending) {
      try {
        if (request.model_mode) {
          const AlphaScheme& scheme = scheme_of(result, &point);
          const Setup setup = setup_of(point.alpha, scheme.bits_w, scheme.bits_a);
          const auto variant =
              make_variant(model, setup, std::nullopt, &calibration, WeightExecution::Simulated, step.part(0.0, 0.2));
          const EvalReport report = evaluate(*variant, *reference, evaluation, step.part(0.2, 1.0));
          point.value = report.tasks.front().value;
          point.per_window = report.tasks.front().per_item;
          const PairedDifference difference = paired_difference(
              std::span(std::as_const(result.full_precision_per_window)), std::span(std::as_const(point.per_window)));
          point.low = result.full_precision * std::exp(difference.low);
          point.high = result.full_precision * std::exp(difference.high);
        } else {
          point.value = mean_with_error(point.layer_mse).mean;
          point.low = point.high = point.value;
        }
        point.state = AlphaPoint::State::Done;
      } catch (const Error& error) {
        point.state = AlphaPoint::State::Failed;
        point.failure = error.what();
      }
    }
    if (on_point) on_point(result);
  }
  return result;
}

std::string best_alpha_setup(const AlphaScheme& scheme, std::int64_t layers) {
  std::string line;
  std::string last;
  LayerRange range;
  const auto flush = [&] {
    if (!last.empty()) line += (line.empty() ? "layers:" : ";") + range.text() + "=" + last;
  };
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const AlphaPoint* best = nullptr;
    double least = 0.0;
    for (const AlphaPoint& point : scheme.points) {
      if (point.layer_mse.empty()) continue;
      const std::size_t pairs = point.layer_mse.size() / static_cast<std::size_t>(layers);
      double sum = 0.0;
      for (std::size_t pair = 0; pair < pairs; ++pair)
        sum += point.layer_mse[static_cast<std::size_t>(layer) * pairs + pair];
      if (!best || sum < least) best = &point, least = sum;
    }
    if (!best) return {};
    const double alpha = std::round(best->alpha * 1e6) / 1e6;  // grids add up their steps
    const std::string setup = format_setup(setup_of(alpha, scheme.bits_w, scheme.bits_a), weight_method_infos());
    if (setup != last) {
      flush();
      range.first = layer;
    }
    range.last = layer;
    last = setup;
  }
  flush();
  return line;
}

std::vector<MigrationInput> migration_inputs(const Model& model, const Calibration& calibration) {
  const c10::NoGradGuard no_grad;
  const auto values_of = [](const at::Tensor& x) {
    const at::Tensor dense = x.to(at::kFloat).contiguous();
    const float* data = dense.data_ptr<float>();
    return std::vector<float>(data, data + dense.numel());
  };
  std::vector<MigrationInput> inputs;
  const std::vector<SmoothingPair> pairs = smoothing_pairs(model.spec());
  for (std::size_t index = 0; index < model.weights().blocks.size(); ++index) {
    DecoderBlock block = model.weights().blocks[index];
    const auto layer = static_cast<std::int64_t>(index);
    for (const SmoothingPair& pair : pairs) {
      std::vector<at::Tensor> weights;
      for (const PairReader& reader : pair_readers(block, layer, pair)) weights.push_back((*reader.op)->weight());
      const at::Tensor absmax = calibrated_absmax(calibration, pair_input(pair, layer), weights.front().size(1));
      inputs.push_back({pair_name(pair, layer), values_of(absmax),
                        values_of(smoothing_scales(absmax, weights, 0.5, false).weight_absmax)});
    }
  }
  return inputs;
}

}  // namespace qs
