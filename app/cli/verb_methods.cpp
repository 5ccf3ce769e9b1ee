#include <algorithm>

#include "app/cli/cli.h"
#include "backend/evaluation/published_numbers.h"
#include "backend/method_registry.h"

namespace qs::cli {
namespace {

const char* type_id(const ParamValue& value) {
  static constexpr const char* kIds[] = {"bool", "int", "real", "choice"};
  return kIds[value.index()];
}

Json value_json(const ParamValue& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

Json param_json(const ParamSpec& spec) {
  Json json = {{"key", spec.key},
               {"type", type_id(spec.fallback)},
               {"default", value_json(spec.fallback)},
               {"min", nullptr},
               {"max", nullptr},
               {"choices", Json::array()},
               {"unit", spec.unit},
               {"help", spec.help},
               {"label", spec.label}};
  if (const auto* range = std::get_if<IntRange>(&spec.domain)) json["min"] = range->min, json["max"] = range->max;
  if (const auto* range = std::get_if<RealRange>(&spec.domain)) json["min"] = range->min, json["max"] = range->max;
  if (const auto* choices = std::get_if<Choices>(&spec.domain)) json["choices"] = choices->values;
  return json;
}

Json method_json(const MethodInfo& method) {
  Json json = {{"id", method.id},
               {"title", method.title},
               {"family", family_id(method.family)},
               {"paper", method.paper},
               {"citation", method.citation},
               {"summary", method.summary},
               {"params", Json::array()},
               {"presets", Json::array()},
               {"needs_calibration", method.needs_calibration},
               {"runs_here", method.runs_here},
               {"why_not", method.why_not},
               {"effective_bits", method.effective_bits_formula}};
  for (const ParamSpec& spec : method.params) json["params"].push_back(param_json(spec));
  for (const Preset& preset : method.presets) {
    Json params = Json::object();
    for (const auto& [key, value] : preset.params) params[key] = value_json(value);
    json["presets"].push_back({{"label", preset.label}, {"params", params}, {"source", preset.source}});
  }
  return json;
}

Json published_json(const PublishedNumber& number) {
  const auto optional = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  return {{"label", number.label},
          {"setup", number.setup},
          {"model", number.model},
          {"metric", number.metric},
          {"data", number.data},
          {"value", number.value},
          {"value_to", optional(number.value_to)},
          {"qualifier", number.qualifier},
          {"unit", number.unit},
          {"full_precision", optional(number.baseline)},
          {"source", number.source},
          {"setting", number.setting},
          {"note", number.note},
          {"secondary_source", number.secondary}};
}

std::string published_page(const std::vector<PublishedNumber>& numbers) {
  if (numbers.empty()) return {};
  Table table({"published as", "model", "quantity", "value", "full precision", "source"});
  bool secondary = false;
  for (const PublishedNumber& number : numbers) {
    table.row({number.label, number.model, quantity_text(number), value_text(number) + (number.secondary ? " (2)" : ""),
               number.baseline ? format_value(*number.baseline) : "", number.source});
    secondary |= number.secondary;
  }
  return "\nPublished, measured elsewhere under other protocols; not comparable with numbers of this program:\n\n" +
         table.text() + (secondary ? "(2) taken from a summary, not checked against the source itself\n" : "");
}

std::string method_page(const MethodInfo& method) {
  std::string page = method.title + " (" + method.id + ", " + family_id(method.family) + ")\n" + method.summary + "\n";
  if (!method.citation.empty()) page += method.citation + (method.paper.empty() ? "" : ", " + method.paper) + "\n";
  if (!method.effective_bits_formula.empty()) page += "Effective bits: " + method.effective_bits_formula + "\n";
  if (method.needs_calibration) {
    const bool windows = method.family != MethodFamily::Kv && method.calibration_need == CalibrationNeed::TokenWindows;
    page += windows ? "Needs a calibration text, whose windows run through the model block by block.\n"
                    : "Needs a calibration: a capture or a text.\n";
  }
  if (!method.runs_here) page += "Does not run here: " + method.why_not + "\n";
  Table table({"parameter", "default", "valid", "unit", "what it does"});
  for (const ParamSpec& spec : method.params) {
    table.row({spec.key, format_value(spec.fallback), describe_domain(spec), spec.unit, spec.help});
  }
  page += "\n" + table.text();
  for (const Preset& preset : method.presets) {
    page += "\nPreset: " + preset.label + "  " +
            format_setup({method.id, with_fallbacks(method.params, preset.params)}, {method}) +
            (preset.source.empty() ? "" : "  (" + preset.source + ")");
  }
  return page + (method.presets.empty() ? "" : "\n");
}

/// The table of README.md; a test holds the two equal.
std::string markdown(const std::vector<MethodInfo>& methods) {
  std::string text =
      "| id | method | family | what it does | parameters (default) | effective bits | paper "
      "|\n|---|---|---|---|---|---|---|\n";
  for (const MethodInfo& method : methods) {
    std::string params;
    for (const ParamSpec& spec : method.params) {
      if (spec.advanced) continue;
      params += (params.empty() ? "`" : ", `") + spec.key + "=" + format_value(spec.fallback) + "`";
    }
    text += "| `" + method.id + "` | " + method.title + " | " + family_id(method.family) + " | " + method.summary +
            " | " + params + " | " + method.effective_bits_formula + " | " + method.paper + " |\n";
  }
  return text;
}

}  // namespace

void add_methods(CLI::App& app, Cli& cli) {
  struct Options {
    std::string id;
    bool markdown = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("methods", "list the methods, or explain one");
  verb->add_option("ID", options->id, "method to explain");
  verb->add_flag("--markdown", options->markdown, "print README's table");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext&) {
      std::vector<MethodInfo> methods = all_methods();
      if (!options->id.empty()) {
        std::string known;
        for (const MethodInfo& method : methods) known += (known.empty() ? "" : ", ") + method.id;
        std::erase_if(methods, [&](const MethodInfo& method) { return method.id != options->id; });
        if (methods.empty()) throw UsageError{"There is no method '" + options->id + "'; known are: " + known + "."};
      }
      Output output{Json::array(), {}};
      for (const MethodInfo& method : methods) output.json.push_back(method_json(method));
      std::vector<PublishedNumber> published;
      if (!options->id.empty()) published = read_published_numbers(resolve_path("sample:published"));
      const auto published_of = [&](const MethodInfo& method) {
        return nearest_published(published, method, method.id);
      };
      for (std::size_t i = 0; i < methods.size() && !options->id.empty(); ++i) {
        Json& rows = output.json[i]["published"] = Json::array();
        for (const PublishedNumber& number : published_of(methods[i])) rows.push_back(published_json(number));
      }
      if (options->markdown) {
        output.text = markdown(methods);
      } else if (!options->id.empty()) {
        for (const MethodInfo& method : methods)
          output.text += method_page(method) + published_page(published_of(method));
      } else {
        Table table({"id", "family", "method", "paper", "effective bits", "runs here"});
        for (const MethodInfo& method : methods) {
          table.row({method.id, family_id(method.family), method.title, method.paper, method.effective_bits_formula,
                     method.runs_here ? "yes" : "no: " + method.why_not});
        }
        output.text = table.text();
      }
      return output;
    };
  });
}

}  // namespace qs::cli
