#pragma once

#include <cstdint>
#include <span>

#include "backend/types/eval_result.h"

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

/// 97.5 % quantile of Student's t; infinite without a degree of freedom.
double student_t_975(std::int64_t degrees_of_freedom);

struct MeanError {
  double mean = 0.0, standard_error = 0.0;  ///< standard error of the mean; 0 for one item
};
MeanError mean_with_error(std::span<const double> items);

/// Mean of b - a over paired items with its 95 % confidence interval by Student's t; one pair gives an infinite
/// interval.
/// @throws Error InvalidArgument when the lengths differ or there is no item
PairedDifference paired_difference(std::span<const double> a, std::span<const double> b);

}  // namespace qs
