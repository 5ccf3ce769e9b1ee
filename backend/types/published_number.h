#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/types/method_info.h"

namespace qs {

/// One number of a paper or repository, to be read beside our own. It was measured elsewhere: another model, text and
/// program, so that it is never drawn on one axis with ours.
struct PublishedNumber {
  std::string method;              ///< MethodInfo::id
  bool kv = true;                  ///< the method's side: KV cache, or weights and activations
  std::string label;               ///< as the source calls the setting: "nuq3-1%"
  std::string setup;               ///< the setup line that stands for it here; empty when there is none
  std::string model;               ///< empty when the source names none
  std::string metric, data, unit;  ///< "accuracy", "LAMBADA", "%"
  double value = 0.0;
  std::optional<double> value_to;  ///< upper end of a published range
  std::string qualifier;           ///< "up to", "about", "near", "below", or empty
  std::optional<double> baseline;  ///< of full precision in the same source
  std::string source, setting, note;
  bool secondary = false;  ///< taken from summaries and not checked against the source itself
};

/// "7.27", "0.68 – 0.76", "up to 7 ×".
std::string value_text(const PublishedNumber& number);
/// "perplexity, WikiText-2"
std::string quantity_text(const PublishedNumber& number);

/// Those of a method, the ones whose setup line is nearest to `setup_line` first: fewer parameters that differ, then
/// as they stand; rows without a setup line last.
/// @param setup_line  may be one that cannot be read; then the order stays
std::vector<PublishedNumber> nearest_published(const std::vector<PublishedNumber>& numbers, const MethodInfo& method,
                                               const std::string& setup_line);

}  // namespace qs
