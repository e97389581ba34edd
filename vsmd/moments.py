"""The data's first two moments, all that the closed forms know of them: given, of a tensor, or of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """First two moments of the data: mean (*shape) in data coordinates, variance (*shape) per direction."""

    mean: Tensor
    var: Tensor

    @classmethod
    def given(cls, mean: Tensor | float, var: Tensor | float, shape: tuple[int, ...]) -> Moments:
        """Moments by hand, float64 and broadcast to `shape`; ValueError unless finite, of that shape and var >= 0."""
        found = cls(_checked("mean", mean, shape), _checked("var", var, shape))
        if not bool((found.var >= 0).all()):
            raise ValueError(f"var={float(found.var.min()):.4g} at its least: must be >= 0")
        return found


def _checked(name: str, value: Tensor | float, shape: tuple[int, ...]) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim > len(shape) or any(a not in (1, b) for a, b in zip(value.shape[::-1], shape[::-1])):
        raise ValueError(f"{name}: shape {tuple(value.shape)}; must be a number or {shape}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: must be finite, has NaN or inf")
    return value.expand(shape)


def measured(
    data: Tensor | Iterable[Tensor], full: bool = False, basis: Tensor | None = None
) -> tuple[Moments, Tensor | None]:
    """Moments of a tensor (n, *shape) or of a stream of such batches, seen once, and the basis of their directions.

    full: directions are the principal axes, the columns of the (d, d) result; basis: they are given; else coordinates.
    Sums are float64 and centred batch by batch (Chan, Golub, LeVeque 1983), so a large mean costs no digits.
    Raises ValueError for fewer than two points.
    """
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    square = full and basis is None
    for batch in [data] if isinstance(data, Tensor) else data:
        x = batch.to(torch.float64).flatten(1)
        n, centre, shape = len(x), x.mean(0), batch.shape[1:]
        moved = (x - centre) if basis is None else (x - centre) @ basis
        shift = (centre - mean) if basis is None else (centre - mean) @ basis
        between = n * count / (n + count)
        if square:
            scatter = scatter + moved.T @ moved + between * shift[:, None] * shift
        else:
            scatter = scatter + moved.square().sum(0) + between * shift.square()
        mean, count = mean + (centre - mean) * (n / (n + count)), count + n
    if count < 2:
        raise ValueError(f"data: {count} points; moments need at least 2")
    var = scatter / count
    if square:
        var, axes = torch.linalg.eigh(var)
        var, basis = var.clamp(min=0), axes.contiguous()  # as a model file will hold it, bit for bit
    return Moments(mean.view(shape), var.view(shape)), basis
