#pragma once

#include <nlohmann/json.hpp>

#include "backend/methods/golden.h"
#include "backend/types/param_spec.h"

namespace qs {

// What the runners of several KV methods share.

/// Packs runs of the last axis: i32-lsb, or i32-3bit at 3 bits.
at::Tensor pack_words(const at::Tensor& codes, int bits);

/// [B, H, T, D] as [B * H, T, D] in f32.
at::Tensor heads_of(const at::Tensor& x);

/// `compute` and `store` of a case.
ParamSet precision_params(const nlohmann::json& params);

// One function a method: its golden cases. golden_kv.cpp lists them.
GoldenRunner golden_decoquant();  // golden_decoquant.cpp
GoldenRunner golden_fp8();        // golden_fp8.cpp
GoldenRunner golden_kivi();       // golden_kivi.cpp
GoldenRunner golden_kvquant();    // golden_kvquant.cpp
GoldenRunner golden_qaq();        // golden_qaq.cpp
GoldenRunner golden_rtn();        // golden_rtn_kv.cpp
GoldenRunner golden_scope();      // golden_scope.cpp
GoldenRunner golden_skvq();       // golden_skvq.cpp

}  // namespace qs
