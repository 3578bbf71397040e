// Everything of one instruction set, in the order of need. No include guard: compiled once per
// instruction set, in its namespace.

// clang-format off
#include "kernels/cpu/body_vectors.h"
#include COHORT_BODY_PRODUCTS
#include "kernels/cpu/body_matmul.h"
#include "kernels/cpu/body_pointwise.h"
#include "kernels/cpu/body_attention.h"
#include "kernels/cpu/body_table.h"
// clang-format on
