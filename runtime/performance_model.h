// How fast a machine can be: its limits, and the formulas that turn a step's bytes, operations and
// collectives into seconds. Predictions from published figures, not measurements of Cohort; every
// constant has its source beside it in performance_model.cc.
#ifndef COHORT_RUNTIME_PERFORMANCE_MODEL_H_
#define COHORT_RUNTIME_PERFORMANCE_MODEL_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

// One kind of device. Rates are what programs attain, not what data sheets promise.
struct Hardware {
  std::string name;                    // "H200"
  int64_t memory_bytes = 0;            // as the driver reports it
  int64_t reserve_bytes = 0;           // of these, what a rank cannot have
  double bytes_per_second = 0;         // reads of memory
  double operations_per_second = 0;    // bf16 products, multiplications and additions
  double launch_seconds = 0;           // between two kernels of a captured step
  double reduce_seconds = 0;           // of the smallest all-reduce among the ranks of one node
  double reduce_bytes_per_second = 0;  // of its message, beyond that
  double network_seconds = 0;          // what each doubling of the nodes adds to it, there and back
  double network_bytes_per_second = 0;  // of each rank
  int64_t ranks_per_node = 8;
  // Memory and rates are those of a node and shared by its ranks (the CPU), not of one rank.
  bool is_shared = false;
};

// In order of age; the CPU last.
absl::Span<const Hardware> KnownHardware();

// NOT_FOUND lists the names. Upper and lower case are the same.
absl::StatusOr<Hardware> FindHardware(StringView name);

// The same kind with another amount of memory, of which its part is reserved.
Hardware WithMemory(Hardware hardware, int64_t memory_bytes);

// What one rank does in one step.
struct StepWork {
  double bytes = 0;       // read from memory
  double operations = 0;  // multiplications and additions
  StepWork& operator+=(const StepWork& other);
  bool operator==(const StepWork&) const = default;
};

// Memory and arithmetic overlap; the slower one is what a step takes. `sharers`: ranks among whom
// the machine's rates are divided, 1 unless it is_shared.
double ComputeSeconds(const Hardware& hardware, const StepWork& work, int64_t sharers);

// The ranks of a collective and the nodes that they are spread over.
struct Spread {
  int64_t ranks = 1;
  int64_t nodes = 1;
};

// Of a message of `bytes` per rank; 0 for one rank.
double AllReduceSeconds(const Hardware& hardware, const Spread& spread, double bytes);

// Every rank sends `bytes` in all to the others; 0 for one rank.
double AllToAllSeconds(const Hardware& hardware, const Spread& spread, double bytes);

// Distinct experts that `tokens` tokens choose, on average: each takes `chosen` of `experts`.
double DistinctExperts(int64_t experts, int64_t chosen, double tokens);

// Groups that hold at least one of the `chosen` experts of a token, on average.
double GroupsOfOneToken(absl::Span<const int64_t> groups, int64_t chosen);

// Of `drawn` distinct experts of all, as many as fall on the group that gets most of them, on
// average. `groups`: experts of each group. With one group all of them.
//   8 of 64 on 8 groups of 8: 2.46 instead of the mean of 1.
double BusiestGroupExperts(absl::Span<const int64_t> groups, int64_t drawn);

}  // namespace cohort

#endif  // COHORT_RUNTIME_PERFORMANCE_MODEL_H_
