"""Fourier features of a noise level."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fourier(nn.Module):
    """(…, 1) -> (sin(f l), cos(f l)) (…, 2 `frequencies`) for frequencies f from 1/8 to 1/8 · 2^4.5, log-spaced."""

    frequencies: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        values = 0.125 * 2 ** torch.linspace(0, 4.5, frequencies)
        self.register_buffer("frequencies", values, persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        angle = level * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)
