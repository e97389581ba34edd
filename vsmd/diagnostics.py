r"""What can be told of a process and its data before any training: what is left of either at the two ends of time.

At t_min noise is left on the data, `noise_left`; at t = 1 the data are left in the noise, `data_left`, and generation
starts from a prior that may not be the law of a_1, `prior_gap`. `warn` says in a line each what is too much.
"""

from __future__ import annotations

import dataclasses
import warnings
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vsmd import kernels, random
from vsmd.bases import Principal
from vsmd.data.kinds import points_of
from vsmd.metrics.distances import marginal_wasserstein2, sliced_wasserstein2
from vsmd.processes import ForwardProcess
from vsmd.schedules import BetaSchedule
from vsmd.scores import combine

DRAWS, VALUES = 8_000, 2**21  # of a_1 and the prior: so many, but at most so many numbers
PROJECTIONS = 32
TOO_MUCH = 0.05  # noise at t_min over a direction's standard deviation
NARROW = 64  # up to so many coordinates, axes across them are looked along, too
FLAT = 1e-7  # standard deviation over the largest one up to which a direction of turned data is rounding
CLEAR = 0.1, 0.05  # gap in standard deviations of a_1, if it is twice its floor, too: of one direction, of them all
ENOUGH = 0.01  # share of a_1's variance that may be the data's
COLUMN = ContextVar("COLUMN", default="column")  # what messages call a coordinate of points (n, d)


class StartWarning(UserWarning):
    """Of a process whose ends do not suit the data."""


def noise_left(process: ForwardProcess, t: float) -> Tensor:
    """Standard deviation of the noise on x_0 at time t, per direction in the process's units (*shape), float64.

    sqrt(Sigma_{t|0})_xx / F_xx: about sqrt(beta t) without velocity, beta t/2 with (where v_0 ~ N(0, 1) moves x).
    """
    kernel = process.kernel(torch.tensor([t], dtype=torch.float64))
    return (kernels.lower_cholesky(kernel)[0] / kernel.mean[0][0])[0].expand(process.shape)


def data_left(process: ForwardProcess) -> Tensor:
    """Share of the variance at t = 1 that is the data's, snr^2/(1 + snr^2) of the statistic for x_0; (*shape)."""
    snr = process.snr(torch.ones(1, dtype=torch.float64))[0][0].square()
    return (snr / (1 + snr)).expand(process.shape)


def direction(process: ForwardProcess, index: int) -> str:
    """A direction in the data's own words: a column or pixel, an axis by those that it is mostly of, or its number."""
    shape, scale = process.shape, process.units.tensors.get("scale", torch.ones(()))
    turned = torch.zeros(process.dim, dtype=torch.float64).index_fill(0, torch.tensor(index), 1.0).view(1, *shape)
    turned = process.units.back(process.basis.back(turned)) / scale
    share, order = (turned.flatten().square() / turned.square().sum()).sort(descending=True)
    names = [_place(int(i), shape) for part, i in zip(share[:3], order) if part > 0.1]
    if float(share[: len(names)].sum()) < 0.5:
        return f"{process.basis.name} direction {index}"
    return names[0] if float(share[0]) > 0.99 else f"an axis mostly of {' and '.join(names)}"


def _place(i: int, shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"{COLUMN.get()} {i}"
    return f"pixel (row {i // shape[2] % shape[1]}, column {i % shape[2]}) of channel {i // (shape[1] * shape[2])}"


@dataclass(frozen=True)
class PriorGap:
    """How far the prior is from the law of a_1, both drawn, in standard deviations of a_1 (of the statistic for x_0).

    gap, floor: sliced W2 over random directions, and what as many draws of the prior are from others of it. marginal,
    marginal_floor: W2 per direction (*shape), and the largest that the prior has to itself; worst: where, in words.
    left: the data's share of the variance at t = 1 (*shape). beta: mean over time that would leave 1 %; None beyond 100
    times the present one.
    """

    prior: str
    worst: str
    gap: float
    floor: float
    marginal: Tensor
    marginal_floor: float
    left: Tensor
    beta: float | None

    @property
    def clear(self) -> bool:
        """Whether samples will show it, in one direction or in all: above .1 or .05, and twice the floor."""
        pairs = (float(self.marginal.max()), self.marginal_floor), (self.gap, self.floor)
        return any(gap > max(least, 2 * floor) for least, (gap, floor) in zip(CLEAR, pairs))

    def __str__(self) -> str:
        cures = [f"beta={self.beta:.3g}"] if self.beta is not None else []
        cures += [f"prior={name!r}" for name in ("moments", "mixture") if self.prior == "gaussian" or name == "mixture"]
        return (
            f"prior={self.prior!r}: {self.gap:.3g} from the end of the forward process (sliced W2 in standard "
            f"deviations; floor {self.floor:.3g}), worst in {self.worst} ({float(self.marginal.max()):.3g}); up "
            f"to {100 * float(self.left.max()):.2g} % of the variance at t = 1 is the data's; "
            f"{', '.join(cures)} or variational_score='steered' would mend it"
        )


def prior_gap(process: ForwardProcess, data: Any, units: str = "standardised", seed: int = 0) -> PriorGap:
    """Compare draws of a_1 of data (n, *shape) with draws of the process's prior, before any training.

    Both as the statistic for x_0 that the network sees, one number a direction; across it a_1 is Gaussian anyhow.

    data: whatever `vsmd.fit` takes. units: what it gets (default its default). seed: of the draws.
    A process that has no A yet is taken as it is: A = 0 where it is to be adapted.
    """
    data = points_of(data, process.shape, random.generator(seed, "prior data"))
    process = process.with_units(units).with_data(data)
    if process.prior in ("mixture", "empirical"):
        process = process.with_prior(process.prior, data, seed=seed)
    return gap_of(process, data, seed)


def gap_of(process: ForwardProcess, data: Tensor, seed: int = 0) -> PriorGap:
    """`prior_gap` of a process that knows its data, and its prior."""
    n, stream = max(2, min(DRAWS, VALUES // process.dim, len(data))), random.generator(seed, "prior gap")
    snr, channel = process.snr(torch.ones(1, dtype=torch.float64))[0][0], process.channel(torch.ones(1))[1]
    xi = process.standardised(data[torch.randperm(len(data), generator=stream)[:n]]).double()
    end = (snr * xi + torch.randn(xi.shape, generator=stream, dtype=torch.float64)) / (1 + snr.square()).sqrt()
    law = process.prior_law()
    start, other = (combine(channel.inp, law.sample(n, stream, torch.float64)) for _ in range(2))
    marginal = marginal_wasserstein2(end, start)
    return PriorGap(
        process.prior,
        direction(process, int(marginal.flatten().argmax())),
        sliced_wasserstein2(end, start, PROJECTIONS),
        sliced_wasserstein2(other, start, PROJECTIONS),
        marginal,
        float(marginal_wasserstein2(other, start).max()),
        data_left(process),
        _enough(process),
    )


def _enough(process: ForwardProcess) -> float | None:
    """The least mean of beta over time, in steps of 10 %, that leaves 1 % of the variance or less; None beyond 100."""
    schedule, factor = process.schedule, 1.0
    while float(data_left(process).max()) > ENOUGH:
        factor *= 1.1
        if factor > 100:
            return None
        scaled = BetaSchedule(schedule.b_min * factor, schedule.b_max * factor, schedule.power)
        process = dataclasses.replace(process, schedule=scaled)
    return 2 * float(process.schedule.clock(torch.ones(())))


def warn(process: ForwardProcess, data: Tensor, t_min: float) -> None:
    """Warn (`StartWarning`) of noise left at t_min and of a prior that is not where the process ends, a line each.

    process: that knows the data, with the A that training begins with or is bound to. data: (n, *shape), of them.
    """
    std, left = process.known().std.flatten(), noise_left(process, t_min).flatten()
    turned = process.basis.name != "coordinates" or process.units.name == "whitened"
    varies, seen = std > (FLAT * std.max() if turned else 0.0), process
    if not turned and bool((left <= TOO_MUCH * std)[varies].all()) and 1 < process.dim <= min(NARROW, len(data) - 1):
        mean, units = process.known().mean, process.units
        moments, axes = Principal(process.shape).fitted(units.into(data.double() - mean))  # a thin one may lie across
        std, seen = moments.std.flatten(), dataclasses.replace(process, basis=axes)
        rounding = torch.finfo(data.dtype).eps * units.into(mean[None]).abs().max()
        varies = std > FLAT * std.max() + rounding
    ratio = torch.where(varies, left / std, torch.zeros_like(std))
    if float(ratio.max()) > TOO_MUCH and not process.row.early_stop:
        worst, many = int(ratio.argmax()), int((ratio > TOO_MUCH).sum())
        warnings.warn(
            f"noise of std {float(left[worst]):.3g} is left at t_min={t_min:g} where the data's is "
            f"{float(std[worst]):.3g}, {direction(seen, worst)}"
            + (f" and {many - 1} more" if many > 1 else "")
            + f" (units={process.units.name!r}): trajectories and log_prob have it, denoised samples no finer detail; "
            + _cure(process, oblique=seen is not process),
            StartWarning,
            stacklevel=4,
        )
    if process.prior in ("gaussian", "moments") and process.variational_score != "mixture":  # fitted to end there
        gap = gap_of(process, data)
        if gap.clear:
            warnings.warn(str(gap), StartWarning, stacklevel=4)


def _cure(process: ForwardProcess, oblique: bool) -> str:
    """What leaves less noise."""
    points = len(process.shape) == 1 and process.basis.name == "coordinates"  # else a scale a coordinate is no cure
    standardised = ["units='standardised'"] if process.units.name == "raw" and points else []
    cures = ["units='whitened'"] if oblique else standardised
    cures += ["a smaller beta", *(["a method with velocity"] if process.k == 1 else [])]
    return f"{' or '.join(cures)} leaves less"
