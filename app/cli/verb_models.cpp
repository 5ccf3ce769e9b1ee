#include "app/cli/cli.h"
#include "backend/model/hub_cache.h"

namespace qs::cli {

void add_models(CLI::App& app, Cli& cli) {
  auto folder = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("models", "list the models in the Hugging Face hub cache");
  verb->add_option("--cache", *folder, "another folder than HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface/hub");
  verb->callback([&cli, folder] {
    cli.work = [folder](const JobContext&) {
      const std::filesystem::path cache = folder->empty() ? hub_cache_folder() : std::filesystem::path(*folder);
      if (!folder->empty() && !std::filesystem::is_directory(cache))
        throw Error(ErrorCode::NotFound, "There is no folder '" + *folder + "'.");
      Output output{{{"cache", cache.string()}, {"models", Json::array()}}, {}};
      Table table({"model", "weights", "path"});
      for (const HubModel& model : hub_models(cache)) {
        output.json["models"].push_back({{"name", model.name},
                                         {"path", model.path.string()},
                                         {"bytes", model.bytes},
                                         {"can_open", model.can_open},
                                         {"why_not", model.why_not}});
        table.row({model.name, bytes_text(model.bytes), model.can_open ? model.path.string() : "- " + model.why_not});
      }
      output.text = output.json["models"].empty() ? "There are no models in '" + cache.string() + "'.\n" : table.text();
      return output;
    };
  });
}

}  // namespace qs::cli
