#include "parallel/exchange_shape.h"

#include "kernels/check.h"

namespace cohort {

void CheckExchangeShapes(int size, const ExchangeView& send, const ExchangeView& receive) {
  for (const ExchangeView* view : {&send, &receive}) {
    CHECK(view->counts.dtype == DType::kI32) << "AllToAll counts of " << NameOf(view->counts.dtype);
    CHECK_EQ(view->counts.shape.elements(), size) << "AllToAll counts";
    CHECK_EQ(view->rows.rows() % size, 0) << "AllToAll rows";
    CHECK(view->rows.is_dense() && view->counts.is_dense()) << "AllToAll of strided rows";
  }
  CHECK_EQ(send.rows.rows(), receive.rows.rows()) << "AllToAll rows";
  CHECK_EQ(send.rows.columns(), receive.rows.columns()) << "AllToAll columns";
  CHECK(send.rows.dtype == receive.rows.dtype)
      << "AllToAll of " << NameOf(send.rows.dtype) << " into " << NameOf(receive.rows.dtype);
}

}  // namespace cohort
