// Tensors: TensorView borrows memory and is trivially copyable; Tensor owns it and only moves.
#ifndef COHORT_KERNELS_TENSOR_H_
#define COHORT_KERNELS_TENSOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>

#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "kernels/status.h"

namespace cohort {

enum class DType : uint8_t { kF32 = 0, kBF16 = 1, kI32 = 2 };

int64_t SizeOf(DType dtype);     // bytes of one element
StringView NameOf(DType dtype);  // "fp32", "bf16", "int32"

template <class T>
constexpr DType DTypeOf();
template <>
constexpr DType DTypeOf<float>() {
  return DType::kF32;
}
template <>
constexpr DType DTypeOf<BFloat16>() {
  return DType::kBF16;
}
template <>
constexpr DType DTypeOf<int32_t>() {
  return DType::kI32;
}

// Up to four dimensions, outermost first. A dimension may be 0 (an empty tensor).
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);  // NOLINT: {rows, columns} reads well

  int rank() const { return rank_; }
  int64_t operator[](int axis) const;
  int64_t elements() const;  // product; 1 for rank 0
  bool operator==(const Shape& other) const;
  std::string ToString() const;  // "[3, 896]"

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};
};

// A borrowed, row-major tensor. Rows (index 0 of the shape) may lie `row_stride` elements apart;
// everything inside a row is dense.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t row_stride = 0;  // elements

  TensorView() = default;
  TensorView(void* data, DType dtype, Shape shape);  // dense
  TensorView(void* data, DType dtype, Shape shape, int64_t row_stride);

  int64_t rows() const { return shape[0]; }
  int64_t columns() const;  // elements of one row
  bool is_dense() const { return row_stride == columns(); }

  // Rows [begin, begin + count).
  TensorView Rows(int64_t begin, int64_t count) const;
  // Columns [begin, begin + count) of every row, as a 2-dimensional view.
  TensorView Columns(int64_t begin, int64_t count) const;

  template <class T>
  T* As() const {
    CHECK(dtype == DTypeOf<T>()) << "tensor holds " << NameOf(dtype);
    return static_cast<T*>(data);
  }
  template <class T>
  T* Row(int64_t row) const {
    return As<T>() + row * row_stride;
  }
};

// Owns device memory; frees it through the deleter its Device gave it.
class Tensor {
 public:
  using Deleter = std::function<void(void*)>;

  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Deleter deleter);
  ~Tensor();
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  const TensorView& view() const { return view_; }
  int64_t bytes() const { return view_.shape.elements() * SizeOf(view_.dtype); }

 private:
  TensorView view_;
  Deleter deleter_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_TENSOR_H_
