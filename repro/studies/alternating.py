"""Two networks trained in turn, as bridges are: each for some steps while the other, averaged, makes its data."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vsmd import checks, random
from vsmd.training.trainer import SCHEDULES

N = TypeVar("N", bound=nn.Module)
Loss = Callable[[int, int, torch.Generator], Tensor]


@dataclass
class Fitting(Generic[N]):
    """A network in training: Adam, whose rate falls as a cosine over all stages, and the average of its weights."""

    policy: N
    rate: float
    ema: float
    average: N = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.policy).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.rate, fused=True)

    def descend(self, loss: Tensor, share: float) -> None:
        """A step at a share of the training."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * SCHEDULES["cosine"](share)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.step += 1
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.policy.parameters()), 1 - decay)


def alternate(
    halves: Sequence[tuple[Fitting[Any], Loss]],
    stages: int,
    inner: int,
    seed: int,
    on_stage: Callable[[int, float], Any],
) -> None:
    """`stages` times `inner` steps of each half on its loss(stage, step, stream); on_stage(stage, seconds) after each.

    seconds: processor time of the training so far, which other work on the machine does not lengthen.

    Raises ValueError for sizes < 1, FloatingPointError when weights are not finite.
    """
    checks.positive_int("stages", stages)
    checks.positive_int("inner", inner)
    seconds = 0.0
    for stage in range(stages):
        began = time.process_time()
        for half, (fitting, loss) in enumerate(halves):
            for step in range(inner):
                stream = random.generator(seed, "bridge", stage, half, step)
                fitting.descend(loss(stage, step, stream), (stage + step / inner) / stages)
        seconds += time.process_time() - began
        if not all(bool(torch.isfinite(p).all()) for f, _ in halves for p in f.average.parameters()):
            rate = halves[0][0].rate
            raise FloatingPointError(f"stage {stage}: policies are not finite; learning_rate={rate:g} is high")
        on_stage(stage, seconds)
