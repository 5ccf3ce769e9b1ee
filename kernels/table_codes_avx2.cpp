#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"
#include "kernels/lanes_common.h"
#include "kernels/table_codes.h"

#define QS_NAME(function) function##_avx2
// clang-format off
#include "kernels/table_codes_lanes.inc"
