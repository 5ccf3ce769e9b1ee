#include "backend/formats/pickle.h"

#include <algorithm>
#include <array>
#include <fstream>

namespace qs {
namespace {

namespace fs = std::filesystem;

constexpr unsigned char kProtocol = 0x80;  // opcode in front of every pickle since protocol 2
constexpr const char* kTrainingState[] = {"training_args", "optimizer", "scheduler", "rng_state", "scaler"};

/// For a shell.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

/// What training leaves beside the weights.
bool is_training_state(const fs::path& path) {
  const std::string name = path.filename().string();
  return std::any_of(std::begin(kTrainingState), std::end(kTrainingState),
                     [&](const char* start) { return name.starts_with(start); });
}

bool is_original_llama(const fs::path& path) { return path.filename().string().starts_with("consolidated."); }

}  // namespace

bool is_pickle(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::array<unsigned char, 4> head{};
  in.read(reinterpret_cast<char*>(head.data()), head.size());
  if (in.gcount() != 4) return false;
  if (head[0] == 'P' && head[1] == 'K' && head[2] == 3 && head[3] == 4) return true;
  // A llama2.c file may begin with the same two bytes, as the size 640; then zeros follow.
  return head[0] == kProtocol && head[1] >= 2 && head[1] <= 5 && head[2] != 0 && head[3] != 0;
}

std::vector<fs::path> pickles_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string extension = at->path().extension().string();
    if (extension != ".bin" && extension != ".pt" && extension != ".pth" && extension != ".ckpt") continue;
    if (!is_training_state(at->path()) && is_pickle(at->path())) found.push_back(at->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string pickle_advice(const fs::path& file_or_folder) {
  std::error_code ignored;
  const bool is_folder = fs::is_directory(file_or_folder, ignored);
  const std::vector<fs::path> all = is_folder ? pickles_in(file_or_folder) : std::vector<fs::path>{file_or_folder};
  const fs::path folder = is_folder ? file_or_folder : file_or_folder.parent_path();
  std::string text =
      "Pickled weights are not read, because reading a pickle runs whatever program is inside. To convert them, with "
      "Python and the packages of the model: ";
  if (!all.empty() && std::all_of(all.begin(), all.end(), is_original_llama))
    return text + "python3 -m transformers.models.llama.convert_llama_weights_to_hf --input_dir " +
           quoted(folder.string()) + " --output_dir " + quoted((folder / "hf").string());
  text +=
      "python3 -c \"import sys, torch, safetensors.torch as st; w = {}; [w.update(torch.load(f, map_location='cpu', "
      "weights_only=True)) for f in sys.argv[2:]]; st.save_file({k: v.clone().contiguous() for k, v in w.items() if "
      "torch.is_tensor(v)}, sys.argv[1], metadata={'format': 'pt'})\" " +
      quoted((folder / "model.safetensors").string());
  for (const fs::path& file : all) text += " " + quoted(file.string());
  return text;
}

}  // namespace qs
