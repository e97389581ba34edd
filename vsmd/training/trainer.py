"""All that a training run is at a given step: pairs in, a step of Adam out, A adapted on the way."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vsmd import adaptation as adapt
from vsmd import checks, diagnostics, memory, moments, networks, random
from vsmd.adaptation import Adaptation
from vsmd.couplings import MixtureFit
from vsmd.model import Model
from vsmd.priors import COMPONENTS
from vsmd.processes import ForwardProcess
from vsmd.scores import Score
from vsmd.training import conditioning, pairs
from vsmd.training.adapting import backward_moments
from vsmd.training.ahead import Ahead, sent
from vsmd.training.compute import Compute
from vsmd.training.data import Batch, Data, Source
from vsmd.training.distributed import World, unsynced
from vsmd.training.levels import T_MIN, Levels
from vsmd.training.pairs import Pairs, plain_pairs

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda u: 1.0,
    "cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)),
    "step": lambda u: 0.99 ** math.floor(100 * u),  # the paper's decay by .99, a hundred times over the run
}


class Rows(NamedTuple):
    """This process's rows of a step's batch: standardised data, noise (both (rows, *shape)) and context.

    ends: Delta (rows, k, *shape) of a mixture process's coupling, else None.
    """

    xi: Tensor
    noise: Tensor
    context: Tensor | None
    ends: Tensor | None


class Trainer:
    """All that a run is at a given step; `fit` drives it. Everything random is a function of (seed, step).

    Where several processes train together, each draws the whole batch and keeps its own rows of it; gradients are
    averaged, and A's moments are simulated in parts.
    """

    def __init__(
        self,
        process: ForwardProcess,
        data: Data,
        network: nn.Module | None,
        *,
        steps: int,
        batch_size: int,
        learning_rate: float,
        schedule: str,
        ema: float,
        clip: float,
        adaptation: Adaptation | None,
        weighting: str = "score",
        seed: int,
        device: torch.device,
        compute: Compute | None = None,
        context_dropout: float = 0.0,
        mixture: MixtureFit | None = None,
        progress: bool = False,
    ) -> None:
        self.steps, self.batch_size = checks.positive_int("steps", steps), checks.positive_int("batch_size", batch_size)
        self.rate = checks.positive("learning_rate", learning_rate)
        self.schedule = checks.one_of("schedule", schedule, SCHEDULES)
        self.ema, self.clip = checks.in_range("ema", ema, 0.0, 1.0), checks.in_range("clip", clip, 0.0, math.inf)
        self.context_dropout = checks.in_range("context_dropout", context_dropout, 0.0, 0.99)
        self.adaptation, self.seed, self.device = adaptation or Adaptation(), int(seed), device
        self.compute, self.world = compute or Compute(), World.current()
        self._check_parts()
        self.source = Source(data, process.shape)
        self.context_digest = self.source.context_digest(random.generator(seed, "contexts"))
        process, self.mixture = self.source.moments(process, seed), mixture or MixtureFit()
        process = process.coupled(
            lambda: self.source.points(random.generator(seed, "mixture data")), self.mixture, seed, progress
        )
        self.adapts = process.variational_score == "adaptive"
        if self.adapts and process.pieces != self.adaptation.pieces:
            process = process.with_stiffness(process.stiffness[:1].expand(self.adaptation.pieces, *process.shape))
        self.process = process
        sizes = (v for k, v in process.units.tensors.items() if k != "axes")
        self.seen = process.known().mean, math.prod(sizes, start=process.known().std)  # both in the data's own units
        self.least = adapt.least_stiffness(process, self.adaptation) if self.adapts else None
        with random.first_weights(random.generator(seed, "network")):
            network = conditioning.default_network(self.source, seed) if network is None else copy.deepcopy(network)
        self.weighting = pairs.weighting_of(weighting, network)
        self.network = self.compute.laid_out(network.to(device))
        self.world.check_same({k: v for k, v in self.settings.items() if k != "data"}, *self.seen)
        self.wrapped = self.world.wrapped(self.network)
        self.called = self.compute.called(self.wrapped)  # the same weights, as training calls them
        self.average = copy.deepcopy(self.network).eval()
        conditioning.check(self.source, Score(process, self.average), self.context_dropout, seed)
        self.parameters: list[Tensor] = list(self.network.parameters())
        self.averages: list[Tensor] = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=0.0, fused=True)
        self.rounds = {step: k for k, step in enumerate(self.adaptation.schedule(steps))} if self.adapts else {}
        self.levels = Levels(seed, batch_size, process.dim, device)
        self.history: list[dict[str, Any]] = []
        self.losses: list[Tensor] = []  # of the steps since the last look
        self.step = self.saved = self.micro = 0  # saved: the step of the last checkpoint; micro: within a step
        self.drawn: Callable[[int], Rows] = Ahead(self.draw) if device.type == "cuda" else self.draw

    def _check_parts(self) -> None:
        parts = self.world.size * self.compute.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size}: must be a multiple of {parts}, processes ({self.world.size}) times "
                f"micro-batches ({self.compute.accumulate})"
            )

    def check(self) -> None:
        """What can be known before the first step: ValueError where the steering or the prior would fail after all."""
        process, least = self.process, self.least
        if process.prior == "mixture" and self.source.count < COMPONENTS:
            raise ValueError(
                f"prior='mixture': {self.source.count} points; must be at least {COMPONENTS}, one a component"
            )
        if least is not None:  # what A is held to from its first round on
            process = process.with_stiffness(torch.maximum(process.stiffness, least))
        assert process.dynamics
        if self.world.first:
            n = min(self.source.count, diagnostics.DRAWS, max(2, diagnostics.VALUES // process.dim))
            diagnostics.warn(process, self.source.some(n, random.generator(self.seed, "before training")), T_MIN)

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have been written with to be resumed: plain values (JSON)."""
        process = self.process
        return {
            "process": process.settings,
            "variational_score": None if self.adapts else process.constant[0].flatten()[:8].tolist(),
            "data": moments.told(*self.seen),
            "network": networks.describe(self.network), "steps": self.steps, "batch_size": self.batch_size,
            "learning_rate": self.rate, "schedule": self.schedule, "ema": self.ema, "clip": self.clip,
            "weighting": self.weighting, "seed": self.seed, "adaptation": dataclasses.asdict(self.adaptation),
            "mixture": dataclasses.asdict(self.mixture) if process.controlled else None,
            "precision": None if self.compute.precision == "float32" else self.compute.precision,
            "context_dropout": self.context_dropout or None, "context": self.context_digest,
        }  # fmt: skip

    def batch(self, step: int | None = None) -> tuple[Batch, torch.Generator]:
        """The data of `step`, by default this one, and the stream that its noise continues."""
        step = self.step if step is None else step
        stream = random.generator(self.seed, "batch", step)
        x, context = self.source.draw(self.batch_size, stream)
        if self.context_dropout and context is not None and self.source.conditioning is not None:
            share = torch.rand(len(x), generator=random.generator(self.seed, "context dropout", step))
            context = self.source.conditioning.without(context, share < self.context_dropout)
        return Batch(x, context), stream

    def draw(self, step: int) -> Rows:
        """This process's rows of the batch of `step`, standardised, and their noise; a pure function of the step."""
        (x, context), stream = self.batch(step)
        rows = self.world.rows(len(x))
        xi, noise = self.process.standardised(x[rows]), torch.randn(x.shape, generator=stream)[rows]
        ends = self.process.ends(x, stream)
        drawn = Rows(xi, noise, *(None if v is None else v[rows] for v in (context, ends)))
        if self.device.type == "cpu":
            return drawn
        return Rows(*(None if v is None else v.pin_memory() for v in drawn))  # type: ignore[arg-type]

    def pairs(self) -> Pairs:
        """Inputs and targets of this process's rows."""
        rows = self.world.rows(self.batch_size)
        if self.process.score_matching == "plain":
            (x, context), stream = self.batch()
            x = self.process.to_directions(x)
            whole = plain_pairs(self.process, x, self.levels.times(self.step), stream, context, self.weighting)
            return whole.map(lambda v: v.expand(len(x), *v.shape[1:])[rows].to(self.device))
        levels = self.levels(self.process, len(self.history), self.step, rows)
        xi, noise, context, ends = (None if v is None else sent(v, self.device) for v in self.drawn(self.step))
        assert xi is not None
        assert noise is not None
        return pairs.at_levels(xi, levels, noise, ends, context, self.weighting)

    def loss(self) -> Tensor:
        """The loss of the micro-batch that the step is at."""
        if self.micro == 0:
            self._pairs = self.pairs()
        size = len(self._pairs.z) // self.compute.accumulate
        rows = slice(self.micro * size, (self.micro + 1) * size)
        return pairs.loss(self.called, self.process.basis, self._pairs.map(lambda v: v[rows]))

    def gradient(self) -> Tensor:
        """Put the step's gradient into the parameters, averaged over all processes; return this one's loss."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for micro in range(self.compute.accumulate):
            self.micro = micro
            last = micro == self.compute.accumulate - 1
            with nullcontext() if last else unsynced(self.wrapped):
                loss = self.loss() / self.compute.accumulate
                loss.backward()
            losses.append(loss.detach())
        self.micro = 0
        return torch.stack(losses).sum()

    def advance(self) -> Tensor:
        """One optimiser step, the EMA, and A's adaptation where this step has one; returns this process's loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * SCHEDULES[self.schedule](self.step / self.steps)
        loss = self.gradient()
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        self.step += 1
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():  # else the averages would hold on to the graph of all steps before
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        if self.step in self.rounds:
            self.adapt(self.rounds[self.step])
        memory.give_back()
        return loss

    def averaged(self) -> nn.Module:
        """The network with averaged weights; buffers (running statistics) are the latest."""
        for old, new in zip(self.average.buffers(), self.network.buffers()):
            old.copy_(new)
        return self.average

    def adapt(self, k: int) -> None:
        """Round k of the stochastic approximation, with the averaged network."""
        context = self.source.draw(self.adaptation.paths, random.generator(self.seed, "adaptation context", k)).context
        if context is not None:
            context = context.to(self.device)
        score = Score(self.process, self.averaged())
        moments = backward_moments(score, self.adaptation, self.seed, self.step, context, T_MIN, self.world)
        assert self.least is not None
        moved = adapt.update(self.process, moments, self.adaptation, k, self.least)
        self.process = moved.with_rates(*(self.world.shared(rate) for rate in moved.constant))
        row: dict[str, Any] = {
            "step": self.step,
            "eta": self.adaptation.step_size(k),
            "stiffness": self.process.stiffness.tolist(),
        }
        self.history.append(row)

    def close(self) -> None:
        """End the thread that makes batches, where there is one."""
        if isinstance(self.drawn, Ahead):
            self.drawn.close()

    def model(self) -> Model:
        """The model as it stands: the current process, with a prior fitted to it, and the averaged network."""
        process = self.process
        if process.prior in ("mixture", "empirical"):
            points = self.source.points(random.generator(self.seed, "prior data"))
            process = process.with_prior(process.prior, points, seed=self.seed)
        network = copy.deepcopy(self.averaged()).eval()
        return Model(process, network, list(self.history), T_MIN, self.context_dropout)
