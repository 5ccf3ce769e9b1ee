#include "backend/evaluation/published_numbers.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/formats/json_file.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Json = nlohmann::json;

constexpr const char* kTexts[] = {"method", "label",     "setup",  "model",   "metric", "data",
                                  "unit",   "qualifier", "source", "setting", "note"};

[[noreturn]] void refuse(const std::string& where, const std::string& expected) {
  throw Error(ErrorCode::BadFormat, "Published numbers, " + where + ": expected " + expected + ".");
}

const Json& list_of(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) refuse(where, std::string("a list '") + key + "'");
  return *found;
}

/// Refuses fields that nobody would read and values of another type.
void check_fields(const Json& object, std::initializer_list<const char*> structure, const std::string& where) {
  if (!object.is_object()) refuse(where, "an object");
  for (const auto& [key, value] : object.items()) {
    const auto named = [&key = key](const char* name) { return key == name; };
    if (std::any_of(structure.begin(), structure.end(), named)) continue;
    if (std::any_of(std::begin(kTexts), std::end(kTexts), named)) {
      if (!value.is_string()) refuse(where, "a text as '" + key + "'");
    } else if (key == "baseline") {
      if (!value.is_number() && !value.is_null()) refuse(where, "a number or null as 'baseline'");
    } else if (key == "value" || key == "to") {
      if (!value.is_number()) refuse(where, "a number as '" + key + "'");
    } else if (key == "secondary") {
      if (!value.is_boolean()) refuse(where, "true or false as 'secondary'");
    } else {
      refuse(where, "no field '" + key + "'");
    }
  }
}

PublishedNumber number_from(const Json& fields, bool kv, const std::string& where) {
  const auto text = [&](const char* key) { return fields.value(key, std::string()); };
  PublishedNumber number{.method = text("method"),
                         .kv = kv,
                         .label = text("label"),
                         .setup = text("setup"),
                         .model = text("model"),
                         .metric = text("metric"),
                         .data = text("data"),
                         .unit = text("unit"),
                         .value_to = {},
                         .qualifier = text("qualifier"),
                         .baseline = {},
                         .source = text("source"),
                         .setting = text("setting"),
                         .note = text("note")};
  for (const char* needed : {"method", "label", "metric", "source"}) {
    if (text(needed).empty()) refuse(where, std::string("a '") + needed + "'");
  }
  if (!fields.contains("value")) refuse(where, "a 'value'");
  number.value = fields["value"].get<double>();
  if (fields.contains("to")) number.value_to = fields["to"].get<double>();
  if (number.value_to && *number.value_to <= number.value) refuse(where, "'to' above 'value'");
  if (const auto baseline = fields.find("baseline"); baseline != fields.end() && baseline->is_number())
    number.baseline = baseline->get<double>();
  number.secondary = fields.value("secondary", false);
  return number;
}

void read_table(const Json& table, bool kv, const std::string& where, std::vector<PublishedNumber>& numbers) {
  check_fields(table, {"columns", "rows"}, where);
  const Json& rows = list_of(table, "rows", where);
  const bool has_columns = table.contains("columns");
  const Json columns = has_columns ? list_of(table, "columns", where) : Json::array({Json::object()});
  for (const Json& column : columns) check_fields(column, {}, where + ", columns");
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::string row_place = where + ", row " + std::to_string(r + 1);
    check_fields(rows[r], {"values", "value"}, row_place);
    Json cells = Json::array();
    if (has_columns) {
      cells = list_of(rows[r], "values", row_place);
    } else if (rows[r].contains("value")) {
      cells.push_back(rows[r]["value"]);
    }
    if (cells.size() != columns.size())
      refuse(row_place, std::to_string(columns.size()) + " values, found " + std::to_string(cells.size()));
    for (std::size_t c = 0; c < cells.size(); ++c) {
      if (cells[c].is_null()) continue;
      const std::string place = row_place + ", value " + std::to_string(c + 1);
      if (!cells[c].is_number() && !cells[c].is_object()) refuse(place, "a number, null or an object");
      const Json cell = cells[c].is_number() ? Json{{"value", cells[c]}} : cells[c];
      check_fields(cell, {}, place);
      Json fields = table;
      fields.erase("columns");
      fields.erase("rows");
      fields.update(columns[c]);
      fields.update(rows[r]);
      fields.erase("value");
      fields.update(cell);
      numbers.push_back(number_from(fields, kv, place));
    }
  }
}

void read_file(const std::filesystem::path& path, std::vector<PublishedNumber>& numbers) {
  const Json file = parse_json_file(path);
  const std::string name = "'" + path.string() + "'";
  if (!file.is_object() || file.value("format", Json()) != "quantoscope-published")
    refuse(name, "\"format\": \"quantoscope-published\"");
  if (file.value("version", Json()) != 1) refuse(name, "\"version\": 1");
  const Json side = file.value("side", Json());
  if (side != "kv" && side != "weights") refuse(name, "\"side\": \"kv\" or \"weights\"");
  const Json& tables = list_of(file, "tables", name);
  for (std::size_t t = 0; t < tables.size(); ++t)
    read_table(tables[t], side == "kv", name + ", table " + std::to_string(t + 1), numbers);
}

}  // namespace

std::vector<PublishedNumber> read_published_numbers(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  if (files.empty())
    throw Error(ErrorCode::NotFound, "There are no published numbers in '" + folder.string() +
                                         "': the program's shared files are incomplete. Install them again.");
  std::sort(files.begin(), files.end());
  std::vector<PublishedNumber> numbers;
  for (const std::filesystem::path& file : files) read_file(file, numbers);
  return numbers;
}

}  // namespace qs
