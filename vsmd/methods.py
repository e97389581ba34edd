"""The six methods as one table, and the damping transform that ties A_v to A_x."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Method(NamedTuple):
    """One of the six methods: order of the dynamics, whether A is adapted, default damping ratio squared R."""

    k: int
    variational_score: str
    damping: float | None


METHODS = {
    "SGM": Method(1, "zero", None),  # overdamped baseline (VP)
    "VSDM": Method(1, "adaptive", None),  # its variational form, the predecessor
    "CLD": Method(2, "zero", 1.0),  # momentum baseline, critical damping
    "ULD": Method(2, "zero", 0.7),  # momentum baseline, underdamped: its stationary law is N(0, I/sqrt R)
    "VSCLD": Method(2, "adaptive", 1.0),  # VSMD, critical
    "VSULD": Method(2, "adaptive", 0.7),  # VSMD, underdamped
}


def score_of_stiffness(s: Tensor, k: int, gamma: float, damping: float | None) -> tuple[Tensor, Tensor | None]:
    """A from the stiffness: A_x = (1 - s)/(2 gamma), A_v = (1 - c)/2 with c = (2/gamma) sqrt(R s), paper (14)."""
    s = s.double()
    if k == 1:
        return (1 - s) / 2, None
    assert damping is not None
    return (1 - s) / (2 * gamma), (1 - (2 / gamma) * (damping * s).sqrt()) / 2
