"""The data's first two moments, all that the closed forms know of them: given, of a tensor, or of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
        moments = cls(_checked("mean", mean, shape), _checked("var", var, shape))
        if not bool((moments.var >= 0).all()):
            raise ValueError(f"var={float(moments.var.min()):.4g} at its least: must be >= 0")
        return moments

    @property
    def std(self) -> Tensor:
        """Standard deviation (*shape) per direction, float64."""
        return self.var.sqrt()

    @property
    def unit(self) -> Tensor:
        """What standardising divides by, float32: the standard deviation, 1 in a direction that does not vary."""
        std = self.std.float()
        return torch.where(std > 0, std, torch.ones_like(std))


def told(mean: Tensor, std: Tensor) -> str:
    """Data in three numbers, weighted over all their directions, by which a checkpoint knows others from its own."""
    mean, std = (v.detach().double().cpu().flatten() for v in (mean, std))
    wide, weights = std.max().clamp(min=1e-300), 1 + torch.arange(len(std)).double().mul(0.618).frac()
    parts = (mean / wide, (std / wide + 1e-6).log(), wide.log())
    return " ".join(f"{round(float((weights * part).mean()), 5) + 0.0:g}" for part in parts)


def _checked(name: str, value: Tensor | float, shape: tuple[int, ...]) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if value.ndim > len(shape) or any(a not in (1, b) for a, b in zip(value.shape[::-1], shape[::-1])):
        raise ValueError(f"{name}: shape {tuple(value.shape)}; must be a number or {shape}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: must be finite, has NaN or inf")
    return value.expand(shape)


def averaged(data: Tensor | Iterable[Tensor], products: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (*shape) of a tensor (n, *shape) or a stream of such batches, seen once, and the mean of centred products.

    products: sums of products over rows (m, d), quadratic in the rows; of the centred data their mean is returned.
    Sums are float64 and centred batch by batch (Chan, Golub, LeVeque 1983), so a large mean costs no digits.
    Raises ValueError for fewer than two points.
    """
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for batch in [data] if isinstance(data, Tensor) else data:
        rows, shape = batch.to(torch.float64).flatten(1), batch.shape[1:]
        n, centre = len(rows), rows.mean(0)
        shift = (centre - mean)[None]
        scatter = scatter + products(rows - centre) + n * count / (n + count) * products(shift)
        mean, count = mean + (centre - mean) * (n / (n + count)), count + n
    if count < 2:
        raise ValueError(f"data: {count} points; moments need at least 2")
    return mean.view(shape), scatter / count
