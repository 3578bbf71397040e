// RoutedFfn: which kernels compute a step, and where its lists and products lie.
#include <algorithm>

#include "kernels/cuda/entries.h"
#include "kernels/cuda/experts.cuh"

namespace cohort::cuda {
namespace {

// Tiles of 64 rows while an expert gets fewer rows than this on average.
constexpr int64_t kRowsForLargeTiles = 96;

enum class Way { kPlain, kStream, kTiles, kWarpgroups };

bool IsAligned(const CohortCudaTensor& tensor) {
  return tensor.row_stride % 8 == 0 && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
}

Way ChooseWay(const CohortCudaDevice* device, const CohortCudaTensor& x,
              const CohortCudaExperts& experts, const CohortCudaExpertScratch& scratch) {
  const int64_t hidden = experts.down.dims[1];
  const int64_t columns = experts.down.dims[2];
  if (x.dtype != kCohortCudaBF16 || device->compute < 80 || hidden % 8 != 0 || columns % 8 != 0 ||
      !IsAligned(x) || !IsAligned(experts.gate_up) || !IsAligned(experts.down) ||
      !IsAligned(scratch.activated) || !IsAligned(scratch.gate_up)) {
    return Way::kPlain;
  }
  if (x.dims[0] <= kStreamRows) {
    return Way::kStream;
  }
  return device->has_wgmma ? Way::kWarpgroups : Way::kTiles;
}

int TileRows(Way way, const ExpertShape& shape) {
  switch (way) {
    case Way::kPlain:
      return kPlainTileRows;
    case Way::kStream:
      return StreamTileRows(shape.rows);
    case Way::kWarpgroups:
      return kWarpgroupTileRows;
    default:
      return shape.pairs() < shape.experts * kRowsForLargeTiles ? 64 : 128;
  }
}

template <class T>
T* Take(unsigned char*& memory, int64_t count) {
  T* const taken = reinterpret_cast<T*>(memory);
  memory += (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
  return taken;
}

// The lists lie at the beginning of the device's workspace; returns the end of them.
unsigned char* PlaceLists(const CohortCudaDevice* device, const ExpertShape& shape,
                          ExpertLists& lists) {
  auto* memory = static_cast<unsigned char*>(device->workspace);
  lists.row_of_pair = Take<int32_t>(memory, shape.pairs());
  lists.pair_of_slot = Take<int32_t>(memory, shape.pairs());
  lists.weight_of_slot = Take<float>(memory, shape.pairs());
  lists.tiles = Take<ExpertTile>(memory, shape.tile_bound());
  lists.tile_count = Take<int32_t>(memory, 1);
  return memory;
}

// Where the products of the down matrices lie before they are summed, and how many columns of the
// result fit there.
struct ProductRoom {
  float* data;
  int64_t features;
};

// The rest of the workspace, or the scratch of the gate and up sums, which no kernel here needs:
// whatever is larger. Whole tiles where it must be cut.
ProductRoom FindRoom(const CohortCudaDevice* device, unsigned char* after_lists,
                     const ExpertShape& shape, const CohortCudaTensor& scratch, int64_t hidden) {
  const int64_t of_workspace =
      static_cast<unsigned char*>(device->workspace) + kWorkspaceBytes - after_lists;
  const int64_t of_scratch =
      shape.pairs() * scratch.dims[1] * (scratch.dtype == kCohortCudaBF16 ? 2 : 4);
  const bool in_workspace = of_workspace >= of_scratch || scratch.row_stride != scratch.dims[1];
  void* const data = in_workspace ? static_cast<void*>(after_lists) : scratch.data;
  int64_t features = (in_workspace ? of_workspace : of_scratch) / (4 * shape.pairs());
  const int64_t whole = features < 128 ? 8 : 128;
  features = features < hidden ? features / whole * whole : hidden;
  return {static_cast<float*>(data), features};
}

// Some columns of a matrix.
CohortCudaTensor Columns(const CohortCudaTensor& matrix, int64_t begin, int64_t count) {
  CohortCudaTensor columns = matrix;
  columns.data = static_cast<float*>(matrix.data) + begin;
  columns.dims[1] = count;
  return columns;
}

template <bool kGated, class T>
void Multiply(CohortCudaDevice* device, Way way, const ExpertProduct<T>& product,
              const ExpertShape& shape, const ExpertLists& lists) {
  if constexpr (sizeof(T) == sizeof(BFloat16)) {
    if (way == Way::kStream) {
      return StreamExperts<kGated>(device, product, shape, lists);
    }
    if (way == Way::kTiles) {
      return TileExperts<kGated>(device, product, shape, lists);
    }
    if (way == Way::kWarpgroups) {
      return WgmmaExperts<kGated>(device, product, shape, lists);
    }
  }
  PlainExperts<kGated, T>(device, product, shape, lists);
}

template <class T>
void RunExperts(CohortCudaDevice* device, Way way, const CohortCudaTensor& x,
                const CohortCudaExperts& experts, const CohortCudaExpertScratch& scratch,
                const ExpertShape& shape, const ExpertLists& lists, const ProductRoom& room,
                const CohortCudaTensor& out) {
  const int64_t hidden = experts.down.dims[1];
  const int64_t columns = experts.down.dims[2];
  const ExpertProduct<T> gate_up = {.x = RowsOf<const T>(x),
                                    .row_of_pair = lists.row_of_pair,
                                    .weights = static_cast<const T*>(experts.gate_up.data),
                                    .expert_stride = experts.gate_up.row_stride,
                                    .up_offset = columns * hidden,
                                    .inputs = static_cast<int32_t>(hidden),
                                    .features = static_cast<int32_t>(columns),
                                    .out = scratch.activated.data,
                                    .out_stride = scratch.activated.row_stride};
  Multiply<true>(device, way, gate_up, shape, lists);
  for (int64_t begin = 0; begin < hidden; begin += room.features) {
    const int64_t features = std::min(room.features, hidden - begin);
    const ExpertProduct<T> down = {
        .x = RowsOf<const T>(scratch.activated),
        .row_of_pair = nullptr,
        .weights = static_cast<const T*>(experts.down.data) + begin * columns,
        .expert_stride = experts.down.row_stride,
        .up_offset = 0,
        .inputs = static_cast<int32_t>(columns),
        .features = static_cast<int32_t>(features),
        .out = room.data,
        .out_stride = features};
    Multiply<false>(device, way, down, shape, lists);
    CombinePairs(device, lists, shape.slots, room.data, Columns(out, begin, features));
  }
}

}  // namespace

void RoutedFfn(CohortCudaDevice* device, const CohortCudaTensor* x,
               const CohortCudaRouting* routing, const CohortCudaExperts* experts,
               const CohortCudaExpertScratch* scratch, const CohortCudaTensor* out) noexcept {
  if (out->dims[0] == 0 || out->dims[1] == 0) {
    return;
  }
  Activate(device);
  ExpertShape shape = {.rows = x->dims[0],
                       .slots = std::min(routing->ids.dims[1], experts->down.dims[0]),
                       .experts = experts->down.dims[0],
                       .first_expert = experts->first,
                       .tile_rows = kPlainTileRows,
                       .tile_step = kPlainTileRows};
  if (shape.slots == 0 || experts->down.dims[2] == 0) {
    CombinePairs(device, {}, 0, nullptr, *out);
    return;
  }
  const Way way = ChooseWay(device, *x, *experts, *scratch);
  shape.tile_rows = TileRows(way, shape);
  shape.tile_step = way == Way::kWarpgroups ? kWarpgroupTileStep : shape.tile_rows;
  // Every pair has 12 bytes in the lists; a step that is far too large must not overflow below.
  constexpr int64_t kMostPairs = static_cast<int64_t>(kWorkspaceBytes) / 16;
  ExpertLists lists = {};
  ProductRoom room = {};
  if (shape.pairs() <= kMostPairs && shape.experts <= kMostExperts) {
    unsigned char* const after_lists = PlaceLists(device, shape, lists);
    room = FindRoom(device, after_lists, shape, scratch->gate_up, out->dims[1]);
  }
  if (room.features == 0) {
    Stick(device,
          MakeError(kCohortCudaInvalidArgument,
                    "%lld rows with %lld of %lld experts each are too many for one step: "
                    "at most %lld pairs and %lld experts",
                    static_cast<long long>(shape.rows), static_cast<long long>(shape.slots),
                    static_cast<long long>(shape.experts), static_cast<long long>(kMostPairs),
                    static_cast<long long>(kMostExperts)));
    return;
  }
  GroupPairs(device, *routing, shape, lists);
  WithActivation(x->dtype, [&](auto tag) {
    RunExperts<typename decltype(tag)::type>(device, way, *x, *experts, *scratch, shape, lists,
                                             room, *out);
  });
}

}  // namespace cohort::cuda
