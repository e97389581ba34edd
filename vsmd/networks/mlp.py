"""A residual multilayer perceptron for low-dimensional data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import checks
from vsmd.networks.layers import Fourier, zeroed


class MLP(nn.Module):
    """h <- h + silu(W h + E(noise level)), `depth` layers of `width`; the last map starts at zero.

    The noise level enters as Fourier features of the mean log signal-to-noise amplitude and the levels themselves, once
    a row, or once a batch when it is shared (sampling). A zero output is the exact score of Gaussian data, so training
    starts there. Input and output (n, *shape).
    """

    name = "mlp"

    def __init__(self, shape: tuple[int, ...], width: int = 128, depth: int = 3, frequencies: int = 16) -> None:
        super().__init__()
        shape = tuple(checks.positive_int("shape", n) for n in shape)
        self.settings: dict[str, Any] = {
            "shape": list(shape), "width": width, "depth": depth, "frequencies": frequencies,
        }  # fmt: skip
        dim = math.prod(shape)
        self.fourier = Fourier(frequencies)
        self.level = nn.Linear(2 * frequencies + dim, width)
        self.shifts = nn.Linear(width, depth * width)
        self.first = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = zeroed(nn.Linear(width, dim))

    def perceptron(self, z: Tensor, log_snr: Tensor, codes: Tensor | None = None) -> Tensor:
        """The network's value; codes (n or 1, depth * width) are added to the layers' arguments."""
        levels = log_snr.flatten(1)
        features = torch.cat([self.fourier(levels.mean(1, keepdim=True)), levels / 4], 1)
        shifts = self.shifts(silu(self.level(features)))
        shift = (shifts if codes is None else shifts + codes).chunk(len(self.hidden) + 1, 1)
        h = silu(self.first(z.flatten(1)) + shift[0])
        for layer, s in zip(self.hidden, shift[1:]):
            h = h + silu(layer(h) + s)
        return self.last(h).view_as(z)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return self.perceptron(z, log_snr)
