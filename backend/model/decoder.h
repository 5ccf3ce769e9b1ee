#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/model/architecture_spec.h"
#include "backend/types/job.h"

namespace qs {

/// The linear layers of a decoder block, in the order that every table and statistic uses.
enum class LinearKind { Q, K, V, O, Gate, Up, Down };
inline constexpr std::array kLinearKinds = {LinearKind::Q,    LinearKind::K,  LinearKind::V,   LinearKind::O,
                                            LinearKind::Gate, LinearKind::Up, LinearKind::Down};
const char* linear_id(LinearKind kind);  ///< "q_proj", "down_proj"

/// "layers.3.self_attn.q_proj": the name in captures, reports and error messages.
std::string linear_name(std::int64_t layer, LinearKind kind);

/// y = x Wᵀ + bias, however W is kept. Immutable, so variants share it.
class LinearOp {
 public:
  virtual ~LinearOp() = default;
  /// @param x  [tokens, in_features]; the result is [tokens, out_features] in the type of x
  virtual at::Tensor apply(const at::Tensor& x) const = 0;
  /// The weight that `apply` multiplies with, dequantized, f32 [out_features, in_features].
  virtual at::Tensor weight() const = 0;
  virtual std::int64_t bytes() const = 0;  ///< allocated for the weight: codes, scales, bias
  virtual std::int64_t in_features() const = 0;
  virtual std::int64_t out_features() const = 0;
  virtual bool packed() const { return false; }  ///< true when `apply` computes from codes
};

/// A linear layer in floating point.
class DenseLinear final : public LinearOp {
 public:
  explicit DenseLinear(at::Tensor weight, at::Tensor bias = {});
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  const at::Tensor& stored_weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }
  std::int64_t bytes() const override;
  std::int64_t in_features() const override;
  std::int64_t out_features() const override;

 private:
  at::Tensor weight_, bias_;
};

struct DecoderBlock {
  at::Tensor input_norm, post_attention_norm;  ///< [hidden_size]
  std::array<std::shared_ptr<const LinearOp>, kLinearKinds.size()> linears;
  const LinearOp& linear(LinearKind kind) const { return *linears[static_cast<std::size_t>(kind)]; }
  std::shared_ptr<const LinearOp>& linear_slot(LinearKind kind) { return linears[static_cast<std::size_t>(kind)]; }
};

/// Dynamic fake quantization of the attention products (weights specification, section 2).
struct AttentionQuantization {
  int bits = 16;  ///< 16: off
  bool symmetric = false;
  bool values_per_token = true;  ///< false: one range per (head, channel) over all tokens, the published behaviour
};

/// All weights of a decoder. Copying shares tensors; a weight method returns a changed copy.
struct DecoderWeights {
  at::Tensor embedding;   ///< [vocab_size, hidden_size]
  at::Tensor final_norm;  ///< [hidden_size]
  std::shared_ptr<const LinearOp> lm_head;
  std::vector<DecoderBlock> blocks;
  AttentionQuantization attention;
  std::int64_t bytes() const;  ///< allocated; tied tensors are counted once
};

/// The run of one sequence inside a ragged batch. No padding token is ever computed.
struct SequenceSpan {
  std::int64_t offset = 0;  ///< of its first token in `ids`
  std::int64_t length = 0;
  std::int64_t first_position = 0;  ///< tokens already in its cache
};

struct RaggedBatch {
  at::Tensor ids;  ///< int64 [total tokens]
  std::vector<SequenceSpan> sequences;
  static RaggedBatch single(const std::vector<std::int64_t>& ids, std::int64_t first_position = 0);
};

/// One layer's attention of one sequence. `key_pre_rope`, `key`, `value` hold the new tokens only.
struct AttentionCall {
  std::int64_t layer = 0;
  std::int64_t sequence = 0;  ///< index in the batch
  std::int64_t first_position = 0;
  at::Tensor query;                     ///< [heads, tokens, head_dim], rotated
  at::Tensor key_pre_rope, key, value;  ///< [kv_heads, tokens, head_dim]
};

/// Who remembers keys and values and computes attention: a cache, or a teacher-forced window.
class AttentionProvider {
 public:
  virtual ~AttentionProvider() = default;
  /// @return [heads, tokens, head_dim] in the type of the query
  virtual at::Tensor attend(const AttentionCall& call) = 0;
};

/// Receives what flows through the forward pass. Tensors must not be changed or kept without cloning.
class TapSink {
 public:
  virtual ~TapSink() = default;
  /// Shapes as in AttentionCall, for one sequence.
  virtual void on_attention(const AttentionCall&) {}
  /// Input of a linear layer, [tokens, in_features]; q, k and v share theirs, so do gate and up.
  virtual void on_linear_input(std::int64_t /*layer*/, LinearKind, const at::Tensor& /*x*/) {}
  /// Output of the attention before o_proj, [tokens, heads * head_dim].
  virtual void on_attention_output(std::int64_t /*layer*/, const at::Tensor& /*output*/) {}
};

enum class LogitRows { All, LastOfSequence, None };

/// One forward pass.
/// @return logits f32 [rows, vocab_size]; undefined for LogitRows::None
/// @throws Error InvalidArgument for a token id outside the vocabulary or a position beyond max_context
at::Tensor forward(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                   AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job);

/// Rotates the half-split way (KV specification 1.7).
/// @param x  [heads, tokens, head_dim], tokens at positions first_position, first_position + 1, ...
at::Tensor apply_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope);

/// Softmax in f32 of query * keyᵀ / sqrt(head_dim) under the causal mask, times value; query head h reads KV head
/// h / (heads / kv_heads). The last query sits on the last key.
/// @param query  [heads, queries, head_dim]; key, value [kv_heads, keys, head_dim]
at::Tensor causal_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionQuantization& quantization = {});

/// Whole-window attention in full precision; keeps nothing.
class FullPrecisionWindow final : public AttentionProvider {
 public:
  explicit FullPrecisionWindow(AttentionQuantization quantization = {}) : quantization_(quantization) {}
  at::Tensor attend(const AttentionCall& call) override;

 private:
  AttentionQuantization quantization_;
};

}  // namespace qs
