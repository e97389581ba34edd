"""Layers that several networks have: Fourier features of a noise level, and maps that start at zero."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from vsmd import checks

Layer = TypeVar("Layer", bound=nn.Module)


class Fourier(nn.Module):
    """(…, 1) -> (sin(f l), cos(f l)) (…, 2 `frequencies`) for frequencies f from 1/8 to 1/8 · 2^4.5, log-spaced."""

    frequencies: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        values = 0.125 * 2 ** torch.linspace(0, 4.5, checks.non_negative_int("frequencies", frequencies))
        self.register_buffer("frequencies", values, persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        angle = level * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


def zeroed(layer: Layer) -> Layer:
    """The same layer with all its parameters zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
