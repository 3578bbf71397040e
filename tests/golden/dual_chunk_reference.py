"""Dual chunk attention (arXiv 2402.17463) as plain as its formulas: every pair of query and key by itself, in fp64.

Inside `with DualChunks(...) as chunks:` the attention of every transformers Qwen2 model is this one. Only the rotations
of a bf16 model are rounded, as transformers rounds them.
"""

import math

import torch
from transformers.models.qwen2 import modeling_qwen2


class DualChunks:
    def __init__(self, chunk_size, local_size, original_max_position_embeddings=0):
        self.size, self.length = chunk_size, chunk_size - local_size
        self.original = original_max_position_embeddings
        self.prompt_tokens = 0

    def __enter__(self):
        self.saved = modeling_qwen2.apply_rotary_pos_emb, modeling_qwen2.ALL_ATTENTION_FUNCTIONS["sdpa"]
        modeling_qwen2.apply_rotary_pos_emb = lambda query, key, *_: (query, key)
        modeling_qwen2.ALL_ATTENTION_FUNCTIONS["sdpa"] = self.attend
        return self

    def __exit__(self, *_):
        modeling_qwen2.apply_rotary_pos_emb, modeling_qwen2.ALL_ATTENTION_FUNCTIONS["sdpa"] = self.saved

    def rotate(self, x, positions, theta):
        """x [..., tokens, head_dim], each token as at its position."""
        half = x.shape[-1] // 2
        angles = positions.double()[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
        dtype = torch.float64 if x.dtype == torch.float32 else x.dtype
        x, cosine, sine = x.to(dtype), angles.cos().to(dtype), angles.sin().to(dtype)
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).double()

    def temperature(self, positions):
        """Of the logits of queries at these positions."""
        if self.original == 0:
            return torch.ones(len(positions), dtype=torch.float64)
        lengths = torch.clamp(positions.double() + 1, min=self.prompt_tokens)
        return torch.clamp(0.1 * torch.log(lengths / self.original) + 1, min=1) ** 2

    def attend(self, module, query, key, value, attention_mask, scaling, **_):
        """query [1, heads, tokens, head_dim], key and value [1, kv_heads, tokens, head_dim], not rotated."""
        theta = module.config.rope_theta
        tokens = query.shape[2]
        p = torch.arange(tokens)
        chunk, offset = p // self.length, p % self.length
        keys = self.rotate(key, offset, theta).repeat_interleave(query.shape[1] // key.shape[1], 1)
        values = value.double().repeat_interleave(query.shape[1] // value.shape[1], 1)
        seen_as = {  # the position of a query, by how many chunks before its own the key lies
            0: offset,
            1: torch.clamp(offset + self.length, max=self.size),
            2: torch.full((tokens,), min(2 * self.length - 1, self.size)),
        }
        before = torch.clamp(chunk[:, None] - chunk[None, :], max=2)
        logits = torch.full((1, query.shape[1], tokens, tokens), -math.inf, dtype=torch.float64)
        for distance, positions in seen_as.items():
            part = self.rotate(query, positions, theta) @ keys.transpose(-1, -2)
            logits = torch.where(before == distance, part, logits)
        logits = logits * scaling * self.temperature(p)[:, None]
        logits = logits.masked_fill(p[None, :] > p[:, None], -math.inf)
        out = torch.softmax(logits, -1) @ values
        return out.to(query.dtype).transpose(1, 2).contiguous(), None
