#include "kernels/column_sweep.h"
#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx512.h"

#define QS_NAME(function) function##_avx512
#include "kernels/column_sweep_lanes.inc"
