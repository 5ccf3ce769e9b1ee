#include <fstream>
#include <sstream>

#include "app/cli/cli.h"
#include "backend/tokenizer/inspection.h"

namespace qs::cli {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error(ErrorCode::NotFound, "'" + path.string() + "' cannot be read.");
  return text.str();
}

const char* kind_name(const InspectedToken& token) {
  switch (token.kind) {
    case TokenKind::Special:
      return "special";
    case TokenKind::Unknown:
      return "unknown";
    case TokenKind::Byte:
      return "byte";
    case TokenKind::Normal:
      break;
  }
  return token.whole_characters ? "normal" : "part of a character";
}

/// On one line, whatever stands in it.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void add_tokenize(CLI::App& app, Cli& cli) {
  struct Options {
    std::string model, text, file;
    bool ids = false, plain = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("tokenize", "show how a model's tokenizer cuts a text");
  verb->add_option("model", options->model,
                   "model folder, tokenizer file or GGUF file; sample:... for the bundled ones")
      ->required();
  CLI::Option* text = verb->add_option("--text", options->text, "text to cut");
  verb->add_option("--file", options->file, "file with the text")->excludes(text);
  verb->add_flag("--ids", options->ids, "print the ids only, on one line");
  verb->add_flag("--no-special", options->plain, "read special tokens in the text as plain text");
  verb->callback([&cli, options, text] {
    cli.work = [options, given = text->count() > 0](const JobContext&) {
      if (!given && options->file.empty()) throw UsageError{"tokenize needs --text or --file."};
      const auto tokenizer = load_tokenizer(resolve_path(options->model));
      const std::string input = given ? options->text : read_file(resolve_path(options->file));
      const TokenizerInspection found = inspect_text(*tokenizer, input, {.special_tokens = !options->plain});
      Output output;
      Json tokens = Json::array(), ids = Json::array();
      Table table({"id", "bytes", "kind", "token"});
      std::string line;
      for (const InspectedToken& token : found.tokens) {
        ids.push_back(token.id);
        tokens.push_back({{"id", token.id},
                          {"text", token.text},
                          {"kind", kind_name(token)},
                          {"begin", token.begin},
                          {"end", token.end}});
        line += (line.empty() ? "" : " ") + std::to_string(token.id);
        table.row({std::to_string(token.id), std::to_string(token.begin) + ".." + std::to_string(token.end),
                   kind_name(token), quoted(token.text)});
      }
      output.json = {{"tokenizer", tokenizer->kind()},
                     {"vocab_size", tokenizer->vocab_size()},
                     {"prefix_ids", tokenizer->prefix_ids()},
                     {"suffix_ids", tokenizer->suffix_ids()},
                     {"ids", std::move(ids)},
                     {"tokens", std::move(tokens)},
                     {"exact_places", found.exact},
                     {"bytes", found.bytes},
                     {"characters", found.characters}};
      output.text = options->ids
                        ? line + "\n"
                        : table.text() + "\n" + tokenizer->kind() + ", " + std::to_string(tokenizer->vocab_size()) +
                              " tokens: " + std::to_string(found.tokens.size()) + " tokens for " +
                              std::to_string(found.characters) + " characters, " + std::to_string(found.bytes) +
                              " bytes" + (found.exact ? "" : "; the text was normalized, so places are approximate") +
                              "\n";
      return output;
    };
  });
}

}  // namespace qs::cli
