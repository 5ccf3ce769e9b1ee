#include "backend/formats/safetensors_writer.h"

#include <nlohmann/json.hpp>
#include <set>

#include "backend/types/error.h"

namespace qs {

std::int64_t SafetensorsWriter::Entry::bytes() const {
  std::int64_t elements = 1;
  for (const std::int64_t extent : shape) elements *= extent;
  return elements * stored_type_bytes(type);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<Entry>& entries,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path.string()), file_(path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  for (const Entry& entry : entries) {
    if (!names.insert(entry.name).second)
      throw Error(ErrorCode::InvalidArgument,
                  "Tensor '" + entry.name + "' cannot be written twice to '" + path_ + "'.");
    const std::int64_t end = expected_ + entry.bytes();
    header[entry.name] = {
        {"dtype", stored_type_id(entry.type)}, {"shape", entry.shape}, {"data_offsets", {expected_, end}}};
    expected_ = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t header_bytes = text.size();
  file_.write(std::as_bytes(std::span(&header_bytes, 1)));
  file_.write(text);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  written_ += static_cast<std::int64_t>(bytes.size());
  if (written_ > expected_)
    throw Error(ErrorCode::InvalidArgument,
                "More than the " + std::to_string(expected_) + " bytes of the tensors were given for '" + path_ + "'.");
  file_.write(bytes);
}

void SafetensorsWriter::commit() {
  if (written_ != expected_)
    throw Error(ErrorCode::InvalidArgument, "Only " + std::to_string(written_) + " of the " +
                                                std::to_string(expected_) + " bytes of the tensors were given for '" +
                                                path_ + "'.");
  file_.commit();
}

}  // namespace qs
