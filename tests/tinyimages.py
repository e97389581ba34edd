"""What the tests of this room share: forty pictures, and a network that costs next to nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vsmd.data.image_files import ImageSet
from vsmd.images import Config

NETWORK: dict[str, Any] = {"width": 8, "multipliers": [1], "depth": 1, "attention": [], "frequencies": 2}


def pictures(channels: int = 1, labels: bool = False) -> ImageSet:
    """Bright corners and dark ones, 4 x 4."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(48) % 2
    values = torch.randint(0, 60, (48, channels, 4, 4), generator=generator)
    values[kind == 1] += 190
    values[:, :, 0, 0] = 7  # a constant pixel
    images = values.to(torch.uint8)
    if not labels:
        return ImageSet("corners", images[:40], images[40:])
    return ImageSet("corners", images[:40], images[40:], kind[:40], kind[40:], ("dark", "bright"))


def config(**fields: Any) -> Config:
    settings: dict[str, Any] = {
        "network": NETWORK, "held_out": 8, "flips": False, "steps": 12, "batch_size": 8, "learning_rate": 3e-3,
        "ema": 0.9, "rounds": 2, "paths": 6, "nodes": 8, "every": 5, "grid": 4, "evaluations": 4, "schedule": "cosine",
    }  # fmt: skip
    return Config().with_overrides(settings | fields)


def awake(network: nn.Module) -> nn.Module:
    """The network with no layer at zero any more."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return network


def words(line: str) -> list[str]:
    """A command line's words."""
    return line.split()
