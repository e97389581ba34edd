"""What a process tells others: its transition law, and the coefficients of drift and score at given times."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Transition(NamedTuple):
    """Law of a_t given x_0: mean F (..., k, k) applied to (x_0, 0), covariance Sigma_t (..., k, k); float64."""

    mean: Tensor
    cov: Tensor


class Coefficients(NamedTuple):
    """What solvers and scores need at each of n times, tensors (n, 1 or *shape), in the dtype asked for.

    rates: stiffness and friction (s, c), or (D,). Reverse flow in r = T - t: dx/dr = -beta/2 v, dv/dr = row . a + noise
    s_v (probability flow: half the noise), row = beta/2 (s, gamma c); overdamped: dx/dr = row x + noise s, row = beta/2
    D. The score is s = gain . a + out net(inp . a, log_snr).

    Of a mixture process s is the score less the control c = grad_v log phi_t: the SDE stays as it is, and the flow has
    noise (s - c)/2. potential: phi_t; linear: what the flow has on a beyond what keeps its second moments; clean:
    E[x_0 | a] = std (clean_0 z + clean_1 net). Empty for linear processes.
    """

    beta: Tensor
    rates: tuple[Tensor, ...]
    row: tuple[Tensor, ...]
    noise: Tensor
    inp: tuple[Tensor, ...]
    gain: tuple[Tensor, ...]
    out: Tensor
    log_snr: Tensor
    kappa: Tensor
    potential: tuple[Tensor, ...] = ()
    linear: tuple[Tensor, ...] = ()
    clean: tuple[Tensor, ...] = ()

    def map(self, f: Callable[[Tensor], Tensor]) -> Coefficients:
        """Apply `f` to every tensor."""
        values = (tuple(map(f, v)) if isinstance(v, tuple) else f(v) for v in self)
        return Coefficients(*values)  # type: ignore[arg-type]

    def at(self, index: int | slice | Tensor) -> Coefficients:
        """Coefficients at one time (index) or several."""
        return self.map(lambda e: e[index])
