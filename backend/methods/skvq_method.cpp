#include "backend/methods/declared_methods.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/skvq.h"
#include "backend/methods/skvq_calibration.h"

namespace qs {
namespace {

ParamSpec bits_spec(const char* key, const char* label, const char* what, const char* alias) {
  return {.key = key,
          .label = label,
          .help = std::string("Width of a ") + what +
                  "'s code: 2, 3, 4, 8, or 1.5 for three levels; 16 leaves it in full precision.",
          .fallback = std::string("2"),
          .domain = Choices{{"1.5", "2", "3", "4", "8", "16"}},
          .unit = "bit",
          .aliases = {alias}};
}

std::vector<ParamSpec> parameters() {
  return {
      bits_spec("k_bits", "Key bits", "key", "k"),
      bits_spec("v_bits", "Value bits", "value", "v"),
      {.key = "group_size",
       .label = "Group size",
       .help = "Channels of a token that share one scale, on average when they are reordered; smaller is better and "
               "larger in memory.",
       .fallback = 128,
       .domain = IntRange{16, 256},
       .aliases = {"g"}},
      {.key = "window",
       .label = "Window",
       .help = "Newest tokens kept in full precision; longer is better and larger in memory.",
       .fallback = 128,
       .domain = IntRange{0, 65536},
       .unit = "tokens",
       .aliases = {"w"}},
      {.key = "sink_tokens",
       .label = "Sink tokens",
       .help = "First tokens kept in full precision; attention to them is strong and their values are unusual.",
       .fallback = 5,
       .domain = IntRange{0, 64},
       .unit = "tokens",
       .aliases = {"sink"}},
      {.key = "reorder",
       .label = "Reorder channels",
       .help = "Groups of channels with like ranges, found by a calibration, instead of neighbours.",
       .fallback = true},
      {.key = "pre_rope",
       .label = "Keys before rotation",
       .help = "Quantizes keys before rotary embedding, where channels keep their ranges; decoding rotates them.",
       .fallback = true},
      {.key = "clip",
       .label = "Clip ratio",
       .help = "Share of a group's range that is kept, 0.5 to 1; less is finer for most and cuts off outliers.",
       .fallback = 0.92,
       .domain = RealRange{0.5, 1.0}},
      {.key = "clip_rule",
       .label = "Clip ratio from",
       .help = "fixed: the clip ratio above; search, search_groups: found by a calibration for each layer, or group.",
       .fallback = std::string("fixed"),
       .domain = Choices{{"fixed", "search", "search_groups"}}},
      {.key = "clip_mode",
       .label = "Clip towards",
       .help = "zero scales both ends of a range, as published; centre shrinks it about its middle.",
       .fallback = std::string("zero"),
       .domain = Choices{{"zero", "centre"}},
       .advanced = true},
      {.key = "smooth",
       .label = "Smooth channels",
       .help = "Divides every channel by a calibrated factor before quantizing, and multiplies after.",
       .fallback = false,
       .advanced = true},
      {.key = "statistic",
       .label = "Reorder by",
       .help = "What channels are compared by: minmax (published), absmax, or histogram of 128 bins.",
       .fallback = std::string("minmax"),
       .domain = Choices{{"minmax", "absmax", "histogram"}},
       .advanced = true},
      {.key = "rounded_parameters",
       .label = "Codes from rounded scales",
       .help = "Rounds scale and minimum before the codes are made, which removes a bias; published codes do not.",
       .fallback = false,
       .advanced = true},
      {.key = "container",
       .label = "Three levels stored as",
       .help = "At 1.5 bits: trit5 packs five codes in a byte (1.6 bits), 2bit uses fields of two bits.",
       .fallback = std::string("trit5"),
       .domain = Choices{{"trit5", "2bit"}},
       .advanced = true},
      {.key = "keep",
       .label = "Keep besides",
       .help = "Comparison only, needs keys after rotation: h2o keeps the tokens of most attention in full precision, "
               "random draws them.",
       .fallback = std::string("none"),
       .domain = Choices{{"none", "h2o", "random"}},
       .advanced = true},
      {.key = "quantized_share",
       .label = "Quantized share",
       .help = "With keep: share of the tokens behind the window that is quantized.",
       .fallback = 1.0,
       .domain = RealRange{0.0, 1.0},
       .advanced = true},
      {.key = "store",
       .label = "Stored scales",
       .help = "Type of scales and minima: f16, 8-bit e4m3 (the published average bits) or e5m2; f32 is for "
               "verification and keeps unquantized tokens in f32 too.",
       .fallback = std::string("f16"),
       .domain = Choices{{"f16", "e4m3", "e5m2", "f32"}}},
      compute_spec(),
  };
}

ParamSet preset(const char* k_bits, const char* v_bits, int group, int window, double clip) {
  return {{"k_bits", std::string(k_bits)},
          {"v_bits", std::string(v_bits)},
          {"group_size", group},
          {"window", window},
          {"clip", clip},
          {"store", std::string("e4m3")}};
}

/// What the artifact depends on besides model and text.
std::string mismatch(const ParamSet& params, const ParamSet& calibrated) {
  const auto differs = [&](const char* key) { return params.at(key) != calibrated.at(key); };
  const auto sentence = [&](const char* key) {
    return std::string("its ") + key + " is " + format_value(calibrated.at(key)) + ", here it is " +
           format_value(params.at(key)) + ".";
  };
  const bool wants_order = std::get<bool>(params.at("reorder")), wants_factors = std::get<bool>(params.at("smooth"));
  const bool wants_clip = word_param(params, "clip_rule") != "fixed";
  if (!skvq_needs_artifact(params)) return {};
  if (differs("pre_rope")) return sentence("pre_rope");
  if (wants_factors && !std::get<bool>(calibrated.at("smooth"))) return sentence("smooth");
  if (wants_order) {
    for (const char* key : {"reorder", "group_size", "statistic", "smooth"}) {
      if (differs(key)) return sentence(key);
    }
  }
  if (wants_clip) {
    for (const char* key : {"clip_rule", "clip_mode", "reorder", "group_size", "k_bits", "v_bits", "store", "smooth"}) {
      if (differs(key)) return sentence(key);
    }
  }
  return {};
}

}  // namespace

KvMethodEntry skvq_method() {
  KvMethodEntry entry;
  entry.info = {
      .id = "skvq",
      .title = "SKVQ",
      .family = MethodFamily::Kv,
      .paper = "arXiv:2405.06219",
      .citation =
          "Duanmu et al., SKVQ: Sliding-window Key and Value Cache Quantization for Large Language Models, COLM "
          "2024",
      .summary =
          "Per token in groups of alike channels with a clipped range; sinks and the newest tokens in full "
          "precision.",
      .params = parameters(),
      .presets = {{.label = "SKVQ K2 V2, groups of 128",
                   .params = preset("2", "2", 128, 128, 0.92),
                   .source = "arXiv:2405.06219"},
                  {.label = "SKVQ K2 V1.5, groups of 128",
                   .params = preset("2", "1.5", 128, 128, 0.92),
                   .source = "arXiv:2405.06219"},
                  {.label = "SKVQ K4 V4, groups of 128",
                   .params = preset("4", "4", 128, 128, 0.92),
                   .source = "arXiv:2405.06219"},
                  {.label = "SKVQ K2 V1.5, groups of 64, perplexity protocol",
                   .params = preset("2", "1.5", 64, 0, 0.96),
                   .source = "arXiv:2405.06219, perplexity"},
                  {.label = "Grouped RTN-2 with window, no calibration",
                   .params = {{"reorder", false}, {"pre_rope", false}, {"clip", 1.0}},
                   .source = "cat538/SKVQ, k2-v2-g128-w128"}},
      .needs_calibration = true,
      .effective_bits_formula =
          "quantized element: bits (1.6 for 1.5 in trit5) + 2 * parameter bits / mean group; sinks "
          "and window at 16"};
  entry.make = [](const ParamSet& params, const KvLayerArtifact* artifact) -> std::unique_ptr<KvMethod> {
    return std::make_unique<Skvq>(params, artifact);
  };
  entry.calibrate = calibrate_skvq;
  entry.needs_artifact = skvq_needs_artifact;
  entry.artifact_mismatch = mismatch;
  entry.calibrate_layer = calibrate_skvq_layer;
  return entry;
}

}  // namespace qs
