#include "backend/storage/capture_layout.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "backend/storage/attention_text.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {

std::string layer_dataset(std::int64_t layer, const std::string& tap) {
  char name[32];
  std::snprintf(name, sizeof name, "/layers/%03lld/", static_cast<long long>(layer));
  return name + tap;
}

std::string pyramid_dataset(std::int64_t layer, const std::string& tap, const std::string& pool, std::int64_t factor) {
  return "/pyramids" + layer_dataset(layer, tap) + "/" + pool + "_" + std::to_string(factor);
}

std::string activation_group(const std::string& linear) { return "/activations/" + linear; }

hdf5::Shape chunk_of(const hdf5::Shape& shape) {
  hdf5::Shape chunk = {1, kChunkTokens, kChunkChannels};
  chunk.resize(shape.size());
  // The token axis grows, so its chunk does not shrink to what is there now.
  for (std::size_t i = 0; i < chunk.size(); ++i) {
    if (i != 1) chunk[i] = std::max<std::int64_t>(1, std::min(chunk[i], shape[i]));
  }
  return chunk;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void write_header(hid_t file, const CaptureHeader& header) {
  const CaptureInfo& info = header.info;
  using hdf5::set_attribute;
  set_attribute(file, "format", std::string(kCaptureFormat));
  set_attribute(file, "version", std::int64_t{kCaptureVersion});
  set_attribute(file, "model_name", info.model_name);
  set_attribute(file, "model_fingerprint", info.model_fingerprint);
  set_attribute(file, "architecture", info.architecture);
  set_attribute(file, "created_utc", info.created_utc);
  set_attribute(file, "program_version", info.program_version);
  set_attribute(file, "text_source", info.text_source);
  set_attribute(file, "text_sha256", info.text_sha256);
  set_attribute(file, "layers", info.layers);
  set_attribute(file, "heads", info.heads);
  set_attribute(file, "kv_heads", info.kv_heads);
  set_attribute(file, "head_dim", info.head_dim);
  set_attribute(file, "hidden_size", info.hidden_size);
  set_attribute(file, "rope_theta", info.rope.theta);
  set_attribute(file, "attention", attention_text(info));
  set_attribute(file, "window", header.window);
  set_attribute(file, "complete", std::int64_t{info.complete ? 1 : 0});
}

CaptureHeader read_header(hid_t file, const std::filesystem::path& path) {
  const auto bad = [&](const std::string& what) {
    return Error(ErrorCode::BadFormat, "'" + path.string() + "' " + what);
  };
  const std::string format = hdf5::string_attribute(file, "format");
  if (format != kCaptureFormat) {
    throw bad("is an HDF5 file, but no capture: its attribute \"format\" is \"" + format + "\", expected \"" +
              kCaptureFormat + "\".");
  }
  CaptureHeader header;
  CaptureInfo& info = header.info;
  info.path = path.string();
  info.version = static_cast<int>(hdf5::int_attribute(file, "version"));
  if (info.version != kCaptureVersion) {
    throw bad("is a capture of version " + std::to_string(info.version) + "; this program reads version " +
              std::to_string(kCaptureVersion) + ". Capture again, or use the program that made it.");
  }
  info.complete = hdf5::int_attribute(file, "complete") == 1;
  info.model_name = hdf5::string_attribute(file, "model_name");
  info.model_fingerprint = hdf5::string_attribute(file, "model_fingerprint");
  info.architecture = hdf5::string_attribute(file, "architecture");
  info.created_utc = hdf5::string_attribute(file, "created_utc");
  info.program_version = hdf5::string_attribute(file, "program_version");
  info.text_source = hdf5::string_attribute(file, "text_source");
  info.text_sha256 = hdf5::string_attribute(file, "text_sha256");
  for (const auto& [name, field] : {std::pair{"layers", &info.layers},
                                    {"heads", &info.heads},
                                    {"kv_heads", &info.kv_heads},
                                    {"head_dim", &info.head_dim},
                                    {"hidden_size", &info.hidden_size},
                                    {"window", &header.window}}) {
    *field = hdf5::int_attribute(file, name, -1);
    if (*field <= 0 || *field > std::int64_t{1} << 32) {
      throw bad("is a damaged capture: its attribute \"" + std::string(name) + "\" should be a positive count, found " +
                (*field == -1 ? "none" : std::to_string(*field)) + ".");
    }
  }
  info.window = header.window;
  info.rope.theta = hdf5::real_attribute(file, "rope_theta");
  const std::string attention = hdf5::string_attribute(file, "attention");
  if (!attention.empty() && !read_attention(attention, info))
    throw bad("is a damaged capture: its attribute \"attention\" does not describe the attention of " +
              std::to_string(info.layers) + " layers.");
  return header;
}

}  // namespace qs
