"""Local scales, and what the network of increments is told of the past: a context has parts, each an entry of `PARTS`.

The parts of a context are "scales" (log of the local over the long-run scale, and of the scale of the last W/6 steps
over the local one), "lags" (the last `lags` values of (y - l)/s), "levels" (l_t in the training part's units) and
"seasons" (Fourier features of the calendar). With a rank r they are those of the leading axes: scales and levels are
means over the series with an axis's squared entries as weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vsmd import checks
from vsmd.forecasting.series import fourier

if TYPE_CHECKING:
    from vsmd.forecasting.increments import Increments

PSEUDO = 1.0  # weight, in steps, of the long-run scale in a local one
CLIP = 8.0  # standardised increments are winsorised: a broken peg is one event, not a law
HARMONICS = 2


@dataclass(frozen=True, eq=False)
class Past:
    """What is known before a step, or before many (…).

    sums: of the squares of (y - l)/rho and of the number of values over the last W steps, then the same two over the
    fast window, (…, d) each; recent (…, lags, d): the last (y - l)/rho; level: l (…, d); position (…,) in the calendar.
    """

    sums: Sequence[Tensor]
    recent: Tensor
    level: Tensor
    position: Tensor

    @cached_property
    def local(self) -> Tensor:
        """The local scale in units of the long-run one (…, d)."""
        return ((self.sums[0].clamp(min=0) + PSEUDO) / (self.sums[1] + PSEUDO)).sqrt()


class Part(NamedTuple):
    """Of a context: width (representation, r) for r modelled directions, values (representation, past) (…, width).

    sign: -1 where the mirror image of the past, its increments with the other sign, has minus these values.
    """

    width: Callable[[Increments, int], int]
    values: Callable[[Increments, Past], Tensor]
    sign: int = 1


def _scales(representation: Increments, past: Past) -> Tensor:
    local, weighted = past.local, representation.weighted
    fast = ((past.sums[2].clamp(min=0) + PSEUDO * local.square()) / (past.sums[3] + PSEUDO)).sqrt()
    return torch.cat([weighted(local.log()), weighted((fast / local).log())], -1)


def _lags(representation: Increments, past: Past) -> Tensor:
    last = (past.recent / past.local[..., None, :]).clamp(-CLIP, CLIP)
    axes, deviations = representation.axes, representation.deviations
    if axes is not None and deviations is not None:
        last = last @ (axes / deviations)[:, : representation.size(len(axes))]
    return last.flatten(-2)


def _levels(representation: Increments, past: Past) -> Tensor:
    assert representation.centre is not None
    assert representation.spread is not None
    return representation.weighted((past.level - representation.centre) / representation.spread)


def _seasons(representation: Increments, past: Past) -> Tensor:
    waves = fourier(past.position.flatten(), representation.periods, HARMONICS)
    return waves.view(*past.position.shape, -1)


PARTS: dict[str, Part] = {
    "scales": Part(lambda representation, r: 2 * r, _scales),
    "lags": Part(lambda representation, r: representation.lags * r, _lags, sign=-1),
    "levels": Part(lambda representation, r: r, _levels),
    "seasons": Part(lambda representation, r: 2 * HARMONICS * len(representation.periods), _seasons),
}


def check_context(context: Sequence[str] | str) -> tuple[str, ...]:
    """The context's parts as a tuple, each one known; "none" is no part."""
    parts = tuple(context) if isinstance(context, Sequence) and not isinstance(context, str) else (context,)
    return tuple(checks.one_of("context", part, PARTS) for part in parts if part != "none")
