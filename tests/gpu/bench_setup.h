// What the subcommands of cohort_gpu_bench share: models by name, tensors, and the time of a call.
#ifndef COHORT_TESTS_GPU_BENCH_SETUP_H_
#define COHORT_TESTS_GPU_BENCH_SETUP_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "runtime/model_config.h"
#include "tests/bench/flags.h"

namespace cohort::gpu {

// The flags every subcommand has: --device=cuda, --rounds=7.
Flags WithCommonFlags(Flags flags);

// A published model by its name, or the config.json of a folder. Ends the program where there is
// neither.
ModelConfig ConfigOf(const std::string& name);
// The last part of a folder's path; names stay as they are.
std::string ShortName(const std::string& model);

std::unique_ptr<Device> OpenDevice(const Flags& flags);
Tensor Allocate(Device& device, Shape shape, DType dtype);
// bf16 numbers with the deviation of trained weights.
Tensor RandomTensor(Device& device, Shape shape);
Tensor Integers(Device& device, Shape shape, const std::vector<int32_t>& numbers);

// Seconds per call of `call(i)`, which enqueues, for i from 0 to calls - 1: one number for each of
// `rounds` times all of them, recorded where the device records. Different i should touch different
// memory.
std::vector<double> SecondsPerCall(Device& device, int64_t calls, int64_t rounds,
                                   const std::function<void(int64_t)>& call);

// The subcommands.
void MeasureAttention(int argc, char** argv);  // bench_attention.cc
void MeasureProducts(int argc, char** argv);   // bench_products.cc
void MeasureExperts(int argc, char** argv);    // bench_products.cc
void MeasureDecode(int argc, char** argv);     // bench_model.cc
void MeasurePrefill(int argc, char** argv);    // bench_model.cc
void MeasureLoad(int argc, char** argv);       // bench_load.cc

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_BENCH_SETUP_H_
