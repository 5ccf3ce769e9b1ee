#include "tests/support/synthetic_capture.h"

#include <ATen/ATen.h>
#include <hdf5.h>

#include <algorithm>

#include "backend/storage/capture_reader.h"
#include "backend/storage/capture_writer.h"
#include "backend/storage/hdf5_thread.h"

namespace qs::testing {
namespace {

constexpr std::int64_t kWindow = 2048;

at::Tensor random_tensor(std::int64_t heads, std::int64_t tokens, std::int64_t head_dim, std::uint64_t seed) {
  at::Tensor x = at::empty({heads, tokens, head_dim}, at::kFloat);
  float* data = x.data_ptr<float>();
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
  for (std::int64_t i = 0; i < x.numel(); ++i) {  // xorshift, then the sum of four bytes: nearly normal and cheap
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const auto bytes =
        static_cast<float>((state & 255) + (state >> 8 & 255) + (state >> 16 & 255) + (state >> 24 & 255));
    data[i] = (bytes - 510.0f) / 148.0f;
  }
  for (const std::int64_t channel : {std::int64_t{3}, std::int64_t{64}, head_dim - 1}) {
    if (channel < head_dim) x.select(0, 0).select(1, channel).mul_(12.0);
  }
  return x.to(at::kHalf);
}

/// Hard links of every layer to layer 0.
void share_layers(const std::filesystem::path& path, std::int64_t layers) {
  Hdf5Thread::instance().run([&] {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    for (std::int64_t layer = 1; layer < layers; ++layer) {
      for (const char* root : {"", "/pyramids"}) {
        std::string from = root + layer_dataset(0, ""), to = root + layer_dataset(layer, "");
        from.pop_back();
        to.pop_back();
        H5Lcreate_hard(file, from.c_str(), file, to.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      }
    }
    H5Fclose(file);
  });
}

}  // namespace

void write_synthetic_capture(const std::filesystem::path& path, std::int64_t layers, std::int64_t tokens,
                             std::int64_t kv_heads, std::int64_t head_dim) {
  CaptureHeader header;
  header.window = kWindow;
  header.info = {.model_name = "synthetic",
                 .model_fingerprint = "synthetic",
                 .architecture = "LlamaForCausalLM",
                 .created_utc = utc_now(),
                 .program_version = QUANTOSCOPE_VERSION,
                 .text_source = "synthetic",
                 .layers = layers,
                 .heads = kv_heads,
                 .kv_heads = kv_heads,
                 .head_dim = head_dim,
                 .hidden_size = kv_heads * head_dim,
                 .rope = {}};
  const auto writer = CaptureWriter::create(
      path, header, {.type = hdf5::ElementType::Float16, .pyramids = true, .planned_tokens = tokens});
  for (std::int64_t begin = 0; begin < tokens; begin += kWindow) {
    const std::int64_t count = std::min(kWindow, tokens - begin);
    CapturedLayer layer{.layer = 0, .first_token = begin};
    layer.taps.emplace_back("key", random_tensor(kv_heads, count, head_dim, static_cast<std::uint64_t>(begin + 1)));
    writer->begin_window(std::vector<std::int64_t>(static_cast<std::size_t>(count), 1),
                         std::vector<std::string>(static_cast<std::size_t>(count), " x"));
    writer->write_layer(std::move(layer));
  }
  writer->finish();
  share_layers(path, layers);
}

}  // namespace qs::testing
