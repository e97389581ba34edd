"""Samples of a trained model for a table: drawn within a number of evaluations, which are counted, not assumed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.studies.plans import Draw
from vsmd.model import Model
from vsmd.samplers import as_solver

GRID_POWER = 2.0  # t = u^2, half of the steps in the last quarter of the time; chosen in `choices`, for every method


class Calls:
    """Counts the network's calls while samples are drawn."""

    def __init__(self, network: nn.Module) -> None:
        self.rows = 0
        self.hook = network.register_forward_hook(self._count)

    def _count(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.rows += len(output)

    def a_path(self, samples: Tensor, asked: int) -> int:
        """Evaluations a path since construction, or what was asked for where paths diverged; stops counting."""
        self.hook.remove()
        return round(self.rows / len(samples)) if bool(torch.isfinite(samples).all()) else asked


def drawn(model: Model, samples: int, draw: Draw, seed: int, batch_size: int = 20_000) -> Tensor:
    """Samples (n, *shape) of a plan's draw, within its number of network calls a path; what diverged is nan."""
    calls = draw.evaluations - draw.denoise
    steps = 1 if draw.solver == "rk45" else max(1, calls // as_solver(draw.solver).evaluations)
    options: dict[str, Any] = {"grid_power": GRID_POWER, "batch_size": batch_size, "denoise": draw.denoise}
    nan = torch.full((1,), float("nan"))
    try:
        x = model.sample(samples, draw.solver, steps, seed, **options)
    except FloatingPointError:
        return nan.expand(samples, *model.process.shape)
    return torch.where(torch.isfinite(x), x, nan)
