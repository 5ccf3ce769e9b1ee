#include "kernels/instruction_sets.h"
#include "kernels/kv_attention.h"
#include "kernels/lanes_avx512.h"
#include "kernels/lanes_common.h"

#define QS_NAME(function) function##_avx512
// clang-format off
#include "kernels/kv_packed_rows.inc"
#include "kernels/kv_grouped_lanes.inc"
