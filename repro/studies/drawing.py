"""Samples of a trained model for a table: drawn within a number of evaluations, which are counted, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from repro.studies.plans import Draw
from vsmd.model import Model
from vsmd.samplers import as_solver


def counted(network: nn.Module, asked: int, sample: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What `sample` draws, and the network's calls a path meanwhile: where paths diverged, the number asked for."""
    rows = 0

    def count(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal rows
        rows += len(output)

    hook = network.register_forward_hook(count)
    try:
        samples = sample()
    finally:
        hook.remove()
    return samples, round(rows / len(samples)) if bool(torch.isfinite(samples).all()) else asked


def by_prior(model: Model, draws: list[Draw], points: Any, seed: int) -> Iterator[tuple[Model, list[Draw]]]:
    """The model from each prior that draws name, fitted to `points` (as `fit` takes them), and the draws from there."""
    for prior in dict.fromkeys(draw.prior for draw in draws):
        yield model.with_prior(prior, points, seed=seed), [draw for draw in draws if draw.prior == prior]


def peer_columns(method: str, learning_rate: float, steps: int, began: float) -> dict[str, Any]:
    """The columns of a trained peer's setting; its name tells the units of its data. began: by `time.perf_counter`."""
    units = next((name for name in ("standardised", "whitened") if method.endswith(f"-{name}")), "raw")
    return {
        "method": method.removesuffix(f"-{units}"), "units": units, "learning_rate": learning_rate,
        "train_steps": steps, "train_seconds": time.perf_counter() - began,
    }  # fmt: skip


def drawn(model: Model, samples: int, draw: Draw, seed: int, batch_size: int = 20_000) -> Tensor:
    """Samples (n, *shape) of a plan's draw, within its number of network calls a path; what diverged is nan."""
    calls = draw.evaluations - draw.denoise
    steps = 1 if draw.solver == "rk45" else max(1, calls // as_solver(draw.solver).evaluations)
    options: dict[str, Any] = {"grid_power": draw.grid_power, "batch_size": batch_size}
    options |= {"denoise": draw.denoise, "checked": False}  # a row says how wide they are
    nan = torch.full((1,), float("nan"))
    try:
        x = model.sample(samples, draw.solver, steps, seed, **options)
    except FloatingPointError:
        return nan.expand(samples, *model.process.shape)
    return torch.where(torch.isfinite(x), x, nan)
