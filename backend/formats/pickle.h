#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace qs {

/// Whether a file is a Python pickle or a zip archive of one, as torch.save writes them (.bin, .pt, .pth). Told by its
/// first bytes, because llama2.c files end in .bin too. False for what cannot be read.
bool is_pickle(const std::filesystem::path& path);

/// Why pickles are not read, and the command that converts this file, or all the weights of this folder.
std::string pickle_advice(const std::filesystem::path& file_or_folder);

/// The pickled weights of a folder: pytorch_model*.bin, consolidated.*.pth, *.pt ..., without the state
/// that training leaves beside them. Empty when there are none.
std::vector<std::filesystem::path> pickles_in(const std::filesystem::path& folder);

}  // namespace qs
