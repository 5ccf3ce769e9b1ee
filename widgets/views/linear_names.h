#pragma once

#include <QString>
#include <string>

namespace qs {

/// "q_proj" of "self_attn.q_proj": what fits beside a plot. Names of experts stay whole.
inline QString short_linear_name(const std::string& kind) {
  const QString text = QString::fromStdString(kind);
  const bool usual = text.count(QLatin1Char('.')) == 1;
  return usual ? text.section(QLatin1Char('.'), 1) : text;
}

}  // namespace qs
