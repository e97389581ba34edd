"""The PMF-RMSE: error of a histogram of samples against a fixed reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.metrics._inputs import Array, rows


@dataclass(frozen=True, eq=False)
class PMFReference:
    """The fixed reference of the PMF-RMSE: a histogram of many draws of a two-dimensional law.

    `low`, `high` (2,): the limits, the draws' minimum and maximum times 1.025 (away from them also where a
    minimum is positive or a maximum negative); `pmf` (bins, bins): the share of the draws in each bin;
    `draws`: their number.
    """

    low: Tensor
    high: Tensor
    pmf: Tensor
    draws: int

    @classmethod
    def of(
        cls, sampler: Callable[[int, torch.Generator], Tensor], draws: int = 4_000_000, bins: int = 100, seed: int = 0
    ) -> PMFReference:
        """Return the reference of the law that `sampler(n, generator)` draws from: float (n, 2).

        A pure function of the arguments. Four million draws of a toy take about half a second.
        """
        checks.positive_int("draws", draws)
        checks.positive_int("bins", bins)
        stream, chunk = random.generator(seed, "pmf-reference"), 500_000
        chunks = [sampler(min(chunk, draws - start), stream).cpu() for start in range(0, draws, chunk)]
        for points in chunks:
            if points.ndim != 2 or points.shape[1] != 2 or not points.isfinite().all():
                raise ValueError(f"sampler: gave shape {tuple(points.shape)}; must give finite points (n, 2)")
        ends = torch.stack([torch.stack([p.amin(0), p.amax(0)]) for p in chunks]).double()
        low, high = ends[:, 0].amin(0), ends[:, 1].amax(0)
        low, high = low - 0.025 * low.abs(), high + 0.025 * high.abs()
        flat = (low == high).double() / 2  # a coordinate that is always 0 has no width
        low, high = low - flat, high + flat
        counts = sum(_histogram(points, low, high, bins) for points in chunks)
        assert isinstance(counts, Tensor)
        return cls(low, high, counts / draws, draws)

    @property
    def bins(self) -> int:
        """The number of bins a coordinate."""
        return len(self.pmf)

    def rmse(self, samples: Array) -> tuple[float, float]:
        """Return the PMF-RMSE of `samples` (n, 2), and the share of them that lies outside the limits.

        √(mean over the bins of (p - q)²), p the reference, q the samples' counts divided by n - not by the
        number inside, which would hide diverged samples. NaN and infinite samples are outside.
        """
        x = rows("samples", samples, finite=False).to(self.pmf.device)
        if x.shape[1] != 2:
            raise ValueError(f"samples: shape {tuple(samples.shape)}; must be (n, 2)")
        counts = _histogram(x, self.low, self.high, self.bins)
        error = (counts / len(x) - self.pmf).square().mean().sqrt()
        return error.item(), (len(x) - counts.sum().item()) / len(x)

    def floor(self, n: int) -> float:
        """Return the root of the expected square of the PMF-RMSE of `n` independent draws of the law itself.

        √((1 - Σp²)(1/n + 1/draws)) / bins: a bin's count is binomial, in the samples and in the reference.
        """
        noise = 1 / checks.positive_int("n", n) + 1 / self.draws
        return math.sqrt((1 - self.pmf.square().sum().item()) * noise) / self.bins


def _histogram(x: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Counts (bins, bins), float64, of the points x (n, 2) in [low, high]; comparisons with NaN are false."""
    x = x.double()
    x = x[((x >= low) & (x <= high)).all(-1)]
    index = ((x - low) / (high - low) * bins).long().clamp_(max=bins - 1)
    return torch.bincount(index[:, 0] * bins + index[:, 1], minlength=bins * bins).double().view(bins, bins)
