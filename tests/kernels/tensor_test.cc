#include "kernels/tensor.h"

#include <gtest/gtest.h>

#include <vector>

namespace cohort {
namespace {

TEST(Shape, KnowsItsDimensions) {
  const Shape shape{3, 0, 7};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape[2], 7);
  EXPECT_EQ(shape.elements(), 0);
  EXPECT_EQ(shape.ToString(), "[3, 0, 7]");
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_TRUE((Shape{2, 3} == Shape{2, 3}));
  EXPECT_FALSE((Shape{2, 3} == Shape{2, 3, 1}));
}

TEST(DType, HasSizeAndName) {
  EXPECT_EQ(SizeOf(DType::kF32), 4);
  EXPECT_EQ(SizeOf(DType::kBF16), 2);
  EXPECT_EQ(SizeOf(DType::kI32), 4);
  EXPECT_EQ(NameOf(DType::kF32), "fp32");
  EXPECT_EQ(NameOf(DType::kBF16), "bf16");
  EXPECT_EQ(NameOf(DType::kI32), "int32");
}

TEST(TensorView, RowsAndColumnsKeepTheStride) {
  std::vector<float> storage(24);
  const TensorView whole(storage.data(), DType::kF32, Shape{4, 6});
  EXPECT_TRUE(whole.is_dense());
  const TensorView part = whole.Columns(2, 3).Rows(1, 2);
  EXPECT_TRUE((part.shape == Shape{2, 3}));
  EXPECT_EQ(part.row_stride, 6);
  EXPECT_FALSE(part.is_dense());
  EXPECT_EQ(part.Row<float>(1), storage.data() + 2 * 6 + 2);
}

TEST(TensorView, RowsKeepInnerDimensions) {
  std::vector<BFloat16> storage(2 * 3 * 4 * 5);
  const TensorView view(storage.data(), DType::kBF16, Shape{2, 3, 4, 5});
  EXPECT_EQ(view.columns(), 60);
  const TensorView last = view.Rows(1, 1);
  EXPECT_TRUE((last.shape == Shape{1, 3, 4, 5}));
  EXPECT_EQ(last.As<BFloat16>(), storage.data() + 60);
  EXPECT_EQ(view.Rows(2, 0).rows(), 0);
}

TEST(TensorView, OneDimensionHasColumnsOfOne) {
  std::vector<int32_t> storage(5);
  const TensorView view(storage.data(), DType::kI32, Shape{5});
  EXPECT_EQ(view.columns(), 1);
  EXPECT_EQ(view.Rows(3, 2).As<int32_t>(), storage.data() + 3);
}

TEST(Tensor, FreesOnceAfterMoves) {
  int freed = 0;
  float storage[6];
  {
    Tensor first(storage, DType::kF32, Shape{2, 3}, [&freed](void*) { ++freed; });
    EXPECT_EQ(first.bytes(), 24);
    Tensor second = std::move(first);
    Tensor third;
    third = std::move(second);
    EXPECT_EQ(third.view().data, storage);
    EXPECT_EQ(freed, 0);
    third = Tensor();
    EXPECT_EQ(freed, 1);
  }
  EXPECT_EQ(freed, 1);
}

TEST(TensorDeathTest, ChecksBoundsAndDTypes) {
  float storage[6];
  const TensorView view(storage, DType::kF32, Shape{2, 3});
  EXPECT_DEATH(view.Rows(1, 2), "rows 1 \\+ 2 of \\[2, 3\\]");
  EXPECT_DEATH(view.Columns(-1, 2), "columns -1");
  EXPECT_DEATH(view.As<int32_t>(), "tensor holds fp32");
  EXPECT_DEATH(Shape({1, -1}), "dimension 1 of a shape");
  EXPECT_DEATH(TensorView(storage, DType::kF32, Shape{2, 3}, 2), "overlap");
}

}  // namespace
}  // namespace cohort
