"""Training images as `vsmd.fit` takes them: uint8 on the host, drawn, mirrored and scaled a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vsmd.data import images
from vsmd.data.images import Drawn, to_float

BATCH = 1_000  # images converted at once


class Pictures:
    """A sampler (n, generator) -> n images (n, C, H, W) float32 in [-1, 1], with labels the pair of both.

    The set stays uint8 and is not copied. Its moments are exact: `all_batches` runs through all images, mirrored too
    where `flips` mirrors half of them.
    """

    def __init__(self, values: Tensor, flips: bool = False, labels: Tensor | None = None) -> None:
        self.values, self.flips = values, flips
        self.draw = images.sampler(values, flips=flips, labels=labels)

    def __call__(self, n: int, generator: torch.Generator) -> Drawn:
        """n images, with replacement."""
        return self.draw(n, generator)

    def all_batches(self) -> Iterator[Tensor]:
        """All images once, in order."""
        for part in self.values.split(BATCH):
            x = to_float(part)
            yield torch.cat([x, x.flip(-1)]) if self.flips else x
