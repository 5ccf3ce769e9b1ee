#include "kernels/kv_rows.h"

namespace qs::kernels {

void rotate_rows_scalar(const RotateRows& args) noexcept {
  for (std::int64_t t = 0; t < args.count; ++t) {
    float* const first = args.rows + t * args.row_stride;
    float* const second = first + args.half;
    const float* const cosine = args.at(t);
    const float* const sine = cosine + args.half;
    for (std::int64_t i = 0; i < args.half; ++i) {
      const float a = first[i];
      const float b = second[i];
      first[i] = a * cosine[i] - b * sine[i];
      second[i] = b * cosine[i] + a * sine[i];
    }
  }
}

}  // namespace qs::kernels
