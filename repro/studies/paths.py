"""Bend and energy of generated paths.

To be read beside quality: a process that covers too little looks straight.
"""

from __future__ import annotations

from torch import Tensor

from vsmd.metrics._inputs import Array, real


def _path(trajectory: Array, times: Array) -> tuple[Tensor, Tensor]:
    """A trajectory (m + 1, n, *shape) and the steps Δt (m,), all of one sign."""
    x, t = real("trajectory", trajectory), real("times", times)
    if x.ndim < 3 or len(x) < 3:
        raise ValueError(f"trajectory: shape {tuple(x.shape)}; must be (m + 1, n, *shape) with m >= 2 steps")
    if t.shape != x.shape[:1]:
        raise ValueError(f"times: shape {tuple(t.shape)}; must be ({len(x)},), as the trajectory's points")
    steps = t.diff()
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError("times: must increase or decrease strictly")
    return x, steps.to(x.device)


def bend(trajectory: Array, times: Array) -> Tensor:
    """Return the mean bend of paths per coordinate, (*shape): 0 for straight paths at constant speed.

    With v_k = (x_{k+1} - x_k)/Δt on the uniform grid `times` (m + 1,), increasing or decreasing: the mean of |v_{k+1} -
    v_k| / |Δt| over k and the n paths of `trajectory` (m + 1, n, *shape), that is E|ẍ|, in units of x / t². The measure
    of the VSDM notebook, there on 100 steps. ValueError for a grid that is not uniform.
    """
    x, steps = _path(trajectory, times)
    step = steps.mean()
    if (steps / step - 1).abs().max() > 1e-3:
        raise ValueError(f"times: steps from {steps.min():g} to {steps.max():g}; must be a uniform grid")
    return x.diff(n=2, dim=0).abs().mean((0, 1)) / step.square()


straightness = bend  # as the papers and columns of stored tables call it


def _speeds(trajectory: Array, times: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Z₁ - Z₀ (n, d), Ż (m, n, d) and weights Δs (m,), for s = (t - t₀)/(t_m - t₀) in [0, 1]."""
    x, steps = _path(trajectory, times)
    x, weights = x.flatten(2), steps / steps.sum()
    return x[-1] - x[0], x.diff(dim=0) / weights[:, None, None], weights


def rectified_straightness(trajectory: Array, times: Array) -> float:
    """Return S = ∫₀¹ E‖(Z₁ - Z₀) - Ż_s‖² ds of `trajectory` (m + 1, n, *shape), in units of x².

    `times` (m + 1,), uniform or not, is mapped to s = (t - t₀)/(t_m - t₀), so the value depends neither on the horizon
    nor on the direction of time. Paths are taken as linear between the points. Liu, Gong, Liu 2023 (rectified flow).
    """
    chord, speed, weights = _speeds(trajectory, times)
    return ((chord - speed).square().sum(-1).mean(1) * weights).sum().item()


def path_energy(trajectory: Array, times: Array) -> float:
    """Return ∫₀¹ E‖Ż_s‖² ds of `trajectory` (m + 1, n, *shape), in units of x².

    Time is normalised as in `rectified_straightness`: on a horizon T this is T ∫E‖dZ/dt‖² dt. Hence path
    energy = S + E‖Z₁ - Z₀‖², and W₂² of the two ends is the least possible.
    """
    _, speed, weights = _speeds(trajectory, times)
    return (speed.square().sum(-1).mean(1) * weights).sum().item()
