"""What images are worth: distances to the training images, their floor, and whether they repeat what was trained on."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vsmd import random
from vsmd.data.images import ImageSet, load, to_uint8
from vsmd.images.evaluation import METRICS, distance
from vsmd.metrics.frechet import EfficientNetFeatures, InceptionFeatures
from vsmd.metrics.neighbours import memorisation

Row = dict[str, Any]
FAINT = 26  # of 255: what `cleared` sets to black
_KIND = {"KID": "FD-EffNet"}  # whose features a distance takes, where they are not its own


def device() -> torch.device:
    """Where runs are computed: on the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def features(kind: str) -> EfficientNetFeatures | InceptionFeatures:
    """The extractor of a metric's features."""
    return METRICS[kind](device())


def reference_images(images: ImageSet, n: int) -> Tensor:
    """n training images (all, where there are not so many) at random, the same every time: a set may be sorted."""
    return images.train[torch.randperm(len(images.train), generator=random.generator(0, "reference"))[:n]]


@cache
def real(metric: str, dataset: str, reference: int, n: int) -> tuple[Tensor, float]:
    """Features of `reference` training images, and the distance of n test images to them: the floor."""
    images, of = load(dataset), features(_KIND.get(metric, metric))
    known = of(reference_images(images, reference))
    return known, distance(metric, of(images.test[:n]), known)


def qualities(x: Tensor, dataset: str, metrics: list[str], reference: int) -> dict[str, float]:
    """The distances `metrics` of samples x (n, C, H, W) float to the training images; nan where any has diverged."""
    if not bool(torch.isfinite(x).all()):
        return dict.fromkeys(metrics, math.nan)
    images = to_uint8(x.clone())
    found = {kind: features(kind)(images) for kind in {_KIND.get(m, m) for m in metrics}}
    return {m: distance(m, found[_KIND.get(m, m)], real(m, dataset, reference, len(x))[0]) for m in metrics}


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Rows of the images of `train` (uint8) nearest to images x (uint8), by squared pixel distance; (len(x),)."""
    a = x.flatten(1).float()
    best, rows = torch.full((len(a),), math.inf), torch.zeros(len(a), dtype=torch.int64)
    for first in range(0, len(train), 5_000):
        b = train[first : first + 5_000].flatten(1).float()
        value, row = (b.square().sum(1) - 2 * a @ b.T).min(1)
        rows = torch.where(value < best, first + row, rows)
        best = torch.minimum(value, best)
    return rows


def memorised(samples: Tensor, images: ImageSet) -> Row:
    """Cells on memorising: the share of samples nearer to training than to test images, 1/2 for new ones."""
    value = memorisation(samples, reference_images(images, len(images.test)), images.test)
    return {"metric": "memorised", "value": value, "n_samples": len(samples), "floor": 0.5}


def on_black(images: Tensor) -> bool:
    """Whether most of these uint8 images is black."""
    return float((images == 0).double().mean()) > 0.5


def cleared(images: Tensor) -> Tensor:
    """Images on black with their faintest tenth of levels set to black, where a diffusion on pixels leaves a haze."""
    return torch.where(images < FAINT, torch.zeros_like(images), images)
