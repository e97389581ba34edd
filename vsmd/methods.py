"""The methods as one table, and the damping transform that ties friction to stiffness."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Method(NamedTuple):
    """One method of the family: a row of `METHODS`.

    k: order of the dynamics, 1 (x alone) or 2 (x and v). variational_score: how A is found unless told otherwise.
    damping: default R of the damping transform; None without velocity. stiffness: of the reference, 1 where A = 0.
    early_stop: whether generation ends before t = 0 on purpose, so that samples are not denoised.
    """

    k: int
    variational_score: str
    damping: float | None
    stiffness: float = 1.0
    early_stop: bool = False


METHODS: dict[str, Method] = {
    "SGM": Method(1, "zero", None),  # overdamped baseline (VP)
    "VSDM": Method(1, "adaptive", None),  # its variational form, the predecessor
    "CLD": Method(2, "zero", 1.0),  # momentum baseline, critical damping
    "ULD": Method(2, "zero", 0.7),  # momentum baseline, underdamped: its stationary law is N(0, I/sqrt R)
    "VSCLD": Method(2, "adaptive", 1.0),  # VSMD, critical
    "VSULD": Method(2, "adaptive", 0.7),  # VSMD, underdamped
    # the latent Schrödinger bridge (`vsmd.latent`): Brownian motion from the data, A = 1/2, stopped early
    "LSBDM": Method(1, "fixed", None, stiffness=0.0, early_stop=True),
}
FAMILY = ("SGM", "VSDM", "CLD", "ULD", "VSCLD", "VSULD")  # the six that the paper compares


def tied_friction(stiffness: Tensor, gamma: float, damping: float) -> Tensor:
    """c = (2/gamma) sqrt(R s): the friction that the damping transform (14) ties to a stiffness."""
    return (2 / gamma) * (damping * stiffness).sqrt()
