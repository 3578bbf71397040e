"""Rotations beyond the training length, in plain PyTorch: YaRN and dual chunk attention.

A `Scheme` says how queries and keys of given positions meet; `Scheme.logits()` runs model.Qwen2 under it. The
formulas are those of YaRN (Peng et al., arXiv 2309.00071) as transformers and vLLM compute them and of dual
chunk attention (An et al., arXiv 2402.17463) as vLLM computes it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rope import frequencies, rotate, rotation


@dataclass(frozen=True)
class Scheme:
    """Plain rope; YaRN with `factor` > 1; dual chunk attention with `chunk` > 0 (then `factor` is not used)."""

    original: int = 512  # the training length
    factor: float = 1.0
    chunk: int = 0
    local: int = 0

    def scores(self, config, q, k, asked):
        """q [batch, heads, Q, size] of the positions `asked` [Q], k [batch, heads, T, size] -> [batch, heads, Q, T]."""
        keys = torch.arange(k.shape[2])
        if not self.chunk:
            return self.product(config, q, k, asked, keys)
        width = self.chunk - self.local
        inside = keys % width
        apart = asked[:, None] // width - keys // width
        last = torch.full_like(asked, min(2 * width - 1, self.chunk))
        intra = self.product(config, q, k, asked % width, inside)
        successive = self.product(config, q, k, (asked % width + width).clamp(max=self.chunk), inside)
        inter = self.product(config, q, k, last, inside)
        scale = max(1.0, 0.1 * math.log(len(keys) / self.original) + 1) ** 2
        return torch.where(apart <= 0, intra, torch.where(apart == 1, successive, inter)) * scale

    def product(self, config, q, k, query_positions, key_positions):
        angular = frequencies(config, 1.0 if self.chunk else self.factor, self.original)
        q, k = (rotate(x, *rotation(p, *angular)) for x, p in ((q, query_positions), (k, key_positions)))
        return q @ k.transpose(2, 3) * q.shape[-1] ** -0.5

    def attention(self, config, block, x, asked):
        batch, length, _ = x.shape
        heads, kv_heads, size = block.heads, block.kv_heads, block.size
        q = block.q_proj(x[:, asked]).view(batch, -1, heads, size).transpose(1, 2)
        k, v = (projection(x).view(batch, length, kv_heads, size).transpose(1, 2)
                .repeat_interleave(heads // kv_heads, 1) for projection in (block.k_proj, block.v_proj))
        ahead = torch.arange(length) > asked[:, None]
        weights = self.scores(config, q, k, asked).masked_fill(ahead, float("-inf")).softmax(-1)
        return block.o_proj((weights @ v).transpose(1, 2).reshape(batch, len(asked), -1))

    @torch.no_grad()
    def logits(self, model, ids, wanted, block=512):
        """Logits [batch, len(wanted), vocabulary] after the positions `wanted` of ids [batch, T]."""
        x = model.model.embed_tokens(ids)
        positions = torch.arange(ids.shape[1])
        layers = model.model.layers
        for number, layer in enumerate(layers):
            asked = torch.tensor(wanted) if number == len(layers) - 1 else positions
            normed = layer.input_layernorm(x)
            y = torch.cat([self.attention(model.config, layer.self_attn, normed, part)
                           for part in asked.split(block)], 1)
            x = x[:, asked] + y
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return F.linear(model.model.norm(x), model.model.embed_tokens.weight)

    def right(self, model, example):
        """Whether greedy decoding of an evaluation.Example gives exactly its answers."""
        places = [i for start, end in example.spans for i in range(start, end)]
        best = self.logits(model, torch.tensor([example.ids]), [i - 1 for i in places])[0].argmax(-1)
        return best.tolist() == [example.ids[i] for i in places]
