"""Samples of a trained model for a table: drawn within a number of evaluations, which are counted, not assumed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vsmd.model import Model
from vsmd.samplers import solver_class

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


def drawn(model: Model, samples: int, solver: str, nfe: int, seed: int, batch_size: int = 20_000) -> Tensor:
    """Samples (n, *shape) after about `nfe` network calls a path; what diverged is nan."""
    steps = 1 if solver == "rk45" else max(1, nfe // solver_class(solver).evaluations)
    nan = torch.full((1,), float("nan"))
    try:
        x = model.sample(samples, solver, steps, seed, grid_power=GRID_POWER, batch_size=batch_size)
    except FloatingPointError:
        return nan.expand(samples, *model.process.shape)
    return torch.where(torch.isfinite(x), x, nan)
