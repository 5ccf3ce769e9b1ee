#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/formats/mapped_file.h"
#include "backend/formats/tensor_table.h"

namespace qs {

/// Maps a .safetensors file; nothing is copied. The header is believed only after it was checked: its length (at most
/// 100 MB and inside the file), JSON, duplicate names, types, shape times type equal to the size, and the ranges, which
/// must cover the data without overlap, gap or end beyond the file.
/// @throws Error NotFound, BadFormat (file, tensor, expected, found), Unsupported (element type), Io
TensorTable read_safetensors(const std::filesystem::path& path);
TensorTable read_safetensors(std::shared_ptr<const MappedFile> file);

/// Opens the shards that a model.safetensors.index.json names and joins them. Shards must lie beside the index.
/// @throws Error as read_safetensors; NotFound naming a shard or tensor that the index promises
TensorTable read_safetensors_index(const std::filesystem::path& index_path);

/// model.safetensors, else model.safetensors.index.json of a model folder. @throws Error NotFound when neither is there
TensorTable read_safetensors_folder(const std::filesystem::path& folder);

/// Writes beside `path` and renames when whole. Tensors are laid out in the given order.
/// @throws Error InvalidArgument (duplicate name, bytes that do not match type and shape), Io
void write_safetensors(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace qs
