"""Rotation angles: plain rope, and YaRN (Peng et al., arXiv 2309.00071) as transformers and vLLM compute it."""

import math

import torch


def frequencies(config, factor=1.0, original=None):
    """(radians per position of each pair of a head, what cosine and sine are multiplied by).

    `factor` is YaRN's, 1 for plain rope; `original` the training length (default: max_position_embeddings).
    """
    size, theta = config["hidden_size"] // config["num_attention_heads"], config["rope_theta"]
    plain = theta ** (-torch.arange(0, size, 2).float() / size)
    if factor <= 1:
        return plain, 1.0

    def correction(turns):
        return size * math.log((original or config["max_position_embeddings"]) / (2 * math.pi * turns)) / (
            2 * math.log(theta))

    low, high = max(math.floor(correction(32)), 0), min(math.ceil(correction(1)), size - 1)
    ramp = ((torch.arange(size // 2).float() - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain * (1 - ramp) + plain / factor * ramp, 0.1 * math.log(factor) + 1


def rotation(positions, angular, scale=1.0):
    """(cosine, sine) [..., size] of positions [...]."""
    angles = positions[..., None] * angular
    angles = torch.cat((angles, angles), -1)
    return angles.cos() * scale, angles.sin() * scale


def rotate(x, cos, sin):
    """x [..., T, size] turned by cos and sin [T, size], or [B, 1, T, size]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
