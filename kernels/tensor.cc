#include "kernels/tensor.h"

#include "absl/strings/str_join.h"

namespace cohort {

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
      return 2;
  }
  CHECK(false) << "dtype " << static_cast<int>(dtype) << " has no size";
  return 0;
}

StringView NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "fp32";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "int32";
  }
  CHECK(false) << "dtype " << static_cast<int>(dtype) << " has no name";
  return "";
}

Shape::Shape(std::initializer_list<int64_t> dims) {
  CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank)) << "dimensions of a shape";
  for (const int64_t dim : dims) {
    CHECK_GE(dim, 0) << "dimension " << rank_ << " of a shape";
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
}

int64_t Shape::operator[](int axis) const {
  CHECK(axis >= 0 && axis < rank_) << "axis " << axis << " of " << ToString();
  return dims_[static_cast<size_t>(axis)];
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int axis = 0; axis < rank_; ++axis) {
    CHECK(!__builtin_mul_overflow(product, (*this)[axis], &product))
        << "elements of " << ToString() << " overflow";
  }
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && dims_ == other.dims_;
}

std::string Shape::ToString() const {
  return absl::StrCat("[", absl::StrJoin(dims_.begin(), dims_.begin() + rank_, ", "), "]");
}

TensorView::TensorView(void* view_data, DType view_dtype, Shape view_shape)
    : data(view_data), dtype(view_dtype), shape(view_shape), row_stride(columns()) {}

TensorView::TensorView(void* view_data, DType view_dtype, Shape view_shape, int64_t view_row_stride)
    : data(view_data), dtype(view_dtype), shape(view_shape), row_stride(view_row_stride) {
  CHECK_GE(row_stride, columns()) << "rows of " << shape.ToString() << " overlap";
}

int64_t TensorView::columns() const {
  int64_t product = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) {
    product *= shape[axis];
  }
  return product;
}

TensorView TensorView::Rows(int64_t begin, int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin <= rows() - count)
      << "rows " << begin << " + " << count << " of " << shape.ToString();
  TensorView result = *this;
  result.data = static_cast<char*>(data) + begin * row_stride * SizeOf(dtype);
  switch (shape.rank()) {
    case 1:
      result.shape = Shape{count};
      break;
    case 2:
      result.shape = Shape{count, shape[1]};
      break;
    case 3:
      result.shape = Shape{count, shape[1], shape[2]};
      break;
    default:
      result.shape = Shape{count, shape[1], shape[2], shape[3]};
  }
  return result;
}

TensorView TensorView::Columns(int64_t begin, int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin <= columns() - count)
      << "columns " << begin << " + " << count << " of " << shape.ToString();
  return TensorView(static_cast<char*>(data) + begin * SizeOf(dtype), dtype, Shape{rows(), count},
                    row_stride);
}

Tensor::Tensor(void* data, DType dtype, Shape shape, Deleter deleter)
    : view_(data, dtype, shape), deleter_(std::move(deleter)) {}

Tensor::~Tensor() {
  if (deleter_) {
    deleter_(view_.data);
  }
}

Tensor::Tensor(Tensor&& other) noexcept
    : view_(std::exchange(other.view_, TensorView())),
      deleter_(std::exchange(other.deleter_, nullptr)) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  if (this != &other) {
    if (deleter_) {
      deleter_(view_.data);
    }
    view_ = std::exchange(other.view_, TensorView());
    deleter_ = std::exchange(other.deleter_, nullptr);
  }
  return *this;
}

}  // namespace cohort
