// Graphs: a capture's operations, replayed in order.
#include <algorithm>

#include "runtime.h"

using cuda_emulator::Operation;
using cuda_emulator::Return;

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const auto& node : exec->nodes) {
    if (const cudaError_t result = cuda_emulator::Enqueue(stream, node->operation);
        result != cudaSuccess) {
      return Return(result);
    }
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

// A graph of the same nodes takes the place of the old one.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  *info = {};
  const bool is_same = std::equal(
      exec->nodes.begin(), exec->nodes.end(), graph->nodes.begin(), graph->nodes.end(),
      [](const auto& a, const auto& b) { return a->operation.type == b->operation.type; });
  if (!is_same) {
    info->result = cudaGraphExecUpdateErrorTopologyChanged;
    return Return(cudaErrorGraphExecUpdateFailure);
  }
  exec->nodes = graph->nodes;
  info->result = cudaGraphExecUpdateSuccess;
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (nodes != nullptr) {
    *count = std::min(*count, graph->nodes.size());
    std::transform(graph->nodes.begin(), graph->nodes.begin() + static_cast<ptrdiff_t>(*count),
                   nodes, [](const auto& node) { return node.get(); });
  } else {
    *count = graph->nodes.size();
  }
  return cudaSuccess;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  *type = node->operation.type;
  return cudaSuccess;
}

// A chain: each node depends on the one before it.
cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              cudaGraphEdgeData* data, size_t* count) {
  const size_t edges = graph->nodes.empty() ? 0 : graph->nodes.size() - 1;
  if (from == nullptr) {
    *count = edges;
    return cudaSuccess;
  }
  *count = std::min(*count, edges);
  for (size_t i = 0; i < *count; ++i) {
    from[i] = graph->nodes[i].get();
    to[i] = graph->nodes[i + 1].get();
    if (data != nullptr) {
      const bool is_programmatic =
          to[i]->operation.is_programmatic && from[i]->operation.type == cudaGraphNodeTypeKernel;
      data[i] = {};
      data[i].type =
          is_programmatic ? cudaGraphDependencyTypeProgrammatic : cudaGraphDependencyTypeDefault;
      data[i].from_port =
          is_programmatic ? cudaGraphKernelNodePortProgrammatic : cudaGraphKernelNodePortDefault;
    }
  }
  return cudaSuccess;
}

}  // extern "C"
