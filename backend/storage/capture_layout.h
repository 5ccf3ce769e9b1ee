#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/storage/hdf5_handle.h"
#include "backend/types/capture_info.h"

namespace qs {

inline constexpr const char* kCaptureFormat = "quantoscope-capture";
inline constexpr int kCaptureVersion = 1;
inline constexpr std::int64_t kChunkTokens = 256, kChunkChannels = 128;

/// Root attributes. `window` is the length of the independent sequences; positions restart at their starts.
struct CaptureHeader {
  CaptureInfo info;
  std::int64_t window = 0;
};

void write_header(hid_t file, const CaptureHeader& header);
/// @throws Error BadFormat naming what is wrong or missing
CaptureHeader read_header(hid_t file, const std::filesystem::path& path);

std::string pyramid_dataset(std::int64_t layer, const std::string& tap, const std::string& pool, std::int64_t factor);
std::string activation_group(const std::string& linear);
hdf5::Shape chunk_of(const hdf5::Shape& shape);  ///< of a [heads, tokens, channels] or [heads, tokens] dataset

/// Now, as "2025-01-31T12:00:00Z".
std::string utc_now();

}  // namespace qs
