"""The mean field of (13) on Gaussian data, exact: its zeros and slopes, and how far A is from the steered one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from repro.studies.convergence import Array, BasisNoise, exact_moments, free_gradient, gaussian_process
from repro.studies.derivations import Zero, forward_covariance
from vsmd.adaptation import Adaptation
from vsmd.processes import ForwardProcess
from vsmd.scores import Score
from vsmd.steering import Steering
from vsmd.training.adapting import backward_moments

READINGS = {  # what of `Adaptation` each changes; all with the gradient rule but one, none with a terminal constraint
    "duality": {},
    "A_v free": {"free": "A_v"},
    "z = s": {"policy": "score"},
    "Algorithm 2's start": {"start": "terminal"},
    "exact minimiser": {"rule": "minimiser"},
}
GAUSS = 12  # Gauss nodes in time: A* to 1e-9


def adaptation(reading: str, nodes: int = GAUSS, paths: int = 1) -> Adaptation:
    """The `Adaptation` of a reading, without the terminal constraint: (13) alone."""
    fields = {"rule": "gradient", **READINGS[reading]}
    return Adaptation(nodes=nodes, paths=paths, max_prior_kl=None, **fields)  # type: ignore[arg-type]


def mean_field(reading: str, method: str, std: float, beta: float, s: Array) -> Array:
    """h(A) = dJ/dA_x along (14) at stiffnesses s (n,), in continuous time."""
    process = gaussian_process(method, std, beta, stiffness=s)
    settings = dataclasses.replace(adaptation(reading), rule="gradient")
    return free_gradient(process, exact_moments(process, settings), settings)


def simulated_field(reading: str, method: str, std: float, beta: float, s: Array, nodes: int) -> Array:
    """The same as the package's simulation on `nodes` steps has it, its sampling noise averaged out exactly."""
    process = gaussian_process(method, std, beta, stiffness=s)
    settings = dataclasses.replace(adaptation(reading, nodes, process.k + nodes), rule="gradient")
    noise = BasisNoise(scale=settings.paths**0.5)
    moments = backward_moments(Score(process, Zero()), settings, 0, 0, noise=noise)
    return free_gradient(process, moments, settings)


def roots(field: Callable[[Array], Array], low: float = 1e-2, high: float = 1e3, tol: float = 1e-9) -> list[float]:
    """Zeros of a field of the stiffness in [low, high]: changes of sign on a logarithmic grid, each zoomed into."""
    grid = np.geomspace(low, high, 40)
    values = field(grid)
    zeros = []
    for i in np.flatnonzero((values[:-1] * values[1:] < 0) & (np.abs(values[:-1]) > 1e-12)):
        a, b, sign = grid[i], grid[i + 1], values[i]
        while b / a - 1 > tol:
            inner = np.geomspace(a, b, 12)
            j = max(1, int(np.argmax(field(inner) * sign <= 0)))
            a, b = inner[j - 1], inner[j]
        zeros.append(float((a * b) ** 0.5))
    return zeros


def slope_at(field: Callable[[Array], Array], s: float, per_a: float) -> float:
    """dh/dA at stiffness s, where A = (1 - s)/per_a."""
    h = 1e-4 * s
    up, down = field(np.array([s + h, s - h]))
    return float(-per_a * (up - down) / (2 * h))


def stiffness_per_a(process: ForwardProcess) -> float:
    """-ds/dA_x: 2 gamma, or 2 without velocity."""
    return 2 * (process.gamma if process.k == 2 else 1.0)


def steered(process: ForwardProcess) -> Steering:
    """The steered A for a process's data: what A should be among linear ones, in closed form."""
    c = None if process.damping is None else 2 / process.gamma * process.damping**0.5
    return Steering(process.known().var.sqrt(), c, process.gamma, process.schedule, process.reference_variance())


def forward_gap(process: ForwardProcess, times: torch.Tensor, d: Array) -> float:
    r"""KL in nats of the forward process's paths against one whose A differs by -d (n, dim, k) at uniform midpoints.

    Girsanov: \int (beta gamma/2) E(d a)^2 dt under the process itself, summed over directions.
    """
    s = forward_covariance(process, times.numpy())
    square = np.einsum("ndi,ndij,ndj->n", d, s, d)
    rate = process.schedule.beta(times).numpy() * (process.gamma if process.k == 2 else 1.0)
    return float((0.5 * rate * square).mean())


def differences(process: ForwardProcess, stiffness: torch.Tensor, friction: torch.Tensor) -> Array:
    """A of other rates less that of a momentum process, (pieces, dim, 2) in (x, v)."""
    gap = (process.stiffness - stiffness).numpy() / (2 * process.gamma), (process.friction - friction).numpy() / 2
    return np.stack(gap, -1)
