#pragma once

#include <span>

namespace qs {

/// All on spans of equal length, accumulated in double. NaN inputs give NaN.
double mse(std::span<const float> reference, std::span<const float> other);
double relative_error(std::span<const float> reference, std::span<const float> other);  ///< ||a-b||_F / ||a||_F
double sqnr_db(std::span<const float> reference, std::span<const float> other);         ///< +inf when equal
double cosine(std::span<const float> reference, std::span<const float> other);
double max_abs_error(std::span<const float> reference, std::span<const float> other);
double kurtosis(std::span<const float> x);  ///< excess, population moments
/// KL(p || q) in nats between the softmax of two logit rows.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace qs
