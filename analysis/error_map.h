#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/types/kv_overlay.h"
#include "backend/types/quantize_report.h"
#include "backend/types/tensor_view.h"

namespace qs::analysis {

/// Reconstruction error of one KV tensor, laid out as it is seen: tokens down, channels (head * head_dim + d) across.
struct ErrorMap {
  std::int64_t tokens = 0, channels = 0, head_dim = 0;
  TensorView signed_error;             ///< reconstructed - original, [tokens, channels]
  TensorView absolute_error;           ///< [tokens, channels]
  TensorView original, reconstructed;  ///< [tokens, channels]
  std::vector<float> by_channel;       ///< mean |error| over tokens, [channels]
  std::vector<float> by_token;         ///< mean |error| over channels, [tokens]
  std::int64_t non_finite = 0;         ///< cells whose error is NaN or infinite; left out of the means
};

/// @param original, reconstructed  f32 [kv_heads, tokens, head_dim]
/// @throws Error InvalidArgument when the shapes differ or are not of rank 3
ErrorMap error_map(const TensorView& original, const TensorView& reconstructed);

/// A cell with a large error.
struct HotSpot {
  std::int64_t token = 0, channel = 0;
  float original = 0.0f, reconstructed = 0.0f, error = 0.0f;
};
/// The `count` cells of largest |error|, exact over all cells, descending; NaN first.
std::vector<HotSpot> hot_spots(const ErrorMap& map, std::int64_t count);

/// Which cells hold the lowest or highest code of the tensor, as 0 or 1: [tokens, channels].
/// @param codes   as float [kv_heads, tokens, head_dim]; 255: full precision
/// @param levels  2^bits
TensorView saturation_mask(const TensorView& codes, std::int64_t levels);

/// The same where every scale group has its own number of codes. Without levels nothing is marked.
TensorView saturation_mask(const TensorView& codes, const KvOverlay& overlay);
double marked_fraction(const TensorView& mask);  ///< share of cells that are 1; 0 for an empty mask

/// How many cells hold each code; `full_precision` counts the cells that have none.
struct CodeCounts {
  std::vector<std::int64_t> counts;  ///< [levels]
  std::int64_t full_precision = 0;
};
CodeCounts code_counts(const TensorView& codes, std::int64_t levels);
/// How many cells have codes of 0, 1, 2 ... bits, for methods whose widths differ.
/// @param codes  as float [kv_heads, tokens, head_dim]; 255: full precision
CodeCounts width_counts(const TensorView& codes, const KvOverlay& overlay);

/// ||error||_F / ||original||_F of every head: [kv_heads].
std::vector<float> relative_error_by_head(const TensorView& original, const TensorView& reconstructed);

/// What the overview can be coloured by.
enum class ErrorMetric { RelativeError, Mse, SqnrDb, MaxAbsError, Cosine, FunctionalError };
const char* error_metric_id(ErrorMetric metric);
double metric_of(const TensorReport& report, ErrorMetric metric);
bool larger_is_better(ErrorMetric metric);

/// All layers and tensor kinds of one variant.
struct VariantErrors {
  std::string label;
  std::vector<std::string> kinds;                  ///< "K", "V"
  std::vector<std::vector<TensorReport>> reports;  ///< [layer][kind]
};
/// [kinds, layers] of one metric.
TensorView overview_matrix(const VariantErrors& errors, ErrorMetric metric);

/// One variant's two numbers; they are never shown apart.
struct MetricPair {
  std::string label;
  double reconstruction = 0.0, functional = 0.0;  ///< both: smaller is better
};
/// Variants of which some other one is better by reconstruction and worse by function, each by more than `tolerance`
/// (relative). Values that are not finite agree with everything.
std::vector<bool> disagreements(const std::vector<MetricPair>& variants, double tolerance = 0.02);

}  // namespace qs::analysis
