#include "backend/formats/json_file.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "backend/formats/mapped_file.h"
#include "backend/formats/printable.h"
#include "backend/types/error.h"

namespace qs {

using Json = nlohmann::json;

Json parse_json(std::string_view text, const std::string& where, int max_depth) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > max_depth)
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "' is nested deeper than " + std::to_string(max_depth) + " levels.");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw Error(ErrorCode::BadFormat, "'" + where + "' names '" + printable(parsed.get<std::string>()) + "' twice.");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::parse_error& e) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "' is not JSON: it goes wrong at byte " + std::to_string(e.byte) +
                    ". The file may be damaged; download it again.",
                e.what());
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::BadFormat, "'" + where + "' is not JSON. The file may be damaged; download it again.",
                e.what());
  }
}

Json parse_json_file(const std::filesystem::path& path, int max_depth) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), max_depth);
}

}  // namespace qs
