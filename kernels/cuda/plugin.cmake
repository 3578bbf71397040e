# libcohort_cuda.so: built where nvcc, cuBLASLt and NCCL are found, else one line and nothing.
# Opened with dlopen by kernels/plugin_library.cc; nothing links it.
include(CheckLanguage)
set(COHORT_CUDA_ARCHITECTURES "90a-real;90-virtual" CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the plugin")

# Sets `result` to what is missing, empty when the plugin can be built.
function(cohort_cuda_missing result)
  set(${result} "" PARENT_SCOPE)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(${result} "nvcc" PARENT_SCOPE)
    return()
  endif()
  find_package(CUDAToolkit QUIET)
  if(NOT TARGET CUDA::cublasLt)
    set(${result} "cuBLASLt" PARENT_SCOPE)
    return()
  endif()
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
    set(${result} "NCCL" PARENT_SCOPE)
  endif()
endfunction()

# nvcc takes no -fsanitize; those builds are about the code of the CPU.
if(COHORT_SANITIZE)
  message(STATUS "CUDA plugin: not built with COHORT_SANITIZE")
  return()
endif()
# check_language looks for nvcc on PATH only.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(COHORT_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(COHORT_NVCC)
    set(CMAKE_CUDA_COMPILER ${COHORT_NVCC})
  endif()
endif()
cohort_cuda_missing(missing)
if(missing)
  message(STATUS "CUDA plugin: not built, ${missing} not found (--device cuda will say so)")
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES ${COHORT_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 knows no C++20 flag of this nvcc and drops the standard without a word.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()

file(GLOB cohort_cuda_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cc ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
add_library(cohort_cuda MODULE ${cohort_cuda_sources})
# The rules of sampling are the CPU's own constexpr code, and no product may be fused with a sum.
file(GLOB cohort_cuda_exact CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/cuda/candidates*.cu ${PROJECT_SOURCE_DIR}/kernels/cuda/sampling*.cu)
set_source_files_properties(${cohort_cuda_exact} PROPERTIES
  COMPILE_OPTIONS "--expt-relaxed-constexpr;--fmad=false")
# The rule of random weights is the core's own constexpr code.
set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cuda/fill.cu PROPERTIES
  COMPILE_OPTIONS "--expt-relaxed-constexpr")
set_target_properties(cohort_cuda PROPERTIES
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  CUDA_RUNTIME_LIBRARY Static
  CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
  BUILD_RPATH "$ORIGIN;${CUDAToolkit_LIBRARY_DIR};/usr/local/cuda/lib64"
  INSTALL_RPATH "$ORIGIN;/usr/local/cuda/lib64")
target_include_directories(cohort_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(cohort_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} ${NCCL_INCLUDE_DIR})
# nvcc's own host stubs do not survive -Wpedantic.
target_compile_options(cohort_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror -Werror=all-warnings -Xptxas=-v>)
# Keeps the registers, shared memory and spills of every kernel beside its object.
set(cohort_cuda_launcher bash ${PROJECT_SOURCE_DIR}/kernels/cuda/compile.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})
set_target_properties(cohort_cuda PROPERTIES CUDA_COMPILER_LAUNCHER "${cohort_cuda_launcher}")
target_link_libraries(cohort_cuda PRIVATE cohort_warnings CUDA::cudart_static CUDA::cublasLt ${NCCL_LIBRARY} Threads::Threads)
# Static libraries of the toolkit and of the compiler keep their symbols to themselves.
target_link_options(cohort_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined -Wl,--as-needed
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/kernels/cuda/exports.map)
set_property(TARGET cohort_cuda PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/exports.map)
message(STATUS "CUDA plugin: CUDA ${CUDAToolkit_VERSION}, NCCL ${NCCL_LIBRARY}, architectures ${COHORT_CUDA_ARCHITECTURES}")
