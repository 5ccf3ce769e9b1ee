#include "backend/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/formats/json_file.h"
#include "backend/formats/pickle.h"
#include "backend/formats/safe_write.h"
#include "backend/formats/sha256.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int kMaxHeaderDepth = 4;
constexpr std::size_t kMaxRank = 8;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::BadFormat, "'" + path + "' is not a valid safetensors file: " + why);
}

Json parse_header(const std::string& path, std::string_view text) {
  Json header = parse_json(text, path, kMaxHeaderDepth);
  if (!header.is_object()) refuse(path, "its header is not a JSON object.");
  return header;
}

std::uint64_t unsigned_field(const std::string& path, const std::string& name, const char* what, const Json& value) {
  if (!value.is_number_unsigned()) refuse(path, std::string(what) + " of tensor '" + name + "' is not a whole number.");
  return value.get<std::uint64_t>();
}

struct Range {
  std::uint64_t begin, end;
  std::string name;
};

StoredTensor read_entry(const std::string& path, const std::string& name, const Json& entry, std::uint64_t data_bytes,
                        const std::byte* data, Range& range) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets"))
    refuse(path, "tensor '" + name + "' lacks dtype, shape or data_offsets.");
  const Json& dtype = entry["dtype"];
  const Json& shape = entry["shape"];
  const Json& offsets = entry["data_offsets"];
  if (!dtype.is_string()) refuse(path, "dtype of tensor '" + name + "' is not a text.");
  if (!shape.is_array() || shape.size() > kMaxRank)
    refuse(path, "shape of tensor '" + name + "' is not a list of at most " + std::to_string(kMaxRank) + " sizes.");
  if (!offsets.is_array() || offsets.size() != 2) refuse(path, "data_offsets of tensor '" + name + "' is not a pair.");

  StoredTensor tensor;
  tensor.name = name;
  const auto type = parse_stored_type(dtype.get<std::string>());
  if (!type)
    throw Error(ErrorCode::Unsupported,
                "'" + path + "': tensor '" + name + "' has the unknown dtype '" + dtype.get<std::string>() +
                    "'; known are F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL, F8_E4M3 and F8_E5M2.");
  tensor.type = *type;
  auto need = static_cast<std::uint64_t>(stored_type_bytes(*type));
  std::uint64_t reach = need;
  for (const Json& extent : shape) {
    const std::uint64_t size = unsigned_field(path, name, "shape", extent);
    // As if no extent were zero, so that no partial product overflows.
    if (__builtin_mul_overflow(reach, std::max<std::uint64_t>(size, 1), &reach) ||
        reach > static_cast<std::uint64_t>(INT64_MAX))
      refuse(path, "shape of tensor '" + name + "' is too large for any file.");
    need *= size;
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  range = {unsigned_field(path, name, "data_offsets", offsets[0]),
           unsigned_field(path, name, "data_offsets", offsets[1]), name};
  if (range.end < range.begin)
    refuse(path, "tensor '" + name + "' ends at byte " + std::to_string(range.end) + ", before it begins at " +
                     std::to_string(range.begin) + ".");
  if (range.end > data_bytes)
    throw Error(ErrorCode::BadFormat, "'" + path + "' is truncated: tensor '" + name + "' ends at byte " +
                                          std::to_string(range.end) + " of the data, the file has " +
                                          std::to_string(data_bytes) + ". Download it again.");
  if (range.end - range.begin != need)
    refuse(path, "tensor '" + name + "' of shape " + shape_text(tensor.shape) + " and type " + stored_type_id(*type) +
                     " needs " + std::to_string(need) + " bytes, its offsets span " +
                     std::to_string(range.end - range.begin) + ".");
  tensor.bytes = {data + range.begin, static_cast<std::size_t>(need)};
  return tensor;
}

void check_ranges(const std::string& path, std::vector<Range> ranges, std::uint64_t data_bytes) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t covered = 0;
  std::string previous;
  for (const Range& range : ranges) {
    if (range.begin < covered) refuse(path, "tensors '" + previous + "' and '" + range.name + "' overlap.");
    if (range.begin > covered)
      refuse(path,
             "a gap of " + std::to_string(range.begin - covered) + " bytes precedes tensor '" + range.name + "'.");
    covered = range.end;
    previous = range.name;
  }
  if (covered != data_bytes)
    refuse(path, std::to_string(data_bytes - covered) + " bytes after the last tensor belong to none.");
}

void sort_by_name(TensorTable& table) {
  std::sort(table.tensors.begin(), table.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
}

}  // namespace

TensorTable read_safetensors(const std::filesystem::path& path) { return read_safetensors(MappedFile::open(path)); }

TensorTable read_safetensors(std::shared_ptr<const MappedFile> file) {
  const auto bytes = file->bytes();
  const std::string shown = file->path().string();
  if (bytes.size() < 8)
    throw Error(ErrorCode::BadFormat,
                "'" + shown + "' is truncated: a safetensors file begins with 8 bytes of header length, this one has " +
                    std::to_string(bytes.size()) + ". Download it again.");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kMaxHeaderBytes)
    refuse(shown, "it claims a header of " + std::to_string(header_bytes) + " bytes; at most " +
                      std::to_string(kMaxHeaderBytes) + " are allowed.");
  if (header_bytes > bytes.size() - 8)
    throw Error(ErrorCode::BadFormat, "'" + shown + "' is truncated: its header needs " + std::to_string(header_bytes) +
                                          " bytes, the file has " + std::to_string(bytes.size() - 8) +
                                          " after the length. Download it again.");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const Json header = parse_header(shown, text);

  TensorTable table;
  table.path = shown;
  table.owners = {file};
  table.header_sha256 = sha256_hex(bytes.first(8 + header_bytes));
  const std::uint64_t data_bytes = bytes.size() - 8 - header_bytes;
  const std::byte* data = bytes.data() + 8 + header_bytes;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) refuse(shown, "__metadata__ is not an object.");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) refuse(shown, "__metadata__ entry '" + key + "' is not a text.");
        table.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    Range range;
    table.tensors.push_back(read_entry(shown, name, entry, data_bytes, data, range));
    ranges.push_back(std::move(range));
  }
  check_ranges(shown, std::move(ranges), data_bytes);
  sort_by_name(table);
  return table;
}

TensorTable read_safetensors_index(const std::filesystem::path& index_path) {
  const std::string shown = index_path.string();
  const Json index = parse_json_file(index_path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
      index["weight_map"].empty())
    throw Error(ErrorCode::BadFormat, "'" + shown + "' has no weight_map that names the file of each tensor.");

  std::map<std::string, TensorTable> shards;
  TensorTable table;
  table.path = shown;
  std::string headers;
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string())
      throw Error(ErrorCode::BadFormat, "'" + shown + "': the file of tensor '" + name + "' is not a text.");
    const std::filesystem::path shard = file.get<std::string>();
    if (shard.empty() || shard != shard.filename() || shard == "." || shard == "..")
      throw Error(ErrorCode::BadFormat, "'" + shown + "': tensor '" + name + "' is said to lie in '" + shard.string() +
                                            "'; expected a file name beside the index.");
    auto at = shards.find(shard.string());
    if (at == shards.end()) {
      const auto shard_path = index_path.parent_path() / shard;
      if (!std::filesystem::exists(shard_path))
        throw Error(ErrorCode::NotFound, "'" + shown + "' names '" + shard.string() + "' for tensor '" + name +
                                             "', but that file is not beside it. Complete the download.");
      at = shards.emplace(shard.string(), read_safetensors(shard_path)).first;
    }
    table.tensors.push_back(at->second.at(name));
  }
  std::map<std::string_view, std::string_view> homes;
  for (const auto& [name, shard] : shards)
    for (const StoredTensor& tensor : shard.tensors)
      if (const auto [home, fresh] = homes.emplace(tensor.name, name); !fresh)
        throw Error(ErrorCode::BadFormat, "'" + shown + "': tensor '" + tensor.name + "' lies in '" +
                                              std::string(home->second) + "' and in '" + name +
                                              "'. The files belong to different downloads; download them again.");
  for (const auto& [name, shard] : shards) {
    table.owners.insert(table.owners.end(), shard.owners.begin(), shard.owners.end());
    table.metadata.insert(shard.metadata.begin(), shard.metadata.end());
    headers += name + " " + shard.header_sha256 + "\n";
  }
  table.header_sha256 = sha256_hex(std::as_bytes(std::span(headers)));
  sort_by_name(table);
  return table;
}

TensorTable read_safetensors_folder(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / "model.safetensors")) return read_safetensors(folder / "model.safetensors");
  if (std::filesystem::exists(folder / "model.safetensors.index.json"))
    return read_safetensors_index(folder / "model.safetensors.index.json");
  std::string found;
  if (!pickles_in(folder).empty()) {
    found = " " + pickle_advice(folder);
  } else {
    std::error_code error;
    for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      const std::string extension = at->path().extension().string();
      if (extension == ".safetensors" || extension == ".gguf")
        found += (found.empty() ? " It has '" : ", '") + at->path().filename().string() + "'";
    }
    if (!found.empty()) found += "; a .gguf file is opened by itself.";
  }
  throw Error(ErrorCode::NotFound,
              "'" + folder.string() + "' has neither model.safetensors nor model.safetensors.index.json." + found);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  std::set<std::string> names;
  for (const StoredTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      throw Error(ErrorCode::InvalidArgument,
                  "Tensor '" + tensor.name + "' cannot be written twice to '" + path.string() + "'.");
    const std::int64_t need = tensor.size() * stored_type_bytes(tensor.type);
    if (need != static_cast<std::int64_t>(tensor.bytes.size()))
      throw Error(ErrorCode::InvalidArgument, "Tensor '" + tensor.name + "' of shape " + shape_text(tensor.shape) +
                                                  " needs " + std::to_string(need) + " bytes, " +
                                                  std::to_string(tensor.bytes.size()) + " were given.");
    header[tensor.name] = {{"dtype", stored_type_id(tensor.type)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  SafeFile file(path);
  const std::uint64_t header_bytes = text.size();
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(text);
  for (const StoredTensor& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace qs
