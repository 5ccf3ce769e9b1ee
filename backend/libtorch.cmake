# Finds LibTorch and imports it by hand as the target `qs_torch`.
#
# find_package(Torch) of a CUDA wheel insists on a CUDA toolkit (pytorch/pytorch#73427) although only libtorch_cpu.so and
# libc10.so are needed here, so the two libraries are imported directly. Order: Torch_DIR and CMAKE_PREFIX_PATH; the copy
# that scripts/setup unpacks into the user's cache folder; Debian's libtorch-dev.
set(QUANTOSCOPE_TORCH_WHEEL_VERSION 2.11.0)

set(candidates "")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND candidates ${prefix} ${prefix}/torch ${prefix}/libtorch)
endforeach()
string(REPLACE ":" ";" environment_prefixes "$ENV{CMAKE_PREFIX_PATH}")
foreach(prefix IN LISTS environment_prefixes)
  list(APPEND candidates ${prefix} ${prefix}/torch ${prefix}/libtorch)
endforeach()
foreach(dir "${Torch_DIR}" "$ENV{Torch_DIR}")
  if(dir)
    cmake_path(ABSOLUTE_PATH dir NORMALIZE)
    list(APPEND candidates ${dir} ${dir}/../../.. ${dir}/../../../..)
  endif()
endforeach()
if(DEFINED ENV{XDG_CACHE_HOME})
  list(APPEND candidates $ENV{XDG_CACHE_HOME}/quantoscope/libtorch-${QUANTOSCOPE_TORCH_WHEEL_VERSION}/torch)
else()
  list(APPEND candidates $ENV{HOME}/.cache/quantoscope/libtorch-${QUANTOSCOPE_TORCH_WHEEL_VERSION}/torch)
endif()
list(APPEND candidates /usr)

unset(QUANTOSCOPE_TORCH_PREFIX)
foreach(prefix IN LISTS candidates)
  if(NOT EXISTS ${prefix}/include/ATen/ATen.h)
    continue()
  endif()
  unset(torch_cpu_library)
  unset(c10_library)
  foreach(libdir lib lib/${CMAKE_LIBRARY_ARCHITECTURE})
    if(EXISTS ${prefix}/${libdir}/libtorch_cpu.so AND EXISTS ${prefix}/${libdir}/libc10.so)
      set(torch_cpu_library ${prefix}/${libdir}/libtorch_cpu.so)
      set(c10_library ${prefix}/${libdir}/libc10.so)
      break()
    endif()
  endforeach()
  if(torch_cpu_library)
    cmake_path(SET QUANTOSCOPE_TORCH_PREFIX NORMALIZE ${prefix})
    break()
  endif()
endforeach()
if(NOT QUANTOSCOPE_TORCH_PREFIX)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup, or name a copy with -DCMAKE_PREFIX_PATH=... . Looked in: ${candidates}")
endif()

set(version_file ${QUANTOSCOPE_TORCH_PREFIX}/include/torch/csrc/api/include/torch/version.h)
if(EXISTS ${QUANTOSCOPE_TORCH_PREFIX}/include/torch/headeronly/version.h)   # since 2.9 the numbers live here
  set(version_file ${QUANTOSCOPE_TORCH_PREFIX}/include/torch/headeronly/version.h)
endif()
file(STRINGS ${version_file} version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^;0-9]" "" version_numbers "${version_lines}")
string(REPLACE ";" "." QUANTOSCOPE_TORCH_VERSION "${version_numbers}")

add_library(qs_c10 SHARED IMPORTED)
set_target_properties(qs_c10 PROPERTIES IMPORTED_LOCATION ${c10_library})
add_library(qs_torch_cpu SHARED IMPORTED)
set_target_properties(qs_torch_cpu PROPERTIES IMPORTED_LOCATION ${torch_cpu_library})
target_include_directories(qs_torch_cpu SYSTEM INTERFACE
  ${QUANTOSCOPE_TORCH_PREFIX}/include ${QUANTOSCOPE_TORCH_PREFIX}/include/torch/csrc/api/include)
target_link_libraries(qs_torch_cpu INTERFACE qs_c10)

# What torch-using code links. ATen's parallel_for is a template that needs OpenMP where it is instantiated.
add_library(qs_torch INTERFACE)
target_link_libraries(qs_torch INTERFACE qs_torch_cpu OpenMP::OpenMP_CXX)
# libtorch_cpu.so of a CUDA wheel names CUDA's run-time libraries; they are found at run time by its own search path.
target_link_options(qs_torch INTERFACE -Wl,--allow-shlib-undefined)
target_compile_definitions(qs_torch INTERFACE QS_TORCH_VERSION="${QUANTOSCOPE_TORCH_VERSION}")
