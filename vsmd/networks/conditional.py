"""A residual perceptron for vectors that is told what is known: history, scales, calendar."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import checks


class ConditionalMLP(nn.Module):
    """h <- h + silu(W h + E(noise level) + C(context)), `depth` layers of `width`; the last map starts at zero.

    net(z, log_snr, context): z and the result (n, *shape), context (n, features) as data come. The context's part of
    the layers is computed by `encode`, once for all the solver's steps and samples that share it: `on_codes()` is the
    same network taking codes (n or 1, depth * width) in place of the context. C's last map starts at zero as well, so
    training starts from the unconditional Gaussian score. features = 0: unconditional, context None.
    Raises ValueError for a context that is missing or has another width.
    """

    name = "conditional"

    def __init__(
        self, shape: tuple[int, ...], features: int = 0, width: int = 128, depth: int = 3, frequencies: int = 16
    ) -> None:
        super().__init__()
        shape = tuple(checks.positive_int("shape", n) for n in shape)
        self.settings: dict[str, Any] = {
            "shape": list(shape), "features": features, "width": width, "depth": depth, "frequencies": frequencies,
        }  # fmt: skip
        dim, self.features = math.prod(shape), features
        self.freqs: Tensor
        self.register_buffer("freqs", 0.125 * 2 ** torch.linspace(0, 4.5, frequencies), persistent=False)
        self.level = nn.Linear(2 * frequencies + dim, width)
        self.shifts = nn.Linear(width, depth * width)
        self.first = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        if features:
            end = nn.Linear(width, depth * width)
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)
            self.encoder = nn.Sequential(nn.Linear(features, width), nn.SiLU(), end)

    def encode(self, context: Tensor | None) -> Tensor | None:
        """Codes (n, depth * width) of contexts (n, features); None for an unconditional network."""
        if not self.features:
            return None
        if context is None or context.shape[1:] != (self.features,):
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"context={got}: must be a tensor of shape (n, {self.features})")
        return self.encoder(context)

    def on_codes(self) -> nn.Module:
        """The same network (shared weights) as net(z, log_snr, codes), for samplers."""
        return _OnCodes(self)

    def given(self, z: Tensor, log_snr: Tensor, codes: Tensor | None) -> Tensor:
        """The network's value for encoded contexts."""
        levels = log_snr.flatten(1)
        angle = levels.mean(1, keepdim=True) * self.freqs
        shifts = self.shifts(silu(self.level(torch.cat([angle.sin(), angle.cos(), levels / 4], 1))))
        shift = (shifts if codes is None else shifts + codes).chunk(len(self.hidden) + 1, 1)
        h = silu(self.first(z.flatten(1)) + shift[0])
        for layer, s in zip(self.hidden, shift[1:]):
            h = h + silu(layer(h) + s)
        return self.last(h).view_as(z)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return self.given(z, log_snr, self.encode(context))


class _OnCodes(nn.Module):
    """A view of a network that takes codes; it has its weights."""

    def __init__(self, network: ConditionalMLP) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, log_snr: Tensor, codes: Tensor | None = None) -> Tensor:
        return self.network.given(z, log_snr, codes)
