#pragma once

#include <filesystem>
#include <vector>

#include "backend/types/published_number.h"

namespace qs {

/// Reads every *.json of a folder, in order of their names. A file is a list of tables; what a cell lacks it takes from
/// its row, then its column, then its table, so that a table looks like the printed one:
///
///     {"format": "quantoscope-published", "version": 1, "side": "kv" | "weights", "tables": [
///       {"source": "...", "metric": "perplexity", "columns": [{"data": "C4", "baseline": 10.34}, ...],
///        "rows": [{"method": "kivi", "label": "KIVI-2", "setup": "kivi", "values": [12.40, null, {"value": 1, "to":
///        2}]}]}]}
///
/// Fields are those of PublishedNumber, `to` its value_to. A table without columns has one `value` a row. null is a
/// number that was not published.
/// @throws Error BadFormat naming file, table, row and field; NotFound when the folder has no such file
std::vector<PublishedNumber> read_published_numbers(const std::filesystem::path& folder);

}  // namespace qs
