"""Training data as batches that are pure functions of (seed, step): a tensor, or a sampler that draws afresh."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from vsmd import random
from vsmd.data.kinds import DRAWS, HELD, as_tensors
from vsmd.networks.contexts import Conditioning
from vsmd.processes import ForwardProcess

DIGESTED = 64  # draws of a sampler, whose contexts stand for all

Points = Tensor | tuple[Tensor, Tensor]  # alone, or with the context of each
Sampler = Callable[[int, torch.Generator], Points]
Data = Any  # points, a pair (points, context) or a sampler: all that `as_tensors` takes


@runtime_checkable
class Streamed(Protocol):
    """A sampler of data too large to be held as floats: its moments are measured batch by batch."""

    def all_batches(self) -> Iterator[Tensor]:
        """All the data once, in tensors (n, *shape)."""


@dataclass(frozen=True)
class _Batches:
    """The batches of a streamed sampler, as often as they are asked for."""

    sampler: Streamed

    def __iter__(self) -> Iterator[Tensor]:
        return self.sampler.all_batches()


def _real(x: Tensor) -> Tensor:
    """x in float32; float64 stays, since it is centred first."""
    return x if x.dtype == torch.float64 else x.float()


def _check_finite(name: str, rows: Tensor) -> None:
    """ValueError for rows with NaN or inf; of all that are good one sum is taken."""
    if not bool(rows.sum().isfinite()) and (bad := int((~rows.isfinite()).reshape(len(rows), -1).any(1).sum())):
        raise ValueError(f"{name}: must be finite, {bad} of {len(rows)} rows have NaN or inf")


class Batch(NamedTuple):
    """Data points x (n, *shape), float32 or float64 as they are, and what the network may condition on."""

    x: Tensor
    context: Tensor | None


class Source:
    """Batches from points (n, *shape), a pair (points, context), or a sampler (n, generator) -> either of them.

    Points and contexts: whatever `as_tensors` takes. Batches are on the CPU, wherever the data are.
    """

    def __init__(self, data: Data, shape: tuple[int, ...]) -> None:
        data = as_tensors(data)
        self.shape, self.sampler = shape, data if callable(data) else None
        self.conditioning: Conditioning | None = None  # of the network, once it is known
        if not callable(data):
            self.x, context = data if isinstance(data, tuple) else (data, None)
            self._check(self.x)
            if context is not None:
                self._check_context(context, len(self.x))
            self.x, self.context = self.x.cpu(), None if context is None else context.cpu()

    def _check(self, x: object, n: int | None = None) -> None:
        """Of n points, two or more where that is not said."""
        if not isinstance(x, Tensor):
            raise TypeError(f"data={type(x).__name__}: must be a tensor (n, *shape)")
        if not x.is_floating_point():
            raise TypeError(f"data: dtype {x.dtype} must be a floating one; convert with .float()")
        if tuple(x.shape[1:]) != self.shape or (len(x) < 2 if n is None else len(x) != n):
            want, count = ", ".join(map(str, self.shape)), "n >= 2" if n is None else f"n = {n}, as it was asked for"
            raise ValueError(f"data: shape {tuple(x.shape)} must be (n, {want}) with {count}")
        _check_finite("data", x)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n points: rows drawn with replacement, or fresh from the sampler, whose answer is checked each time."""
        if self.sampler is None:
            rows = torch.randint(len(self.x), (n,), generator=generator)
            return Batch(_real(self.x[rows]), None if self.context is None else self.context[rows])
        drawn = as_tensors(self.sampler(n, generator))
        x, context = drawn if isinstance(drawn, tuple) else (drawn, None)
        self._check(x, n)
        if context is None:
            if self.conditioning is not None:
                raise ValueError(f"context: the sampler has answered without one; must be {self.conditioning}")
            return Batch(_real(x).cpu(), None)
        if self.conditioning is not None:  # else the network's own business: windows of several points, say, with gaps
            self._check_context(context, n)
            context = self.conditioning.checked(context, n)
        return Batch(_real(x).cpu(), context.cpu())

    @staticmethod
    def _check_context(context: Tensor, n: int) -> None:
        if context.ndim == 0 or len(context) != n:
            got = f"has {len(context)} rows" if context.ndim else "is a number"
            raise ValueError(f"context: {got}, must have one for each of the {n} points")
        _check_finite("context", context)

    def context_digest(self, generator: torch.Generator) -> str | None:
        """What tells these contexts from others, of a sampler those of a few draws; None without."""
        context = self.draw(DIGESTED, generator).context if self.sampler is not None else self.context
        if context is None:
            return None
        plain = context.float() if context.is_floating_point() else context.long()
        return hashlib.blake2b(plain.contiguous().numpy().data, digest_size=8).hexdigest()

    def moments(self, process: ForwardProcess, seed: int) -> ForwardProcess:
        """The process knowing the data's mean and variance per direction and with its basis fitted.

        Of a tensor or a `Streamed` sampler they are exact, of other samplers those of 100,000 draws.
        """
        if isinstance(self.sampler, Streamed):
            return process.with_data(_Batches(self.sampler))
        return process.with_data(self.points(random.generator(seed, "moments")))

    def look(self, n: int, generator: torch.Generator) -> Batch:
        """All the data with their contexts, or n draws of a sampler, fewer where they would be too large to hold."""
        if self.sampler is None:
            return Batch(self.x, self.context)
        return self.draw(max(2, min(n, HELD // math.prod(self.shape))), generator)

    def points(self, generator: torch.Generator) -> Tensor:
        """The data (n, *shape), or so many draws of a sampler as moments and priors are taken from."""
        return self.x if self.sampler is None else self.draw(self.count, generator).x

    def some(self, n: int, generator: torch.Generator) -> Tensor:
        """n of the points, none twice; draws of a sampler."""
        if self.sampler is not None:
            return self.draw(n, generator).x
        return _real(self.x[torch.randperm(len(self.x), generator=generator)[:n]])

    @property
    def count(self) -> int:
        """How many `points` there are."""
        return len(self.x) if self.sampler is None else max(2, min(DRAWS, HELD // math.prod(self.shape)))
