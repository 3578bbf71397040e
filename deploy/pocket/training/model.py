"""Qwen2ForCausalLM in plain PyTorch, trained in bf16 arithmetic with fp32 master weights.

Parameter names are those of the checkpoint, so that state_dict() is what model.safetensors holds.
"""

import torch
import torch.nn.functional as F
from rope import frequencies, rotate, rotation
from torch import nn

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2045,
    "eos_token_id": 2047,
    "hidden_act": "silu",
    "hidden_size": 224,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
    "max_window_layers": 4,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    # The slowest of the 8 rotations of a head of 16 turns once in 20,000 tokens, the fourth once in 200:
    # a spread that fits 512 positions. Qwen2's 1,000,000 would leave half of them nearly still.
    "rope_theta": 10000.0,
    "sliding_window": 512,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 2048,
}


MOE_CONFIG = {
    **CONFIG,
    "architectures": ["Qwen2MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 32,
    "norm_topk_prob": False,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "shared_expert_intermediate_size": 192,
}


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def attend(q, k, v, mask):
    """Grouped-query attention, q [B, heads, Q, size], k and v [B, kv_heads, T, size], mask [B, 1, Q, T].

    Written out: for heads of 16 it trains four times as fast on a CPU as the fused kernel.
    """
    batch, heads, asked, size = q.shape
    kv_heads, length = k.shape[1:3]
    group = heads // kv_heads
    q = (q * size ** -0.5).reshape(batch * kv_heads, group * asked, size)
    scores = torch.bmm(q, k.reshape(batch * kv_heads, length, size).transpose(1, 2))
    scores = scores.view(batch, heads, asked, length) + mask
    weights = torch.softmax(scores, -1, dtype=scores.dtype).view(batch * kv_heads, group * asked, length)
    return torch.bmm(weights, v.reshape(batch * kv_heads, length, size)).view(batch, heads, asked, size)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.size = c["hidden_size"] // self.heads
        self.q_proj = nn.Linear(c["hidden_size"], self.heads * self.size)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv_heads * self.size)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv_heads * self.size)
        self.o_proj = nn.Linear(self.heads * self.size, c["hidden_size"], bias=False)

    def forward(self, x, x_query, rope, rope_query, mask):
        """Keys and values of x [B, T, H]; queries of x_query [B, Q, H]; mask [B, 1, Q, T] is added."""
        batch, length, _ = x.shape
        asked = x_query.shape[1]
        q = self.q_proj(x_query).view(batch, asked, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.size).transpose(1, 2)
        q, k = rotate(q, *rope_query), rotate(k, *rope)
        y = attend(q.to(v.dtype), k.to(v.dtype), v, mask)
        return self.o_proj(y.transpose(1, 2).reshape(batch, asked, -1))


class Mlp(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class SparseMlp(nn.Module):
    """Qwen2-MoE's block: the likeliest experts, weighted by their probability as it is, and a shared expert.

    All experts are computed as one wide MLP whose columns are weighted: small as they are, that is
    faster than gathering each expert's tokens.
    """

    def __init__(self, c):
        super().__init__()
        hidden, self.width, self.chosen = c["hidden_size"], c["moe_intermediate_size"], c["num_experts_per_tok"]
        self.gate = nn.Linear(hidden, c["num_experts"], bias=False)
        self.experts = nn.ModuleList(Mlp(hidden, self.width) for _ in range(c["num_experts"]))
        self.shared_expert = Mlp(hidden, c["shared_expert_intermediate_size"])
        self.shared_expert_gate = nn.Linear(hidden, 1, bias=False)
        self.imbalance = torch.zeros(())  # 1 when every expert is used alike; for the training's loss

    def forward(self, x):
        probabilities = torch.softmax(self.gate(x).float(), -1)
        _, best = probabilities.topk(self.chosen, -1)
        used = torch.zeros_like(probabilities).scatter(-1, best, 1.0)
        experts = used.shape[-1]
        share = used.flatten(0, 1).mean(0) / self.chosen
        self.imbalance = experts * (share * probabilities.flatten(0, 1).mean(0)).sum()
        gate, up = (torch.cat([getattr(e, name).weight for e in self.experts]) for name in ("gate_proj", "up_proj"))
        down = torch.cat([e.down_proj.weight for e in self.experts], 1)
        weights = (probabilities * used).repeat_interleave(self.width, -1)
        y = F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up) * weights.to(x.dtype), down)
        return y + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = SparseMlp(c) if "num_experts" in c else Mlp(c["hidden_size"], c["intermediate_size"])
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, x, rope, mask, at=None, rope_query=None):
        """`at` [B, Q]: the positions whose output is wanted; None: all."""
        normed = self.input_layernorm(x)
        if at is None:
            x = x + self.self_attn(normed, normed, rope, rope, mask)
        else:
            index = at[..., None].expand(-1, -1, x.shape[-1])
            x = x.gather(1, index) + self.self_attn(normed, normed.gather(1, index), rope, rope_query, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])


class Qwen2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model, self.config = Body(c), c
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deviation = 0.02 if "embed" in name else 0.5 * parameter.shape[1] ** -0.5
                nn.init.normal_(parameter, std=deviation)
            elif "bias" in name:
                nn.init.zeros_(parameter)

    def forward(self, ids, positions, documents, at, yarn=1.0):
        """Logits [B, Q, vocabulary] at the positions `at` [B, Q] of packed rows.

        ids, positions and documents are [B, T]; a token attends to earlier ones of its own document.
        `yarn` is the factor by which YaRN stretches the positions.
        The last layer computes the wanted positions only: most of a row is question.
        """
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        allowed = (documents[:, :, None] == documents[:, None, :]) & causal
        index = at[..., None].expand(-1, -1, ids.shape[1])
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        masks = [torch.zeros(a.shape, dtype=dtype).masked_fill_(~a, float("-inf"))[:, None]
                 for a in (allowed, allowed.gather(1, index))]
        angular = frequencies(self.config, yarn)
        rope, rope_query = (rotation(p[:, None], *angular) for p in (positions, positions.gather(1, at)))
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers[:-1]:
            x = layer(x, rope, masks[0])
        x = self.model.layers[-1](x, rope, masks[1], at, rope_query)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
