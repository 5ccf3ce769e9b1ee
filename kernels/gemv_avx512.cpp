#include "kernels/gemv.h"
#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx512.h"
#include "kernels/lanes_common.h"

#define QS_DOT V
#define QS_NAME(function) function##_avx512
#include "kernels/gemv_lanes.inc"
#include "kernels/int8_gemm_lanes.inc"
