#pragma once

#include "backend/types/linear_grid.h"

namespace qs {

class LinearOp;

/// What a linear layer that computes from codes stores, as plain data for views. Kind::None for floating point and for
/// classes whose groups are no runs of a row.
LinearGrid linear_grid(const LinearOp& linear);

}  // namespace qs
