#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/types/job.h"

namespace qs {

class CaptureReader;
class Workbench;

/// What the inspector shows of one layer tensor: statistics of the original, and the self-check of two KV setups.
struct InspectionRequest {
  std::int64_t layer = 0;
  std::string tensor;      ///< key, key_pre_rope, value
  std::string kv_a, kv_b;  ///< setup lines; empty is full precision
};
struct InspectionRow {
  std::string name;
  std::optional<double> a, b;
  std::string help = {};  ///< what it says, where the name does not
};
struct Inspection {
  std::vector<InspectionRow> rows;
  std::string
      warning;  ///< reconstruction and functional error that rank A and B differently, or a self-check's complaint
};

/// Calibrated setups take the calibration that the workbench remembers. Rows that are 0 on both sides are left out of
/// the bytes by part. @throws Error as apply_to_capture
Inspection inspect_tensor(const Workbench& workbench, CaptureReader& capture, const InspectionRequest& request,
                          const JobContext& job);

/// Bits a cached element costs at `tokens` tokens by the formula, mean over the layers; 16 for an empty line.
double kv_effective_bits(const std::string& kv, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                         std::int64_t tokens, std::int64_t layers);

}  // namespace qs
