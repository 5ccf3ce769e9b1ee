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

/// "layers.3.self_attn.q_proj", "layers.3.mlp.experts.2.up_proj": the name in captures, reports and error messages.
/// @param expert  -1 outside a mixture of experts
std::string linear_name(std::int64_t layer, LinearKind kind, std::int64_t expert = -1);
/// "layers.3.mlp.router": reads what the experts of the layer read.
std::string router_name(std::int64_t layer);

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
  virtual bool packed() const { return false; }   ///< true when `apply` computes from codes
  virtual at::Tensor bias() const { return {}; }  ///< [out_features] in the compute type; undefined when there is none
  /// Whether the weight is as the checkpoint has it: what a weight method can quantize.
  virtual bool floating_point() const { return false; }
  /// Rows of the weight, [ids, in_features]: what an embedding gives.
  virtual at::Tensor rows(const at::Tensor& ids) const;
};

/// A linear layer in floating point.
class DenseLinear final : public LinearOp {
 public:
  explicit DenseLinear(at::Tensor weight, at::Tensor bias = {});
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  const at::Tensor& stored_weight() const { return weight_; }
  at::Tensor bias() const override { return bias_; }
  bool floating_point() const override { return true; }
  at::Tensor rows(const at::Tensor& ids) const override;
  std::int64_t bytes() const override;
  std::int64_t in_features() const override;
  std::int64_t out_features() const override;

 private:
  at::Tensor weight_, bias_;
};

struct NormWeights {
  at::Tensor weight, bias;  ///< [width]; bias of a LayerNorm only
  bool defined() const { return weight.defined(); }
};

struct ExpertWeights {
  std::shared_ptr<const LinearOp> gate, up, down;
};

/// Weights of one block; what the architecture does not have is null or undefined.
struct DecoderBlock {
  NormWeights input_norm;                              ///< of attention
  NormWeights mlp_norm;                                ///< undefined with a shared norm
  NormWeights attention_output_norm, mlp_output_norm;  ///< with ArchitectureSpec::output_norms
  NormWeights query_norm, key_norm;                    ///< [head_dim]
  std::array<std::shared_ptr<const LinearOp>, kLinearKinds.size()> linears;
  std::shared_ptr<const LinearOp> router;  ///< [experts, hidden_size]
  std::vector<ExpertWeights> experts;      ///< instead of Gate, Up and Down of `linears`

  bool has(LinearKind kind) const { return linears[static_cast<std::size_t>(kind)] != nullptr; }
  const LinearOp& linear(LinearKind kind) const { return *linears[static_cast<std::size_t>(kind)]; }
  std::shared_ptr<const LinearOp>& linear_slot(LinearKind kind) { return linears[static_cast<std::size_t>(kind)]; }
};

/// Fake quantization of the operands of the attention products (weights specification, sections 2 and 4.4): of the
/// rotated queries and keys and of the probabilities one range a row, of the values one a token or channel.
struct AttentionQuantization {
  int bits = 16;  ///< 16: off
  bool symmetric = false;
  bool values_per_token = true;  ///< false: one range per (head, channel) over all tokens, the published behaviour
  bool absmax = false;           ///< the absmax quantizer (A1) instead of a range with a zero point
  /// One range for each operand of a call (levels O2 and O3); that of the probabilities is always 0 to 1, which is what
  /// a whole window has, since its first query sees itself alone.
  bool per_tensor = false;
  struct Maxima {
    double query = 0.0, key = 0.0, value = 0.0;
  };
  std::vector<Maxima> maxima = {};  ///< of the layers, with absmax and per_tensor: ranges fixed by a calibration (O3)

  bool off() const { return bits >= 16; }
  /// The same with the maxima of one layer only, as causal_attention takes it.
  AttentionQuantization of_layer(std::int64_t layer) const;
};
/// "layers.3.self_attn.query": the name of an operand in a Calibration. @param operand  "query", "key" (both rotated)
/// or "value"
std::string attention_operand_name(std::int64_t layer, const char* operand);

/// All weights of a decoder. Copying shares tensors; a weight method returns a changed copy.
struct DecoderWeights {
  std::shared_ptr<const LinearOp> embedding;  ///< [vocab_size, embedding_width or hidden_size]; the head when tied
  at::Tensor positions;                       ///< [position_offset + max_context, hidden_size] when learned
  std::shared_ptr<const LinearOp> project_in, project_out;  ///< between embedding_width and hidden_size
  NormWeights final_norm;
  std::shared_ptr<const LinearOp> lm_head;
  std::vector<DecoderBlock> blocks;
  AttentionQuantization attention;
  double measured_bits = 0.0;  ///< effective bits a weight of the block linears, where the method measured them; else 0
  at::ScalarType compute_type = at::kFloat;  ///< of activations, cache, norms and biases
  std::int64_t bytes() const;                ///< mapped from the file or allocated; tied tensors are counted once
};

/// A linear layer of a block that weight methods may replace.
struct LinearSlot {
  std::int64_t layer = 0;
  LinearKind kind = LinearKind::Q;
  std::int64_t expert = -1;
  std::string name;  ///< linear_name
  std::shared_ptr<const LinearOp>* op = nullptr;
};
/// Every linear of every block that is there, in model order. The slots point into `weights`.
std::vector<LinearSlot> linear_slots(DecoderWeights& weights);
std::vector<LinearSlot> linear_slots(DecoderBlock& block, std::int64_t layer);

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
  at::Tensor query;                     ///< [heads, tokens, head_dim], after its norm, rotated
  at::Tensor key_pre_rope, key, value;  ///< [kv_heads, tokens, head_dim]; keys after their norm
  AttentionRules rules = {};
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
  /// Input of the router of a mixture of experts, [tokens, hidden_size].
  virtual void on_router_input(std::int64_t /*layer*/, const at::Tensor& /*x*/) {}
  /// Input of a linear of an expert, [tokens routed to it, in_features]; not called when there are none.
  virtual void on_expert_input(std::int64_t /*layer*/, std::int64_t /*expert*/, LinearKind, const at::Tensor& /*x*/) {}
  /// Output of the attention before o_proj, [tokens, heads * head_dim].
  virtual void on_attention_output(std::int64_t /*layer*/, const at::Tensor& /*output*/) {}
};

enum class LogitRows { All, LastOfSequence, None };

/// One forward pass, without gradients.
/// @return logits f32 [rows, vocab_size]; undefined for LogitRows::None
/// @throws Error InvalidArgument for a token id outside the vocabulary or a position beyond max_context
at::Tensor forward(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                   AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job);

/// The same under the caller's gradient mode. Weights that require gradients must be dense; keys and values are
/// reached through a tap or an AttentionProvider. FullPrecisionWindow is differentiable, caches are not.
at::Tensor forward_with_gradients(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch,
                                  AttentionProvider& attention, LogitRows rows, TapSink* taps, const JobContext& job);

// The parts of `forward`, for work that goes block by block. All follow the caller's gradient mode.

/// What the first block reads: embedded tokens and learned positions, [total tokens, hidden_size].
/// @throws Error as forward
at::Tensor embed_tokens(const ArchitectureSpec& spec, const DecoderWeights& weights, const RaggedBatch& batch);

struct RopeTables;  ///< backend/model/rope.h

/// One block. @param hidden  [total tokens, hidden_size]; the result is the input of the next block
/// @param tables  rope_tables(spec, batch), to share them between blocks; null: computed here
at::Tensor run_block(const ArchitectureSpec& spec, const DecoderBlock& block, std::int64_t layer,
                     const RaggedBatch& batch, const at::Tensor& hidden, AttentionProvider& attention,
                     TapSink* taps = nullptr, const RopeTables* tables = nullptr);

/// Final norm, head and soft cap. @param hidden  [rows, hidden_size]; the result is f32 [rows, vocab_size]
at::Tensor final_logits(const ArchitectureSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden);

/// A norm of the model over the last dimension. @return `x` itself when the norm is not there
at::Tensor apply_norm(const ArchitectureSpec& spec, const at::Tensor& x, const NormWeights& norm);

/// Rotates the half-split way (KV specification 1.7); channels beyond rotary_dim stay.
/// @param x       [heads, tokens, head_dim], tokens at positions first_position, first_position + 1, ...
/// @param length  tokens of the text, for frequencies that depend on it; 0: first_position + tokens
at::Tensor apply_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope, std::int64_t length = 0);
/// The inverse of apply_rope, in f32.
at::Tensor undo_rope(const at::Tensor& x, std::int64_t first_position, const RopeSpec& rope, std::int64_t length = 0);

/// Softmax in f32 of scale * query * keyᵀ (soft-capped where the rules say so) under the causal mask and the sliding
/// window, times value; query head h reads KV head h / (heads / kv_heads). The last query sits on the last key.
/// @param query  [heads, queries, head_dim]; key, value [kv_heads, keys, head_dim]
at::Tensor causal_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionQuantization& quantization = {}, const AttentionRules& rules = {});

/// Keys that a query may not see, bool [queries, keys]: those of later tokens and those before its sliding window.
/// @param first_query  key index of the first query's own token
at::Tensor hidden_keys(std::int64_t queries, std::int64_t keys, std::int64_t first_query, std::int64_t sliding_window);

/// Whole-window attention in full precision; keeps nothing.
class FullPrecisionWindow final : public AttentionProvider {
 public:
  explicit FullPrecisionWindow(AttentionQuantization quantization = {}) : quantization_(quantization) {}
  at::Tensor attend(const AttentionCall& call) override;

 private:
  AttentionQuantization quantization_;
};

}  // namespace qs
