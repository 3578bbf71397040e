# The benchmark of the kernels in a whole model; compiled with every test build so that it keeps
# compiling. Included from tests/CMakeLists.txt.
add_executable(kernel_model_bench bench/kernel_model_bench.cc bench/kernel_bandwidth.cc)
target_link_libraries(kernel_model_bench PRIVATE cohort_runtime cohort_warnings)
add_executable(kernel_matmul_bench bench/kernel_matmul_bench.cc bench/kernel_bandwidth.cc)
target_link_libraries(kernel_matmul_bench PRIVATE cohort_kernels cohort_warnings)
add_executable(kernel_attention_bench bench/kernel_attention_bench.cc bench/kernel_bandwidth.cc)
target_link_libraries(kernel_attention_bench PRIVATE cohort_kernels cohort_warnings)
add_executable(kernel_expert_bench bench/kernel_expert_bench.cc bench/kernel_bandwidth.cc)
target_link_libraries(kernel_expert_bench PRIVATE cohort_kernels cohort_warnings)
