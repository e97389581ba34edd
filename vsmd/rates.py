"""What a process is before any data: a row of the methods' table, its schedule, and A as rates on pieces of time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vsmd.methods import METHODS, Method, tied_friction
from vsmd.schedules import BetaSchedule


@dataclass(frozen=True, eq=False)
class Rates:
    """Method, schedule and A of a `ForwardProcess`, whose docstring has the equations and the fields.

    constant: stiffness and friction (s, c), or (D,), on the pieces of a uniform grid of [0, 1], each (pieces, *shape)
    float64; a steered process has those of its reference there.
    """

    method: str
    shape: tuple[int, ...]
    schedule: BetaSchedule
    gamma: float
    damping: float | None
    variational_score: str
    constant: tuple[Tensor, ...]

    learned_fields: ClassVar[tuple[str, ...]] = ()  # that hold for one A and the data it was fitted to; else None

    @property
    def row(self) -> Method:
        """The method's row of the table."""
        return METHODS[self.method]

    @property
    def k(self) -> int:
        """Order of the dynamics: 1 overdamped, 2 with velocity."""
        return self.row.k

    @property
    def dim(self) -> int:
        """Number of data coordinates d."""
        return math.prod(self.shape)

    @property
    def pieces(self) -> int:
        """Number of pieces of the piecewise-constant A_t."""
        return len(self.constant[0])

    @property
    def steered(self) -> bool:
        """Whether A_t is the closed form in the data's moments."""
        return self.variational_score == "steered"

    @property
    def stiffness(self) -> Tensor:
        """s = 1 - 2 gamma A_x, or D = 1 - 2 A in the overdamped case; (pieces, *shape). See `rates` if steered."""
        return self._on_pieces("stiffness")[0]

    @property
    def friction(self) -> Tensor:
        """c = 1 - 2 A_v, (pieces, *shape); only processes with velocity have one. See `rates` if steered."""
        if self.k == 1:
            raise ValueError(f"friction: {self.method} has no velocity; CLD, ULD, VSCLD and VSULD have")
        return self._on_pieces("friction")[1]

    @property
    def a_x(self) -> Tensor:
        """A_x = (1 - s)/(2 gamma), or A = (1 - D)/2 in the overdamped case; (pieces, *shape)."""
        return (1 - self._on_pieces("A")[0]) / (2 * self.per_a)

    @property
    def a_v(self) -> Tensor | None:
        """A_v = (1 - c)/2, (pieces, *shape); None without velocity."""
        return None if self.k == 1 else (1 - self._on_pieces("A")[1]) / 2

    @property
    def per_a(self) -> float:
        """-1/2 of the stiffness's change per unit of A: gamma, or 1 without velocity."""
        return self.gamma if self.k == 2 else 1.0

    def _on_pieces(self, name: str) -> tuple[Tensor, ...]:
        if self.steered:
            raise ValueError(f"{name}: of a steered process varies with time; rates(t) gives it")
        return self.constant

    def with_rates(self, stiffness: Tensor, friction: Tensor | None = None) -> Self:
        """The same process with this stiffness and – with velocity – friction, (pieces, *shape)."""
        self._on_pieces("A")
        rates = (stiffness,) if self.k == 1 or friction is None else (stiffness, friction)
        return self._anew(constant=tuple(e.to(torch.float64) for e in rates))

    def _anew(self, **changed: Any) -> Self:
        """The same process with other fields, having learned nothing yet."""
        fields: dict[str, Any] = dict.fromkeys(self.learned_fields) | changed
        return dataclasses.replace(self, **fields)

    def with_variational_score(self, a_x: Tensor, a_v: Tensor | None) -> Self:
        """The same process with this A_x and – with velocity – A_v, (pieces, *shape)."""
        return self.with_rates(1 - 2 * self.per_a * a_x, None if a_v is None else 1 - 2 * a_v)

    def with_stiffness(self, stiffness: Tensor) -> Self:
        """The same process with this stiffness (pieces, *shape), > 0 with velocity, and the friction tied to it."""
        least = float(stiffness.min()) if bool(torch.isfinite(stiffness).all()) else math.nan
        if math.isnan(least) or (self.k == 2 and least <= 0):
            raise ValueError(f"stiffness={least:.4g} at its least: must be finite and > 0")
        tied = None if self.damping is None else tied_friction(stiffness, self.gamma, self.damping)
        return self.with_rates(stiffness, tied)

    def reference_variance(self) -> float:
        """Per-component variance of the reference's stationary law (A_x = 0): 1, or gamma/(2 sqrt R) with velocity."""
        return 1.0 if self.damping is None else self.gamma / (2 * math.sqrt(self.damping))
