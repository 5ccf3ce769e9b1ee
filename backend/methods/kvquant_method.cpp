#include "backend/methods/declared_methods.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/kvquant.h"

namespace qs {
namespace {

std::string artifact_mismatch(const ParamSet& params, const ParamSet& calibrated) {
  for (const char* key : {"bits", "datatype", "outliers", "fisher_scale"}) {
    const bool only_fitted = std::string(key) == "bits" || std::string(key) == "fisher_scale";
    if (only_fitted && word_param(params, "datatype") != "nuq") continue;  // thresholds alone are calibrated
    if (std::string(key) == "datatype" && word_param(params, key) != "nuq") continue;
    if (params.at(key) == calibrated.at(key)) continue;
    return std::string("it has ") + key + "=" + format_value(calibrated.at(key)) + ", this setup has " + key + "=" +
           format_value(params.at(key)) + ".";
  }
  return {};
}

Preset paper_preset(int bits, double outliers, const std::string& label) {
  ParamSet params = {{"bits", bits}};
  if (outliers != 0.01) params["outliers"] = outliers;
  return {.label = label, .params = params, .source = "arXiv:2401.18079"};
}

}  // namespace

KvMethodEntry kvquant_method() {
  KvMethodEntry entry;
  entry.info = {
      .id = "kvquant",
      .title = "KVQuant",
      .family = MethodFamily::Kv,
      .paper = "arXiv:2401.18079",
      .citation =
          "Hooper et al., KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization, "
          "NeurIPS 2024",
      .summary = "Keys per channel before rotation, values per token, levels fitted to the model, outliers kept exact.",
      .params =
          {{.key = "bits",
            .label = "Bits",
            .help = "Width of a code; fewer is smaller and worse.",
            .fallback = 4,
            .domain = IntRange{2, 5},
            .unit = "bit",
            .aliases = {"b"}},
           {.key = "datatype",
            .label = "Levels",
            .help = "nuq: fitted to the model by calibration; nf: quantiles of a normal distribution; int: equally "
                    "spaced.",
            .fallback = std::string("nuq"),
            .domain = Choices{{"nuq", "nf", "int"}}},
           {.key = "outliers",
            .label = "Outliers",
            .help = "Share of each key channel and value token that is kept exact; more is better and larger in "
                    "memory, 0 keeps none.",
            .fallback = 0.01,
            .domain = RealRange{0.0, 0.05}},
           {.key = "first_few_fp16",
            .label = "First tokens in f16",
            .help = "Tokens at the start of the sequence kept in 16 bits; 0 or -1 keeps none.",
            .fallback = 1,
            .domain = IntRange{-1, 64},
            .unit = "tokens",
            .aliases = {"sink"}},
           {.key = "q_norm",
            .label = "Q-Norm",
            .help = "Gives the levels the mean and deviation of what they stand for; auto: at 2 bits.",
            .fallback = std::string("auto"),
            .domain = Choices{{"auto", "on", "off"}},
            .advanced = true,
            .aliases = {"qnorm"}},
           {.key = "cap_per_side",
            .label = "Key outliers of a token",
            .help = "Most outliers of a key token above and below its thresholds; 0: no limit, -1: 0.51 % of the "
                    "channels.",
            .fallback = 0,
            .domain = IntRange{-1, 4096},
            .advanced = true,
            .aliases = {"cap"}},
           {.key = "fisher_scale",
            .label = "Weigh by range",
            .help = "Calibration weighs an element's error by the range of its vector, as in the paper; off: as in "
                    "the authors' code.",
            .fallback = true,
            .advanced = true},
           {.key = "integer_zero",
            .label = "Integer zero",
            .help = "With equally spaced levels: value offsets are whole code units; worse, but zero stays exact.",
            .fallback = false,
            .advanced = true},
           store_spec()},
      .presets = {paper_preset(4, 0.01, "nuq4-1%"),
                  paper_preset(3, 0.01, "nuq3-1%"),
                  paper_preset(2, 0.01, "nuq2-1%"),
                  paper_preset(4, 0.0, "nuq4"),
                  paper_preset(3, 0.0, "nuq3"),
                  paper_preset(2, 0.0, "nuq2"),
                  {.label = "int4, no outliers",
                   .params = {{"datatype", std::string("int")}, {"outliers", 0.0}, {"first_few_fp16", 0}},
                   .source = "arXiv:2401.18079, baseline"},
                  {.label = "nf4-1%",
                   .params = {{"datatype", std::string("nf")}},
                   .source = "arXiv:2401.18079, ablation"}},
      .needs_calibration = true,
      .effective_bits_formula =
          "keys: bits + 32 * outliers + 32 / channels; values: bits + 32 * outliers + 64 / "
          "channels; the first tokens at 16; thresholds and levels once a layer, apart"};
  entry.make = [](const ParamSet& params, const KvLayerArtifact* artifact) -> std::unique_ptr<KvMethod> {
    return std::make_unique<Kvquant>(params, artifact);
  };
  entry.calibrate = calibrate_kvquant;
  entry.artifact_mismatch = artifact_mismatch;
  entry.calibrate_layer = calibrate_kvquant_layer;
  return entry;
}

}  // namespace qs
