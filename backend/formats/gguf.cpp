#include "backend/formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>

#include "backend/formats/printable.h"
#include "backend/formats/sha256.h"
#include "backend/types/error.h"

namespace qs {

static_assert(std::endian::native == std::endian::little, "model files are little-endian and are mapped as they are");

namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMaxMetadata = 1 << 16;
constexpr std::uint64_t kMaxTensors = 1 << 20;
constexpr std::uint32_t kMaxRank = 4;
constexpr std::uint64_t kMinMetadataBytes = 8 + 4 + 1;    // length of the key, type, a value of one byte
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;  // length of the name, rank, type, offset
constexpr std::size_t kShownMetadataBytes = 256;

/// Bytes of one element; 0 for texts and arrays, whose length varies.
constexpr std::array<std::uint64_t, 13> kValueBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::array kTypeNames = {"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                   "bool", "text", "array", "u64", "i64", "f64"};

/// Numbers of tensor types in the file. An empty type: known, and not read here.
struct TensorTypeRow {
  std::uint32_t number;
  const char* name;
  std::optional<StoredType> type;
};
constexpr std::array kTensorTypes = {
    TensorTypeRow{0, "F32", StoredType::F32},    TensorTypeRow{1, "F16", StoredType::F16},
    TensorTypeRow{2, "Q4_0", StoredType::Q4_0},  TensorTypeRow{3, "Q4_1", StoredType::Q4_1},
    TensorTypeRow{6, "Q5_0", StoredType::Q5_0},  TensorTypeRow{7, "Q5_1", StoredType::Q5_1},
    TensorTypeRow{8, "Q8_0", StoredType::Q8_0},  TensorTypeRow{9, "Q8_1", std::nullopt},
    TensorTypeRow{10, "Q2_K", StoredType::Q2_K}, TensorTypeRow{11, "Q3_K", StoredType::Q3_K},
    TensorTypeRow{12, "Q4_K", StoredType::Q4_K}, TensorTypeRow{13, "Q5_K", StoredType::Q5_K},
    TensorTypeRow{14, "Q6_K", StoredType::Q6_K}, TensorTypeRow{15, "Q8_K", std::nullopt},
    TensorTypeRow{16, "IQ2_XXS", std::nullopt},  TensorTypeRow{17, "IQ2_XS", std::nullopt},
    TensorTypeRow{18, "IQ3_XXS", std::nullopt},  TensorTypeRow{19, "IQ1_S", std::nullopt},
    TensorTypeRow{20, "IQ4_NL", std::nullopt},   TensorTypeRow{21, "IQ3_S", std::nullopt},
    TensorTypeRow{22, "IQ2_S", std::nullopt},    TensorTypeRow{23, "IQ4_XS", std::nullopt},
    TensorTypeRow{24, "I8", StoredType::I8},     TensorTypeRow{25, "I16", StoredType::I16},
    TensorTypeRow{26, "I32", StoredType::I32},   TensorTypeRow{27, "I64", StoredType::I64},
    TensorTypeRow{28, "F64", StoredType::F64},   TensorTypeRow{29, "IQ1_M", std::nullopt},
    TensorTypeRow{30, "BF16", StoredType::BF16}, TensorTypeRow{34, "TQ1_0", std::nullopt},
    TensorTypeRow{35, "TQ2_0", std::nullopt},    TensorTypeRow{39, "MXFP4", std::nullopt},
};

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

std::string shown_name(std::string_view name) { return "'" + printable(name) + "'"; }

/// Integers and booleans, wherever they fit an int64.
std::optional<std::int64_t> integer_at(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::U8:
    case GgufType::Bool:
      return load<std::uint8_t>(at);
    case GgufType::I8:
      return load<std::int8_t>(at);
    case GgufType::U16:
      return load<std::uint16_t>(at);
    case GgufType::I16:
      return load<std::int16_t>(at);
    case GgufType::U32:
      return load<std::uint32_t>(at);
    case GgufType::I32:
      return load<std::int32_t>(at);
    case GgufType::I64:
      return load<std::int64_t>(at);
    case GgufType::U64: {
      const auto value = load<std::uint64_t>(at);
      if (value > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> real_at(GgufType type, const std::byte* at) {
  if (type == GgufType::F32) return load<float>(at);
  if (type == GgufType::F64) return load<double>(at);
  if (type == GgufType::U64) return static_cast<double>(load<std::uint64_t>(at));
  if (const auto whole = integer_at(type, at)) return static_cast<double>(*whole);
  return std::nullopt;
}

std::string kind_text(const GgufValue& value) {
  const std::string type = kTypeNames[static_cast<std::size_t>(value.type)];
  return value.is_array ? "an array of " + std::to_string(value.count) + " " + type : type;
}

[[noreturn]] void refuse_kind(const std::string& path, std::string_view key, const GgufValue& value,
                              const char* expected) {
  throw Error(ErrorCode::BadFormat, "'" + path + "': metadata " + shown_name(key) + " at byte " +
                                        std::to_string(value.offset) + " is " + kind_text(value) + ", expected " +
                                        expected + ".");
}

/// A scalar or a short text, for people.
std::optional<std::string> shown(const GgufValue& value) {
  if (value.is_array) return std::nullopt;
  if (value.type == GgufType::Text) {
    if (value.data.size() - 8 > kShownMetadataBytes) return std::nullopt;
    return printable({reinterpret_cast<const char*>(value.data.data()) + 8, value.data.size() - 8});
  }
  if (value.type == GgufType::Bool) return load<std::uint8_t>(value.data.data()) ? "true" : "false";
  if (const auto whole = integer_at(value.type, value.data.data())) return std::to_string(*whole);
  return std::to_string(real_at(value.type, value.data.data()).value_or(NAN));
}

}  // namespace

/// Walks through the file once; `at_` never passes the end.
class GgufParser {
 public:
  explicit GgufParser(std::shared_ptr<const MappedFile> file)
      : mapped_(std::move(file)), path_(mapped_->path().string()), bytes_(mapped_->bytes()) {
    file_.tensors_.path = path_;
    file_.tensors_.owners = {mapped_};
  }

  GgufFile parse() {
    const auto counts = read_prologue();
    for (std::uint64_t i = 0; i < counts.metadata; ++i) read_metadata(i);
    std::vector<Entry> entries;
    for (std::uint64_t i = 0; i < counts.tensors; ++i) entries.push_back(read_tensor_info(i));
    place(std::move(entries), alignment());
    for (const auto& [key, value] : file_.metadata_)
      if (const auto text = shown(value)) file_.tensors_.metadata.emplace(printable(key), *text);
    return std::move(file_);
  }

 private:
  struct Counts {
    std::uint64_t tensors, metadata;
  };
  struct Entry {
    StoredTensor tensor;
    std::uint64_t offset, bytes, info_at;  ///< offset from the start of the data; info_at from the start of the file
  };

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorCode::BadFormat, "'" + path_ + "' is not a valid GGUF file: " + why);
  }
  [[noreturn]] void cut_off(const std::string& what, std::uint64_t need) const {
    throw Error(ErrorCode::BadFormat, "'" + path_ + "' is truncated: " + what + " at byte " + std::to_string(at_) +
                                          " needs " + std::to_string(need) + " bytes, " + std::to_string(left()) +
                                          " are left. Download it again.");
  }
  std::uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(std::uint64_t count, const std::string& what) {
    if (count > left()) cut_off(what, count);
    const auto taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }
  template <typename T>
  T number(const std::string& what) {
    return load<T>(take(sizeof(T), what).data());
  }
  std::string_view text(const std::string& what) {
    const auto length = number<std::uint64_t>("the length of " + what);
    const auto taken = take(length, what);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  Counts read_prologue() {
    if (bytes_.size() < 4 || load<std::uint32_t>(bytes_.data()) != kMagic)
      refuse("it does not begin with the letters GGUF.");
    at_ = 4;
    const auto version = number<std::uint32_t>("the version");
    if (version != 0 && (version & 0xffffu) == 0)
      throw Error(ErrorCode::Unsupported,
                  "'" + path_ + "' is a big-endian GGUF file; only little-endian ones are read. Convert it.");
    if (version != 2 && version != 3)
      throw Error(ErrorCode::Unsupported, "'" + path_ + "' is a GGUF file of version " + std::to_string(version) +
                                              "; versions 2 and 3 are read. Convert it with a current llama.cpp.");
    file_.version_ = version;
    Counts counts{};
    counts.tensors = number<std::uint64_t>("the count of tensors");
    counts.metadata = number<std::uint64_t>("the count of metadata entries");
    check_count("metadata entries", counts.metadata, kMaxMetadata, kMinMetadataBytes);
    check_count("tensors", counts.tensors, kMaxTensors, kMinTensorBytes);
    return counts;
  }

  void check_count(const char* what, std::uint64_t count, std::uint64_t most, std::uint64_t each) const {
    if (count > most)
      refuse("it claims " + std::to_string(count) + " " + what + "; at most " + std::to_string(most) + " are allowed.");
    if (count > left() / each)
      throw Error(ErrorCode::BadFormat, "'" + path_ + "' is truncated: it claims " + std::to_string(count) + " " +
                                            what + ", which need at least " + std::to_string(each) + " bytes each; " +
                                            std::to_string(left()) + " bytes follow. Download it again.");
  }

  GgufType value_type(const std::string& what) {
    const std::uint64_t at = at_;
    const auto type = number<std::uint32_t>("the type of " + what);
    if (type >= kValueBytes.size())
      refuse(what + " has the unknown type " + std::to_string(type) + " at byte " + std::to_string(at) + ".");
    return static_cast<GgufType>(type);
  }

  void read_metadata(std::uint64_t index) {
    const std::uint64_t key_at = at_;
    const std::string_view key = text("the key of metadata entry " + std::to_string(index));
    const std::string what = "metadata " + shown_name(key);
    if (file_.metadata_.contains(key))
      refuse(what + " appears twice, the second time at byte " + std::to_string(key_at) + ".");
    GgufValue value;
    value.type = value_type(what);
    if (value.type == GgufType::Array) {
      value.is_array = true;
      value.type = value_type("the elements of " + what);
      if (value.type == GgufType::Array)
        throw Error(ErrorCode::Unsupported, "'" + path_ + "': " + what + " at byte " + std::to_string(at_) +
                                                " is an array of arrays, which no model needs; it is not read.");
      value.count = number<std::uint64_t>("the count of " + what);
    }
    value.offset = at_;
    const std::uint64_t each = kValueBytes[static_cast<std::size_t>(value.type)];
    if (each > 0) {
      std::uint64_t need = 0;
      if (__builtin_mul_overflow(each, value.count, &need)) need = UINT64_MAX;
      value.data = take(need, what);
    } else {
      if (value.count > left() / 8) cut_off(what + " with " + std::to_string(value.count) + " texts", 8);
      for (std::uint64_t i = 0; i < value.count; ++i) {
        const auto length = number<std::uint64_t>("the length of a text of " + what);
        take(length, "text " + std::to_string(i) + " of " + what);
      }
      value.data = bytes_.subspan(value.offset, at_ - value.offset);
    }
    if (value.type == GgufType::Bool) {
      const auto odd = std::find_if(value.data.begin(), value.data.end(), [](std::byte b) { return b > std::byte{1}; });
      if (odd != value.data.end())
        refuse(what + " has the byte " + std::to_string(std::to_integer<int>(*odd)) +
               " where true or false belongs, at " +
               std::to_string(value.offset + static_cast<std::uint64_t>(odd - value.data.begin())) + ".");
    }
    file_.metadata_.emplace(key, value);
  }

  std::uint64_t alignment() const {
    const auto asked = file_.integer("general.alignment");
    if (!asked) return kDefaultAlignment;
    if (*asked < 1 || !std::has_single_bit(static_cast<std::uint64_t>(*asked)) || *asked > (std::int64_t{1} << 31))
      refuse("general.alignment is " + std::to_string(*asked) + ", expected a power of two.");
    return static_cast<std::uint64_t>(*asked);
  }

  StoredType tensor_type(const std::string& what) {
    const std::uint64_t at = at_;
    const auto number_of_type = number<std::uint32_t>("the type of " + what);
    for (const TensorTypeRow& row : kTensorTypes) {
      if (row.number != number_of_type) continue;
      if (row.type) return *row.type;
      throw Error(ErrorCode::Unsupported, "'" + path_ + "': " + what + " is stored as " + row.name + " (byte " +
                                              std::to_string(at) +
                                              "), which is not read. Known are F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, "
                                              "Q5_1, Q8_0 and Q2_K to Q6_K; quantize the model to one of them.");
    }
    refuse(what + " has the unknown type " + std::to_string(number_of_type) + " at byte " + std::to_string(at) + ".");
  }

  Entry read_tensor_info(std::uint64_t index) {
    Entry entry{};
    entry.info_at = at_;
    const std::string_view name = text("the name of tensor " + std::to_string(index));
    const std::string what = "tensor " + shown_name(name);
    entry.tensor.name = name;
    const auto rank = number<std::uint32_t>("the rank of " + what);
    if (rank > kMaxRank)
      refuse(what + " has " + std::to_string(rank) + " dimensions (byte " + std::to_string(at_ - 4) + "); at most " +
             std::to_string(kMaxRank) + " are allowed.");
    std::uint64_t elements = 1, reach = 1;  // reach: as if no extent were zero, so that no partial product overflows
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto extent = number<std::uint64_t>("the shape of " + what);
      if (__builtin_mul_overflow(reach, std::max<std::uint64_t>(extent, 1), &reach) ||
          reach > static_cast<std::uint64_t>(INT64_MAX))
        refuse("the shape of " + what + " at byte " + std::to_string(at_ - 8) + " is too large for any file.");
      elements *= extent;
      entry.tensor.shape.insert(entry.tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    entry.tensor.type = tensor_type(what);
    const auto block = static_cast<std::uint64_t>(stored_type_elements(entry.tensor.type));
    const std::int64_t columns = entry.tensor.shape.empty() ? 1 : entry.tensor.shape.back();
    if (static_cast<std::uint64_t>(columns) % block != 0)
      refuse(what + " of type " + stored_type_id(entry.tensor.type) + " has rows of " + std::to_string(columns) +
             " values, expected a multiple of " + std::to_string(block) + ".");
    if (__builtin_mul_overflow(elements / block, static_cast<std::uint64_t>(stored_type_bytes(entry.tensor.type)),
                               &entry.bytes))
      refuse("the shape of " + what + " is too large for any file.");
    entry.offset = number<std::uint64_t>("the offset of " + what);
    return entry;
  }

  /// Finds the data of each tensor; checks that the ranges lie in the file, are aligned and do not overlap.
  void place(std::vector<Entry> entries, std::uint64_t alignment) {
    const std::uint64_t start = (at_ + alignment - 1) / alignment * alignment;
    file_.tensors_.header_sha256 = sha256_hex(bytes_.first(at_));
    const std::uint64_t data_bytes = start < bytes_.size() ? bytes_.size() - start : 0;
    for (Entry& entry : entries) {
      const std::string what = "tensor " + shown_name(entry.tensor.name);
      if (entry.offset % alignment != 0)
        refuse(what + " begins at byte " + std::to_string(entry.offset) + " of the data, which is no multiple of " +
               std::to_string(alignment) + ".");
      if (entry.offset > data_bytes || entry.bytes > data_bytes - entry.offset)
        throw Error(ErrorCode::BadFormat,
                    "'" + path_ + "' is truncated: " + what + " of shape " + shape_text(entry.tensor.shape) +
                        " needs " + std::to_string(entry.bytes) + " bytes at byte " + std::to_string(entry.offset) +
                        " of the data, which has " + std::to_string(data_bytes) + ". Download it again.");
      if (entry.bytes > 0) entry.tensor.bytes = bytes_.subspan(start + entry.offset, entry.bytes);
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
    });
    for (std::size_t i = 1; i < entries.size(); ++i)
      if (entries[i - 1].offset + entries[i - 1].bytes > entries[i].offset)
        refuse("tensors " + shown_name(entries[i - 1].tensor.name) + " and " + shown_name(entries[i].tensor.name) +
               " overlap at byte " + std::to_string(start + entries[i].offset) + ".");
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.tensor.name < b.tensor.name; });
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0 && entries[i - 1].tensor.name == entries[i].tensor.name)
        refuse("tensor " + shown_name(entries[i].tensor.name) + " appears twice, at byte " +
               std::to_string(entries[i].info_at) + " and at byte " + std::to_string(entries[i - 1].info_at) + ".");
    }
    for (Entry& entry : entries) file_.tensors_.tensors.push_back(std::move(entry.tensor));
  }

  std::shared_ptr<const MappedFile> mapped_;
  std::string path_;
  std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;
  GgufFile file_;
};

GgufFile GgufFile::read(const std::filesystem::path& path) { return read(MappedFile::open(path)); }
GgufFile GgufFile::read(std::shared_ptr<const MappedFile> file) { return GgufParser(std::move(file)).parse(); }

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto at = metadata_.find(key);
  return at == metadata_.end() ? nullptr : &at->second;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->is_array || value->type != GgufType::Text) refuse_kind(path(), key, *value, "a text");
  return std::string_view(reinterpret_cast<const char*>(value->data.data()) + 8, value->data.size() - 8);
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array && value->type != GgufType::Bool)
    if (const auto whole = integer_at(value->type, value->data.data())) return whole;
  refuse_kind(path(), key, *value, "a whole number below 2^63");
}

std::optional<double> GgufFile::real(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array && value->type != GgufType::Bool)
    if (const auto number = real_at(value->type, value->data.data())) return number;
  refuse_kind(path(), key, *value, "a number");
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->is_array || value->type != GgufType::Bool) refuse_kind(path(), key, *value, "true or false");
  return value->data.front() != std::byte{0};
}

std::optional<std::vector<std::string_view>> GgufFile::texts(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array || value->type != GgufType::Text) refuse_kind(path(), key, *value, "an array of texts");
  std::vector<std::string_view> all;
  all.reserve(value->count);
  const std::byte* at = value->data.data();
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto length = load<std::uint64_t>(at);
    all.emplace_back(reinterpret_cast<const char*>(at) + 8, length);
    at += 8 + length;
  }
  return all;
}

std::optional<std::vector<std::int64_t>> GgufFile::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const std::uint64_t each = kValueBytes[static_cast<std::size_t>(value->type)];
  std::vector<std::int64_t> all;
  for (std::uint64_t i = 0; value->is_array && each > 0 && i < value->count; ++i) {
    const auto whole = integer_at(value->type, value->data.data() + i * each);
    if (!whole) break;
    all.push_back(*whole);
  }
  if (!value->is_array || each == 0 || all.size() != value->count)
    refuse_kind(path(), key, *value, "an array of whole numbers");
  return all;
}

std::optional<std::vector<double>> GgufFile::reals(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array || value->type == GgufType::Text || value->type == GgufType::Bool)
    refuse_kind(path(), key, *value, "an array of numbers");
  const std::uint64_t each = kValueBytes[static_cast<std::size_t>(value->type)];
  std::vector<double> all;
  for (std::uint64_t i = 0; i < value->count; ++i)
    all.push_back(real_at(value->type, value->data.data() + i * each).value_or(NAN));
  return all;
}

bool is_gguf(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::array<char, 4> head{};
  in.read(head.data(), head.size());
  return in.gcount() == 4 && std::memcmp(head.data(), "GGUF", 4) == 0;
}

}  // namespace qs
