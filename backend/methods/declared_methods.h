#pragma once

#include "backend/method.h"

namespace qs {

// One function a method: its declaration and how it is made. method_registry.cpp lists them.
KvMethodEntry decoquant_method();        // decoquant.cpp
KvMethodEntry kivi_method();             // kivi.cpp
KvMethodEntry kvquant_method();          // kvquant_method.cpp
KvMethodEntry qaq_method();              // qaq.cpp
KvMethodEntry rtn_kv_method();           // rtn_kv.cpp
KvMethodEntry skvq_method();             // skvq_method.cpp
KvMethodEntry scope_method();            // scope.cpp
WeightMethodEntry bcq_method();          // bcq_method.cpp
WeightMethodEntry gptq_method();         // gptq_method.cpp
WeightMethodEntry rtn_weight_method();   // rtn_weight.cpp
WeightMethodEntry smoothquant_method();  // smoothquant.cpp
WeightMethodEntry spqr_method();         // spqr_method.cpp
WeightMethodEntry absmax_method();       // absmax_method.cpp
WeightMethodEntry zeroquant_method();    // zeroquant_method.cpp

}  // namespace qs
