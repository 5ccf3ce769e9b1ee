#include "kernels/affine.h"
#include "kernels/float_formats.h"
#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"

#define QS_NAME(function) function##_avx2
#include "kernels/affine_lanes.inc"
