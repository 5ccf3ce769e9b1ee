#include "app/model_forecast.h"

#include <QDir>
#include <algorithm>

#include "backend/evaluation/cache_memory.h"
#include "backend/model/model.h"
#include "backend/storage/capture.h"

namespace qs {

MemoryForecast forecast_of(const ModelInfo& info, const QString& dtype, int context) {
  MemoryForecast forecast;
  LoadOptions options;
  options.dtype = dtype.toStdString();
  const std::int64_t tokens = std::clamp<std::int64_t>(context, 1, std::max<std::int64_t>(1, info.max_context));
  forecast.estimate = estimate_memory(info, options, tokens);
  forecast.available = available_memory();
  CaptureRequest request;
  request.ids.assign(static_cast<std::size_t>(tokens), 0);
  forecast.capture = forecast_capture(info, request, QDir::tempPath().toStdString()).bytes;
  forecast.peakResident = peak_resident_bytes();
  return forecast;
}

}  // namespace qs
