"""Training images as `vsmd.fit` takes them: uint8 on the host, drawn and scaled a batch at a time; PNG files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsmd import files
from vsmd.data.images import to_float

BATCH = 1_000  # images converted at once


class Pictures:
    """A sampler (n, generator) -> n images (n, C, H, W) float32 in [-1, 1], with labels the pair of both.

    The set stays uint8 and is not copied. Its moments are exact: `all_batches` runs through all images, mirrored too
    where `flips` mirrors half of them, left to right.
    """

    def __init__(self, values: Tensor, flips: bool = False, labels: Tensor | None = None) -> None:
        self.values, self.flips, self.labels = values, flips, labels

    def __call__(self, n: int, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
        """n images, with replacement."""
        rows = torch.randint(len(self.values), (n,), generator=generator)
        x = to_float(self.values[rows])
        if self.flips:
            turned = torch.rand(n, generator=generator) < 0.5
            x = torch.where(turned[:, None, None, None], x.flip(-1), x)
        return x if self.labels is None else (x, self.labels[rows])

    def all_batches(self) -> Iterator[Tensor]:
        """All images once, in order."""
        for batch in self.values.split(BATCH):
            x = to_float(batch)
            yield torch.cat([x, x.flip(-1)]) if self.flips else x


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 (height, width, 3) or (height, width), as PNG: all of it or nothing."""
    from PIL import Image

    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)
