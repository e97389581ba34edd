"""Samples of a trained model for a table: drawn within a number of evaluations, which are counted, not assumed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def drawn(
    model: Model, samples: int, solver: str, nfe: int, seed: int, batch_size: int = 20_000, denoise: bool = False
) -> Tensor:
    """Samples (n, *shape) within `nfe` network calls a path, denoised by the last of them or not; nan what diverged."""
    steps = 1 if solver == "rk45" else max(1, (nfe - denoise) // as_solver(solver).evaluations)
    nan = torch.full((1,), float("nan"))
    try:
        x = model.sample(samples, solver, steps, seed, grid_power=GRID_POWER, batch_size=batch_size, denoise=denoise)
    except FloatingPointError:
        return nan.expand(samples, *model.process.shape)
    return torch.where(torch.isfinite(x), x, nan)
