#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace qs::test {

/// Builds GGUF files byte by byte, right ones and wrong ones: nothing is checked here.
class GgufWriter {
 public:
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::int64_t claimed_tensors = -1, claimed_metadata = -1;  ///< -1: what there is

  void text(std::string_view key, std::string_view value) { head(key, 8), put_text(metadata_, value); }
  void u32(std::string_view key, std::uint32_t value) { head(key, 4), put(metadata_, value); }
  void f32(std::string_view key, float value) { head(key, 6), put(metadata_, value); }
  void flag(std::string_view key, bool value) { head(key, 7), put(metadata_, std::uint8_t{value}); }
  template <typename T>
  void number(std::string_view key, std::uint32_t type, T value) {
    head(key, type), put(metadata_, value);
  }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    head(key, 9), put(metadata_, std::uint32_t{8}), put(metadata_, std::uint64_t{values.size()});
    for (const std::string& value : values) put_text(metadata_, value);
  }
  template <typename T>
  void array(std::string_view key, std::uint32_t type, const std::vector<T>& values) {
    head(key, 9), put(metadata_, type), put(metadata_, std::uint64_t{values.size()});
    for (const T value : values) put(metadata_, value);
  }
  void raw_metadata(const std::string& bytes) { metadata_ += bytes, ++metadata_count_; }

  /// @param shape  outermost extent first; written reversed, as the format wants it
  void tensor(std::string_view name, std::uint32_t type, const std::vector<std::int64_t>& shape,
              const std::string& bytes) {
    tensor_at(name, type, shape, data_.size());
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
  }
  void tensor_at(std::string_view name, std::uint32_t type, const std::vector<std::int64_t>& shape,
                 std::uint64_t offset) {
    put_text(infos_, name);
    put(infos_, static_cast<std::uint32_t>(shape.size()));
    for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) put(infos_, *extent);
    put(infos_, type);
    put(infos_, offset);
    ++tensor_count_;
  }

  std::string bytes() const {
    std::string all = "GGUF";
    put(all, version);
    put(all, claimed_tensors < 0 ? tensor_count_ : claimed_tensors);
    put(all, claimed_metadata < 0 ? metadata_count_ : claimed_metadata);
    all += metadata_ + infos_;
    all.resize((all.size() + alignment - 1) / alignment * alignment, '\0');
    return all + data_;
  }
  void write(const std::filesystem::path& path) const {
    const std::string all = bytes();
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(all.data(), static_cast<std::streamsize>(all.size()));
  }

  template <typename T>
  static void put(std::string& to, const T& value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_text(std::string& to, std::string_view value) {
    put(to, std::uint64_t{value.size()});
    to += value;
  }

 private:
  void head(std::string_view key, std::uint32_t type) {
    put_text(metadata_, key);
    put(metadata_, type);
    ++metadata_count_;
  }
  std::string metadata_, infos_, data_;
  std::int64_t tensor_count_ = 0, metadata_count_ = 0;
};

}  // namespace qs::test
