"""Training data as batches that are pure functions of (seed, step): a tensor, or a sampler that draws afresh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from vsmd import random
from vsmd.processes import ForwardProcess

MOMENT_DRAWS = 100_000
HELD = 2**26  # values of a sampler's draws that are held at once

Drawn = Tensor | tuple[Tensor, Tensor]
Sampler = Callable[[int, torch.Generator], Drawn]
Data = Tensor | tuple[Tensor, Tensor] | Sampler


@runtime_checkable
class Streamed(Protocol):
    """A sampler of data too large to be held as floats: its moments are measured batch by batch."""

    def all_batches(self) -> Iterator[Tensor]:
        """All the data once, in tensors (n, *shape)."""


class Batch(NamedTuple):
    """Data points x (n, *shape) and what the network may condition on."""

    x: Tensor
    context: Tensor | None


class Source:
    """Batches from a tensor (n, *shape), a pair (data, context), or a sampler (n, generator) -> either of them."""

    def __init__(self, data: Data, shape: tuple[int, ...]) -> None:
        self.shape, self.data = shape, data
        if not callable(data):
            points, context = data if isinstance(data, tuple) else (data, None)
            self._check(points, least=2)
            if context is not None and len(context) != len(points):
                raise ValueError(
                    f"context: has {len(context)} rows, must have one for each of the {len(points)} points"
                )

    def _check(self, x: object, least: int, values: bool = True) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"data={type(x).__name__}: must be a tensor (n, *shape) or a sampler (n, generator) -> tensor"
            )
        if not x.is_floating_point():
            raise TypeError(f"data: dtype {x.dtype} must be a floating one; convert with .float()")
        if tuple(x.shape[1:]) != self.shape or len(x) < least:
            want = ", ".join(map(str, self.shape))
            raise ValueError(f"data: shape {tuple(x.shape)} must be (n, {want}) with n >= {least}")
        if values and not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
            raise ValueError(f"data: must be finite, {bad} of {len(x)} rows have NaN or inf")

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n points: rows drawn with replacement, or fresh from the sampler."""
        if callable(self.data):
            drawn = self.data(n, generator)
            self._check(drawn[0] if isinstance(drawn, tuple) else drawn, least=1, values=False)
        else:
            points = self.data[0] if isinstance(self.data, tuple) else self.data
            rows = torch.randint(len(points), (n,), generator=generator)
            drawn = (points[rows], self.data[1][rows]) if isinstance(self.data, tuple) else points[rows]
        x, context = drawn if isinstance(drawn, tuple) else (drawn, None)
        return Batch(x.float(), context)

    def moments(self, process: ForwardProcess, seed: int) -> ForwardProcess:
        """The process knowing the data's mean and variance per direction and with its basis fitted.

        Of a tensor or a `Streamed` sampler they are exact, of other samplers those of 100,000 draws.
        """
        if isinstance(self.data, Streamed):
            return process.with_data(self.data.all_batches())
        return process.with_data(self.points(random.generator(seed, "moments")))

    def points(self, generator: torch.Generator) -> Tensor:
        """The data (n, *shape), or so many draws of a sampler as moments and priors are taken from."""
        if not callable(self.data):
            return self.data[0] if isinstance(self.data, tuple) else self.data
        x = self.draw(max(2, min(MOMENT_DRAWS, HELD // math.prod(self.shape))), generator).x
        self._check(x, least=2)
        return x
