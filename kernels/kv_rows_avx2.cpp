#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"
#include "kernels/lanes_common.h"

#define QS_NAME(function) function##_avx2
#include "kernels/kv_rows_lanes.inc"
