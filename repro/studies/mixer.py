"""A network whose tokens are the coordinates: one small perceptron for all of them, and learned mixing between them.

Imported, it is `networks.build("mixer", …)`, and models that hold one can be read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import checks, networks
from vsmd.networks.layers import Fourier, zeroed


class Mixer(nn.Module):
    """h_i = silu(f_i z_i + g_i + E(level_i)), then h_i <- h_i + V silu(A h_i + B sum_j W_ij h_j + b), `depth` layers.

    net(z, log_snr): z, log_snr (or one row of it) and the result (n, *shape), l_i . h_i + gate(level_i) z_i. Each of
    the d coordinates i has `width` channels, its own maps f, g in and l out, its own noise level (E: Fourier features)
    and its row of W (d, d), one a layer; E, A, B, V, b are shared. W, l and the gate start at zero: a zero result is
    the exact score of Gaussian data. Where few of many coordinates depend on each other, as in principal axes
    (basis "principal"), this learns who does in some hundred steps; a perceptron's units see the noise of all at once.
    A layer costs 2 d n width (d + 3 expand width) operations. Raises ValueError for bad sizes.
    """

    name = "mixer"

    def __init__(
        self, shape: tuple[int, ...], width: int = 16, depth: int = 3, expand: int = 2, frequencies: int = 8
    ) -> None:
        super().__init__()
        shape = tuple(checks.positive_int("shape", n) for n in shape)
        width, depth = checks.positive_int("width", width), checks.positive_int("depth", depth)
        expand, frequencies = checks.positive_int("expand", expand), checks.positive_int("frequencies", frequencies)
        self.settings: dict[str, Any] = {
            "shape": list(shape), "width": width, "depth": depth, "expand": expand, "frequencies": frequencies,
        }  # fmt: skip
        dim, inner = math.prod(shape), expand * width
        self.fourier = Fourier(frequencies)
        self.level = nn.Linear(2 * frequencies + 1, width)
        self.first = nn.Parameter(torch.randn(dim, 1, width))
        self.which = nn.Parameter(0.5 * torch.randn(dim, 1, width))
        self.mixes = nn.ParameterList(nn.Parameter(torch.zeros(dim, dim)) for _ in range(depth))
        self.own = nn.ModuleList(nn.Linear(width, inner) for _ in range(depth))
        self.others = nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(depth))
        self.back = nn.ModuleList(nn.Linear(inner, width) for _ in range(depth))
        self.last = nn.Parameter(torch.zeros(dim, 1, width))
        self.bias = nn.Parameter(torch.zeros(dim, 1))
        self.gate = zeroed(nn.Linear(width, 1))

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        x, level = z.flatten(1).T[..., None], log_snr.flatten(1).T[..., None]  # (d, n, 1): mixing is one product
        level = silu(self.level(torch.cat([self.fourier(level), level / 4], -1)))
        h = silu(x * self.first + self.which + level)
        for mix, own, others, back in zip(self.mixes, self.own, self.others, self.back):
            mixed = (mix @ h.flatten(1)).view_as(h)
            h = h + back(silu(own(h) + others(mixed)))
        out = (h * self.last).sum(-1) + self.bias + (self.gate(level) * x)[..., 0]
        return out.T.reshape(z.shape)


networks.NETWORKS[Mixer.name] = Mixer
