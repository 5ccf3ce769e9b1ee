#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/model/decoder.h"
#include "backend/types/calibration_needs.h"
#include "backend/types/generation.h"
#include "backend/types/job.h"
#include "backend/types/method_info.h"
#include "backend/types/quantize_report.h"
#include "backend/types/scale_groups.h"
#include "backend/types/setup.h"
#include "backend/types/weight_run.h"

namespace qs {

class Model;

enum class KvRole { Key, Value };
enum class KeyDomain { PostRope, PreRope };

/// Tokens [begin, end) of one sequence.
struct TokenRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end > begin ? end - begin : 0; }
};

struct CacheShape {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  RopeSpec rope = {};               ///< for methods that hold keys before rotation
  double score_scale = 0.0;         ///< of query * key; 0: 1 / sqrt(head_dim)
  double score_softcap = 0.0;       ///< cap * tanh(score / cap) before the softmax; 0: off
  std::int64_t sliding_window = 0;  ///< newest tokens a query sees, itself included; 0: all
  std::int64_t layer = 0, layers = 1;
};

/// Shape and attention rules of one layer's cache.
CacheShape cache_shape(const ArchitectureSpec& spec, std::int64_t layer = 0);

/// The live cache of one layer of one sequence (KV specification, section 2).
class KvCache {
 public:
  virtual ~KvCache() = default;
  /// Comes just before `prefill`, for methods whose choice depends on attention. @param query  rotated queries of the
  /// prompt [heads, tokens, head_dim]; only valid during the call
  virtual void observe_prompt(const at::Tensor& /*query*/) {}
  /// Stores a whole prompt; the cache must be empty. @param key, value [kv_heads, tokens, head_dim] in the method's key
  /// domain
  virtual void prefill(const at::Tensor& key, const at::Tensor& value) = 0;
  /// One decode step in the method's own order of events (attend-then-flush or flush-then-attend).
  /// @param query [heads, head_dim] rotated; key, value [kv_heads, head_dim] of the new token
  /// @return f32 [heads, head_dim]
  virtual at::Tensor append_and_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) = 0;
  /// What attention would see now: keys (in the method's key domain) and values, f32 [kv_heads, tokens, head_dim]. For
  /// tests and analysis.
  virtual std::pair<at::Tensor, at::Tensor> materialize() const = 0;
  virtual std::int64_t tokens() const = 0;  ///< that attention sees
  /// Tokens that came, which is the position of the next one; more than tokens() once tokens were evicted.
  virtual std::int64_t positions() const { return tokens(); }
  virtual TokenRange quantized(KvRole role) const = 0;
  virtual CacheStats stats() const = 0;  ///< from allocations
};

/// A quantized tensor with the codes it was made of: for self-checks, overlays and golden cases.
struct QuantizedTensor {
  at::Tensor values;            ///< reconstruction, shape and type of the input
  at::Tensor codes;             ///< uint8, shape of the input; elements left in full precision have code 255
  at::Tensor scale, group_min;  ///< f32, in the shape the method documents
  std::int64_t levels = 0;      ///< number of codes: 2^bits, one less for symmetric grids
  at::Tensor
      full_precision;  ///< bool, shape of the input: where no code was made; undefined when every element has one
  std::vector<std::string> notes;  ///< sentences for the reader of a report: a comparison the method wants made
};

/// What one layer of a sequence holds, for methods whose quantization depends on attention.
struct KvPrompt {
  at::Tensor query;       ///< [heads, tokens, head_dim], rotated; undefined where queries are not known
  at::Tensor key, value;  ///< [kv_heads, tokens, head_dim], keys in the method's key domain
  CacheShape shape;       ///< of the layer
};

/// A KV-cache quantizer with its parameters, for one layer.
class KvMethod {
 public:
  virtual ~KvMethod() = default;
  /// Reference path, readable next to the paper: quantizes and dequantizes every whole group of `x`; elements whose
  /// group is not complete stay as they are. The streaming window is applied by `as_cached`.
  /// @param x  [kv_heads, tokens, head_dim], any float type, in key_domain()
  /// @throws Error InvalidArgument naming head and token of a NaN or infinity
  virtual QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const = 0;
  /// The same with everything the layer knows about the prompt. Methods that look at attention override it and use
  /// their attention-free rule in `quantize`.
  virtual QuantizedTensor quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
    return quantize(role == KvRole::Key ? prompt.key : prompt.value, role, job);
  }
  /// The same as decoding token by token from the first token leaves it, for methods whose groups begin anew behind a
  /// prompt. What is not quantized yet at a query is decided by `seen_by_query`.
  virtual QuantizedTensor quantize_stream(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
    return quantize_prompt(prompt, role, job);
  }
  /// Tokens of each KV head that are still there after the prompt was stored: bool [kv_heads, tokens], undefined when
  /// all are. Where it is defined, the values of quantize_prompt are what attention sees of them, and of the others
  /// what was held before they left.
  virtual at::Tensor kept_after_prompt(const KvPrompt& /*prompt*/) const { return {}; }
  /// Whether what a query sees depends on attention of earlier steps (token selection, attention-aware widths): then
  /// streaming evaluation must decode token by token.
  virtual bool depends_on_attention() const { return false; }
  /// Tokens that the query at `position` sees quantized when decoding token by token from the first token.
  virtual TokenRange seen_by_query(KvRole role, std::int64_t position) const = 0;
  /// Tokens that are quantized after a prompt of `tokens` was stored.
  virtual TokenRange after_prefill(KvRole role, std::int64_t tokens) const = 0;
  virtual KeyDomain key_domain() const { return KeyDomain::PostRope; }
  /// `x` as the cache holds it outside the quantized range, in the type of x: rounded to f16 when the cache keeps f16.
  /// The quantizer sees these values too, so that the reference and the packed path make the same codes.
  virtual at::Tensor held_in_full_precision(const at::Tensor& x) const { return x; }
  /// What shares a scale in a cache of this shape.
  /// @throws Error InvalidArgument when a calibration is missing or the setup does not fit the shape
  virtual ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const = 0;
  /// Why this setup cannot decode (a channel range over the whole prompt, say); empty when it can.
  virtual std::string cannot_stream() const { return {}; }
  /// Packed path. @throws Error InvalidArgument when the setup does not fit the shape, Unsupported when it cannot
  /// stream
  virtual std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const = 0;
  /// The formula: bits a cached element costs at `tokens` tokens, window included. A test holds it equal to
  /// KvCache::stats().effective_bits().
  virtual double effective_bits(const CacheShape& shape, std::int64_t tokens) const = 0;
  /// @throws Error InvalidArgument when the setup does not fit, naming the nearest value that does
  virtual void check_fits(const CacheShape& shape) const = 0;
};

/// `x` as attention sees it after a prompt of all its tokens was stored: quantized range reconstructed, the rest as it
/// is.
at::Tensor as_cached(const KvMethod& method, const at::Tensor& x, KvRole role, const JobContext& job);

/// The unquantized cache: f16 or f32 keys and values, the baseline that every KV method is compared with.
std::unique_ptr<KvCache> make_full_precision_cache(const CacheShape& shape, at::ScalarType type);

/// What the inputs of the linears look like, by linear_name or router_name. Comes from a capture or a calibration run.
struct Calibration {
  /// Per-channel maxima, f32 [in_features]; of a calibration run also those of the operands of the attention products,
  /// by attention_operand_name, f32 [heads or kv_heads, head_dim].
  std::map<std::string, at::Tensor> activation_absmax;
  /// Inputs at a sample of the tokens, f32 [rows, in_features], of the first linear behind each norm (the router of a
  /// mixture of experts). Empty when the calibration comes from a capture.
  std::map<std::string, at::Tensor> input_rows;
  std::string model_fingerprint, source;  ///< which model, which text
  std::int64_t tokens = 0;
};

/// What a weight method runs on besides the model. Pointers may be null; they must outlive the call.
struct WeightContext {
  WeightExecution execution = WeightExecution::Simulated;
  const Calibration* calibration = nullptr;                ///< for methods with CalibrationNeed::ActivationMaxima
  const CalibrationWindows* windows = nullptr;             ///< for methods with CalibrationNeed::TokenWindows
  const DecoderWeights* weights = nullptr;                 ///< to start from instead of the model's, for chains
  std::string behind;                                      ///< setup that made `weights`, for checkpoints
  std::vector<LayerRange> layers;                          ///< blocks to quantize; empty: all
  std::filesystem::path checkpoint;                        ///< folder for finished blocks; empty: none are kept
  std::function<void(const LayerProgress&)> on_linear;     ///< called on the working thread; may be empty
  std::function<void(const WeightForecast&)> on_forecast;  ///< called once, before the first block; may be empty

  bool quantizes(std::int64_t layer) const {
    return layers.empty() ||
           std::any_of(layers.begin(), layers.end(), [layer](const LayerRange& range) { return range.holds(layer); });
  }
};

/// A weight or weight-activation quantizer with its parameters.
class WeightMethod {
 public:
  virtual ~WeightMethod() = default;
  /// The quantized model. Shares every tensor it does not change. Only linears of decoder blocks are quantized.
  /// @throws Error InvalidArgument when the context lacks what the method's declaration says it needs
  virtual DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const = 0;
  /// The weights in floating point that `apply` rounds: what statistics compare with. They compute what the model
  /// computes (smoothing); most methods round the weights as they are.
  virtual DecoderWeights prepare(const Model& model, const WeightContext& context, const JobContext& job) const;
  /// One weight alone [out_features, in_features]: for `apply` on files and for views.
  /// @throws Error InvalidArgument naming column and row of a NaN or infinity, or a group size that does not divide
  virtual QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const = 0;
  /// The formula: bits a weight costs in a layer of this shape.
  virtual double effective_bits(std::int64_t out_features, std::int64_t in_features) const = 0;
};

/// One KvMethod a layer: the KV side of a variant. Layers of a plain setup differ only by their calibration.
class KvPlan {
 public:
  explicit KvPlan(std::vector<std::shared_ptr<const KvMethod>> layers) : layers_(std::move(layers)) {}
  const KvMethod& layer(std::int64_t layer) const { return *layers_.at(static_cast<std::size_t>(layer)); }
  std::int64_t layers() const { return static_cast<std::int64_t>(layers_.size()); }
  /// The first layer's reason that is not empty.
  std::string cannot_stream() const;
  bool depends_on_attention() const;
  /// Mean over the layers. @param shape  its layer is not used
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const;

 private:
  std::vector<std::shared_ptr<const KvMethod>> layers_;
};

/// What a calibrated KV method learned of one layer, by the names that the method documents.
using KvLayerArtifact = std::map<std::string, at::Tensor>;

/// Result of a KV calibration; backend/storage/kv_artifact.h keeps it in HDF5.
struct KvArtifact {
  std::string method;  ///< MethodInfo::id
  std::string setup;   ///< the setup line it was made for
  std::string model_fingerprint, model_name;
  std::string source, source_sha256;  ///< which text
  std::int64_t kv_heads = 0, head_dim = 0, tokens = 0;
  std::uint64_t seed = 0;
  std::int64_t windows = 0, window = 0;  ///< how many sequences, and tokens of each
  std::vector<KvLayerArtifact> layers;
};

/// What a KV calibration runs on.
struct KvCalibrationInput {
  const Model& model;
  std::vector<std::vector<std::int64_t>> windows;  ///< token ids; each window is a sequence of its own
  std::uint64_t seed = 0;
};

struct KvMethodEntry {
  MethodInfo info;
  /// @param artifact  of the layer; null before calibration. A method that needs one can then only be described:
  ///        quantize and make_cache throw InvalidArgument saying how to calibrate
  std::unique_ptr<KvMethod> (*make)(const ParamSet&, const KvLayerArtifact* artifact);
  /// Null for methods without calibration. @return one artifact a layer
  std::vector<KvLayerArtifact> (*calibrate)(const KvCalibrationInput&, const ParamSet&, const JobContext&) = nullptr;
  /// Whether these parameters need an artifact. Null: all do when info.needs_calibration.
  bool (*needs_artifact)(const ParamSet&) = nullptr;
  /// Why an artifact that was made with the parameters `calibrated` does not serve `params`: a sentence that names the
  /// parameter; empty when it does. Null: nothing has to match.
  std::string (*artifact_mismatch)(const ParamSet& params, const ParamSet& calibrated) = nullptr;
  /// The artifact of a layer from its keys and values alone, for benches and captures, where no model is at hand; what
  /// needs gradients or other layers is left out. Null: not possible.
  KvLayerArtifact (*calibrate_layer)(const KvPrompt&, const ParamSet&, std::uint64_t seed) = nullptr;
  /// Makes the method that stands behind a plus sign around the one before it; null when it can only stand alone.
  /// @throws Error InvalidArgument saying why the two do not fit
  std::unique_ptr<KvMethod> (*make_behind)(std::shared_ptr<const KvMethod> before, const Setup& before_setup,
                                           const ParamSet&) = nullptr;
};
struct WeightMethodEntry {
  MethodInfo info;
  std::unique_ptr<WeightMethod> (*make)(const ParamSet&);
  /// What these parameters need. Null: what info.needs_calibration and info.calibration_need say.
  CalibrationNeeds (*needs)(const ParamSet&) = nullptr;
  /// The method as it stands in front of a plus sign: it prepares the model and quantizes inputs, and leaves the
  /// weights to the next. Null: nothing can follow it. @throws Error InvalidArgument for a parameter that would have no
  /// effect
  std::unique_ptr<WeightMethod> (*make_in_front)(const ParamSet&) = nullptr;
};

/// Fills a report from original and reconstruction; counts changes, saturation and used levels on the codes.
TensorReport report_tensor(const std::string& name, const at::Tensor& original, const QuantizedTensor& quantized);

}  // namespace qs
