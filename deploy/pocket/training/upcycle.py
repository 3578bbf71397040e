"""The mixture-of-experts model's start: the weights of the dense one, its MLP dealt out to the experts."""

import torch
from model import CONFIG, MOE_CONFIG


def from_dense(dense, seed=1):
    """state_dict of the MoE model from that of the dense one.

    The shared expert gets the first columns of each MLP, the experts a random draw of the others each. Their
    down-projections make up for the routing weights (about one sixteenth) and the shared gate (one half) at the start.
    """
    random = torch.Generator().manual_seed(seed)
    shared, width = MOE_CONFIG["shared_expert_intermediate_size"], MOE_CONFIG["moe_intermediate_size"]
    experts, hidden = MOE_CONFIG["num_experts"], MOE_CONFIG["hidden_size"]
    moe = {name: tensor.clone() for name, tensor in dense.items() if ".mlp." not in name}
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.mlp."
        gate, up, down = (dense[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down"))
        moe[prefix + "gate.weight"] = torch.randn(experts, hidden, generator=random) * 0.02
        moe[prefix + "shared_expert_gate.weight"] = torch.zeros(1, hidden)
        rest = torch.arange(shared, gate.shape[0])
        parts = [("shared_expert", torch.arange(shared), 2.0)]
        for expert in range(experts):
            drawn = rest[torch.randperm(len(rest), generator=random)[:width]]
            parts.append((f"experts.{expert}", drawn, float(experts)))
        for name, columns, scale in parts:
            moe[f"{prefix}{name}.gate_proj.weight"] = gate[columns].clone()
            moe[f"{prefix}{name}.up_proj.weight"] = up[columns].clone()
            moe[f"{prefix}{name}.down_proj.weight"] = down[:, columns] * scale
    return moe
