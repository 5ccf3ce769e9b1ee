#pragma once

#include <cstdint>
#include <filesystem>

namespace qs::testing {

/// Writes a real capture file for benchmarks: layer 0 has a full-size `key` [kv_heads, tokens, head_dim] in float16
/// with pyramids; the other layers are hard links to it, so the file stays small while every layer can be read.
/// Channels 3, 64 and the last of head 0 are outliers, 12 times as wide as the rest. Fixed seed.
void write_synthetic_capture(const std::filesystem::path& path, std::int64_t layers, std::int64_t tokens,
                             std::int64_t kv_heads, std::int64_t head_dim);

}  // namespace qs::testing
