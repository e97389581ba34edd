"""Whether samples repeat their training data: what an empirical prior has to be checked for."""

from __future__ import annotations

import torch
from torch import Tensor

from vsmd.metrics._inputs import Array, rows

BLOCK = 2**24  # distances computed in one go


def _nearest(x: Tensor, points: Tensor) -> Tensor:
    """Distance of each row of x to its nearest row of points."""
    blocks = x.split(max(1, BLOCK // len(points)))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(block, points, compute_mode=exact).amin(1) for block in blocks])


def memorisation(samples: Array, train: Array, held_out: Array) -> float:
    """Return the share of `samples` (n, *shape) that lie nearer to the training points than to as many held-out ones.

    Of the longer set the first rows count, as many as the shorter one has: shuffle a set that is sorted. About 1/2 for
    samples of the law itself, 1 for copies of the training data: the nearest-neighbour check. Standard error 1/(2 sqrt
    n). ValueError for sets that are empty, not finite or of different width.
    """
    a, b, c = (rows(name, v) for name, v in (("samples", samples), ("train", train), ("held_out", held_out)))
    if not a.shape[1] == b.shape[1] == c.shape[1]:
        raise ValueError(f"train: {b.shape[1]} numbers a row, held_out {c.shape[1]}; must be {a.shape[1]} as samples")
    n = min(len(b), len(c))
    return (_nearest(a, b[:n]) < _nearest(a, c[:n])).double().mean().item()
