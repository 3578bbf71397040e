"""Muon for the layers' matrices, AdamW for everything else."""

import torch

# Coefficients of the quintic Newton-Schulz iteration of Muon (Jordan et al., 2024).
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(g):
    """The nearest (roughly) semi-orthogonal matrices of a stack [N, rows, columns]."""
    x = g.bfloat16()
    wide = x.shape[1] <= x.shape[2]
    if not wide:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.transpose(1, 2)
        x = A * x + (B * s + C * s @ s) @ x
    return (x if wide else x.transpose(1, 2)).float()


class Muon:
    """Momentum, orthogonalised; matrices of one shape go through it as one stack."""

    def __init__(self, parameters, momentum=0.95, weight_decay=0.01):
        groups = {}
        for parameter in parameters:
            groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, rate):
        for group, buffer in zip(self.groups, self.buffers):
            gradient = torch.stack([parameter.grad for parameter in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            rows, columns = buffer.shape[1:]
            scale = rate * max(1.0, rows / columns) ** 0.5
            for parameter, u in zip(group, update):
                parameter.mul_(1 - rate * self.weight_decay).add_(u, alpha=-scale)

    def state(self):
        return self.buffers

    def load(self, buffers):
        self.buffers = buffers


def split_parameters(model):
    """(matrices of the layers, the others)."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and not any(part in name for part in ("embed", "mlp.gate.", "expert_gate"))
        (matrices if is_matrix else others).append(parameter)
    return matrices, others
