"""Contexts: what a network is told beside the noisy state, how one is left out, and guidance by the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vsmd.networks import with_traits


@dataclass(frozen=True)
class Conditioning:
    """What a network takes for context: labels, integers (n,) from 0 to classes - 1, or real numbers (n, features).

    A context that is left out is a label of -1, or a row of inf: NaN stays the mark of what is missing by mistake.
    """

    classes: int = 0
    features: int = 0

    def __str__(self) -> str:
        real = f"real numbers (n, {self.features}), floating"
        return f"labels (n,), integers from 0 to {self.classes - 1}" if self.classes else real

    def checked(self, context: Tensor, n: int) -> Tensor:
        """The context of n points, int64 or float32 – one real feature may be (n,) –; ValueError for what it is not."""
        real = context.is_floating_point()
        value = context[:, None] if real and context.ndim == 1 and self.features == 1 else context
        tail = (self.features,) if self.features else ()
        if value.ndim == 0 or tuple(value.shape[1:]) != tail or real != bool(self.features) or value.is_complex():
            raise ValueError(f"context: {context.dtype} {tuple(context.shape)}; must be {self}")
        if len(value) != n:
            raise ValueError(f"context: has {len(value)} rows; must have one for each of n={n}")
        if self.classes:
            value = value.long()
            low, high = (int(v) for v in value.aminmax())
            if low < 0 or high >= self.classes:
                raise ValueError(f"context: labels from {low} to {high}; must be {self}")
        elif bad := int((~torch.isfinite(value)).any(1).sum()):
            raise ValueError(f"context: must be finite, {bad} of {n} rows have NaN or inf")
        return value if self.classes else value.float()

    def without(self, context: Tensor, gone: Tensor) -> Tensor:
        """The context (n, …) with that of the rows `gone` (n,) left out."""
        if self.classes:
            return context.masked_fill(gone, -1)
        return context.masked_fill(gone[:, None], math.inf)

    def none(self, n: int, device: torch.device) -> Tensor:
        """Contexts of n points, all left out."""
        if self.classes:
            return torch.full((n,), -1, device=device)
        return torch.full((n, self.features), math.inf, device=device)

    def present(self, context: Tensor) -> Tensor:
        """Which rows (n,) have a context."""
        return context >= 0 if self.classes else ~context.isposinf().all(1)


class Guided(nn.Module):
    """net_w = net_0 + w (net_c - net_0), w = `guidance`: net_c told the context, net_0 with all contexts left out.

    Scores and denoisers are affine in the network's value with equal maps, so theirs combine in the same way. Two
    calls of the network each.
    """

    def __init__(self, network: nn.Module, conditioning: Conditioning, guidance: float) -> None:
        super().__init__()
        self.network, self.conditioning, self.guidance = network, conditioning, guidance
        with_traits(self, network)

    def forward(self, z: Tensor, level: Tensor, context: Tensor) -> Tensor:
        plain = self.network(z, level, self.conditioning.none(len(context), context.device))
        return plain + self.guidance * (self.network(z, level, context) - plain)
