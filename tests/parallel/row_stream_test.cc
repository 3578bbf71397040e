#include "parallel/row_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace cohort {
namespace {

// Two rows of three columns, four apart: {0, 1, 2, -, 4, 5, 6, -}.
TensorView Strided(std::vector<float>& memory) {
  return TensorView(memory.data(), DType::kF32, {2, 3}, 4);
}

std::byte* Bytes(std::vector<float>& values) { return reinterpret_cast<std::byte*>(values.data()); }

TEST(RowStream, PacksAnyPieceAcrossRows) {
  std::vector<float> memory = {0, 1, 2, -1, 4, 5, 6, -1};
  const std::vector<float> stream = {0, 1, 2, 4, 5, 6};
  for (size_t begin = 0; begin <= stream.size(); ++begin) {
    for (size_t end = begin; end <= stream.size(); ++end) {
      std::vector<float> piece(end - begin);
      PackRows(Strided(memory), begin, end - begin, Bytes(piece));
      EXPECT_EQ(piece, std::vector<float>(stream.begin() + begin, stream.begin() + end));
    }
  }
}

TEST(RowStream, UnpacksWhereItWasPackedAndNowhereElse) {
  std::vector<float> stream = {2, 4, 5};
  std::vector<float> memory(8, -1);
  UnpackRows(Bytes(stream), Strided(memory), 2, 3);
  EXPECT_EQ(memory, (std::vector<float>{-1, -1, 2, -1, 4, 5, -1, -1}));
}

TEST(RowStream, CopiesRowsOfDifferentStrides) {
  std::vector<float> memory = {0, 1, 2, -1, 4, 5, 6, -1};
  std::vector<float> dense(6);
  CopyRows(Strided(memory), TensorView(dense.data(), DType::kF32, {2, 3}));
  EXPECT_EQ(dense, (std::vector<float>{0, 1, 2, 4, 5, 6}));
  CopyRows(TensorView(nullptr, DType::kF32, {2, 0}), TensorView(nullptr, DType::kF32, {2, 0}));
}

}  // namespace
}  // namespace cohort
