#pragma once

#include <QString>

#include "widgets/model_card.h"

namespace qs {

/// What running `info` in a compute type at a context takes. Any thread; reads /proc.
MemoryForecast forecast_of(const ModelInfo& info, const QString& dtype, int context);

}  // namespace qs
