"""What benches share: interleaved pairs of timings, and the trainings that they time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vsmd
from vsmd.couplings import MixtureFit
from vsmd.training.data import Data
from vsmd.training.trainer import Trainer


def paired(ours: Callable[[], object], reference: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both and the median of their ratio, timed alternately so that both see the same machine."""
    ours(), reference()
    pairs = []
    for _ in range(rounds):
        begin = time.perf_counter()
        ours()
        middle = time.perf_counter()
        reference()
        pairs.append((middle - begin, time.perf_counter() - middle))
    first, second = zip(*pairs)
    return statistics.median(first), statistics.median(second), statistics.median(a / b for a, b in pairs)


def trainer_of(
    process: vsmd.ForwardProcess, data: Data, network: nn.Module, batch_size: int, mixture: MixtureFit | None = None
) -> Trainer:
    """A training that is far from its adaptation of A, with the settings that every bench has."""
    return Trainer(
        process, data, network, steps=10_000, batch_size=batch_size, learning_rate=1e-3, schedule="cosine", ema=0.999,
        clip=1.0, adaptation=vsmd.Adaptation(begin=0.9, end=1.0), seed=0, device=torch.device("cpu"), mixture=mixture,
    )  # fmt: skip


def bare_steps(network: nn.Module, arguments: tuple[Tensor, ...], target: Tensor, steps: int) -> Callable[[], object]:
    """A function that takes steps of the network alone, all on one batch: forward, backward and optimiser."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(*arguments), target).backward()
            optimizer.step()

    return run
