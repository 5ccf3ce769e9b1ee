#pragma once

namespace qs {

/// Quantile of the standard normal distribution, to 1e-12 absolute. @param probability  in (0, 1); 0 and 1 give -inf
/// and inf
double normal_quantile(double probability);

}  // namespace qs
