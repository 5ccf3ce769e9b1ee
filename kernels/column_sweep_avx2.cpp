#include "kernels/column_sweep.h"
#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"

#define QS_NAME(function) function##_avx2
#include "kernels/column_sweep_lanes.inc"
