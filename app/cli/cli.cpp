#include "app/cli/cli.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "backend/method_registry.h"
#include "backend/model/threads.h"

namespace qs::cli {
namespace {

double parse_real(const std::string& text, const std::string& whole) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw UsageError{"'" + whole + "' is no list of numbers; expected first:last:step or a,b,c, found '" + text + "'."};
  }
  return value;
}

template <typename Parse>
auto as_usage(Parse parse) {
  try {
    return parse();
  } catch (const Error& e) {
    throw UsageError{e.what()};
  }
}

}  // namespace

void add_model_options(CLI::App& verb, ModelOptions& options) {
  verb.add_option("MODEL", options.path, "Hugging Face folder, .gguf, llama2.c .bin, or sample:sample-hf")->required();
  verb.add_option("--device", options.device, "cpu or cuda[:N]");
  verb.add_option("--dtype", options.dtype, "compute type")->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  verb.add_option("--threads", options.threads, "threads to compute with; 0: all cores")->check(CLI::Range(0, 1024));
}

std::shared_ptr<const Model> load(const ModelOptions& options, const JobContext& job) {
  set_threads(options.threads);
  return Model::load(resolve_path(options.path), {.dtype = options.dtype, .device = options.device}, job);
}

std::filesystem::path resolve_path(const std::string& path) {
  static constexpr std::string_view kSample = "sample:";
  if (!path.starts_with(kSample)) return path;
  const std::string inside = path.substr(kSample.size());
  const std::filesystem::path share =
      std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "share" / "quantoscope";
  const std::filesystem::path in_sample = share / "sample" / inside;
  return std::filesystem::exists(in_sample) ? in_sample : share / inside;
}

std::optional<Setup> kv_setup(const std::string& text) {
  std::vector<std::string> warnings;
  const auto setup = as_usage([&] { return parse_kv_setup(text, &warnings); });
  for (const std::string& warning : warnings) std::fprintf(stderr, "quantoscope-cli: %s\n", warning.c_str());
  return setup;
}

std::optional<Setup> weight_setup(const std::string& text) {
  return as_usage([&] { return parse_weight_setup(text); });
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::vector<std::int64_t> parse_counts(const std::string& text) {
  std::vector<std::int64_t> counts;
  for (std::string part : split(text)) {
    const bool thousands = part.ends_with('k') || part.ends_with('K');
    if (thousands) part.pop_back();
    std::int64_t count = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), count);
    if (error != std::errc{} || end != part.data() + part.size() || count <= 0) {
      throw UsageError{"'" + text + "' is no list of token counts; expected something like 1k,4k,16384."};
    }
    counts.push_back(thousands ? count * 1024 : count);
  }
  if (counts.empty()) throw UsageError{"A list of token counts such as 1k,4k is needed."};
  return counts;
}

std::vector<double> parse_grid(const std::string& text) {
  std::vector<double> grid;
  if (const std::vector<std::string> ends = split(text, ':'); ends.size() == 3) {
    const double first = parse_real(ends[0], text), last = parse_real(ends[1], text), step = parse_real(ends[2], text);
    if (step <= 0.0 || last < first || (last - first) / step > 1000.0) {
      throw UsageError{"'" + text + "' must be first:last:step with a positive step and at most 1,000 points."};
    }
    const int points = static_cast<int>(std::floor((last - first) / step + 1e-9)) + 1;
    for (int i = 0; i < points; ++i) grid.push_back(std::round((first + i * step) * 1e9) / 1e9);
  } else {
    for (const std::string& part : split(text)) grid.push_back(parse_real(part, text));
    std::sort(grid.begin(), grid.end());
  }
  if (grid.empty()) throw UsageError{"'" + text + "' names no value."};
  return grid;
}

Table::Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

void Table::row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

std::string Table::text() const {
  const auto width_of = [](const std::string& cell) {  // code points, near enough to columns for what is printed here
    return static_cast<std::size_t>(std::count_if(cell.begin(), cell.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  const auto numeric = [](const std::string& cell) {
    return !cell.empty() && cell.find_first_not_of("0123456789.+-eE%,x ") == std::string::npos;
  };
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t c = 0; c < rows_[r].size(); ++c) {
      const std::string& cell = rows_[r][c];
      const std::string pad(widths[c] - width_of(cell), ' ');
      const bool right = numeric(rows_.size() > 1 ? rows_.back()[c] : cell);
      line += (c ? "  " : "") + (right ? pad + cell : cell + pad);
    }
    while (line.ends_with(' ')) line.pop_back();
    text += line + "\n";
    if (r == 0) {
      std::string rule;
      for (std::size_t c = 0; c < widths.size(); ++c) rule += (c ? "  " : "") + std::string(widths[c], '-');
      text += rule + "\n";
    }
  }
  return text;
}

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::string significant(double value, int digits) {
  if (std::isnan(value)) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  return buffer;
}

std::string bytes_text(std::int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(kUnits)) value /= 1024.0, ++unit;
  return fixed(value, unit == 0 ? 0 : 1) + " " + kUnits[unit];
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace qs::cli
