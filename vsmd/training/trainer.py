"""All that a training run is at a given step: channel pairs in, a step of Adam out, A adapted on the way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import adaptation as adapt
from vsmd import random
from vsmd.adaptation import Adaptation
from vsmd.model import Model
from vsmd.networks.mlp import MLP
from vsmd.processes import ForwardProcess
from vsmd.scores import Score, hybrid_pair, in_directions, plain_pair
from vsmd.training.adapting import backward_moments
from vsmd.training.data import Batch, Data, Source

T_MIN = 1e-3
TABLE = 2**17  # times x directions whose kernels are computed in one call
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda u: 1.0,
    "cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)),
    "step": lambda u: 0.99 ** math.floor(100 * u),  # the paper's decay by .99, a hundred times over the run
}


class Trainer:
    """All that a run is at a given step; `fit` drives it. Everything random is a function of (seed, step)."""

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
        seed: int,
        device: torch.device,
    ) -> None:
        self.source = Source(data, process.shape)
        process = self.source.moments(process, seed)
        self.adapts = process.variational_score == "adaptive"
        self.how = adaptation or Adaptation()
        if self.adapts and process.pieces != self.how.pieces:
            process = process.with_stiffness(process.stiffness[:1].expand(self.how.pieces, *process.shape))
        self.process = process
        self.least = adapt.least_stiffness(process, self.how) if self.adapts else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.generator(seed, "network").initial_seed())
            self.network = (MLP(process.shape) if network is None else copy.deepcopy(network)).to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.parameters: list[Tensor] = list(self.network.parameters())
        self.averages: list[Tensor] = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.0, fused=True)
        self.steps, self.batch_size, self.rate, self.decay = (
            steps,
            batch_size,
            learning_rate,
            SCHEDULES[schedule],
        )
        self.ema, self.clip, self.seed, self.device = ema, clip, seed, device
        self.rounds = {step: k for k, step in enumerate(self.how.schedule(steps))} if self.adapts else {}
        self.block = max(1, TABLE // (batch_size * process.dim))  # steps whose kernels are computed in one call
        self.history: list[dict[str, Any]] = []
        self.step = 0
        self._tables: tuple[tuple[int, int], Tensor, Tensor] | None = None

    # --- one step ---------------------------------------------------------------------------------------------------
    def levels(self) -> tuple[Tensor, Tensor]:
        """Signal-to-noise amplitude and kappa of this step's times, (batch, *shape) float32; computed by the block.

        The times of a block are stratified over [t_min, 1] within each batch, a stream of their own.
        """
        key = (self.step // self.block, len(self.history))
        if self._tables is None or self._tables[0] != key:
            stream = random.generator(self.seed, "times", key[0])
            u = torch.rand(self.block, self.batch_size, generator=stream, dtype=torch.float64)
            strata = (torch.arange(self.batch_size, dtype=torch.float64) + u) / self.batch_size
            self._times = T_MIN + (1 - T_MIN) * strata
            snr, kappa = self.process.snr(self._times.flatten())
            shape = (self.block, self.batch_size, *self.process.shape)
            self._tables = key, snr.float().view(shape), kappa.float().view(shape)
        row = self.step % self.block
        return self._tables[1][row], self._tables[2][row]

    def batch(self) -> tuple[Batch, torch.Generator]:
        """This step's data and the stream that its noise continues."""
        stream = random.generator(self.seed, "batch", self.step)
        return self.source.draw(self.batch_size, stream), stream

    def loss(self) -> Tensor:
        """E kappa^2 |target - net|^2, averaged over directions."""
        (x, context), stream = self.batch()
        snr, kappa = self.levels()
        if self.process.score_matching == "plain":
            times = self._times[self.step % self.block]
            z, target = plain_pair(self.process, self.process.to_directions(x), times, stream)
        else:
            std = self.process.known().var.sqrt().float()
            xi = self.process.to_directions(x) / torch.where(std > 0, std, torch.ones_like(std))
            z, target = hybrid_pair(xi, snr, torch.randn(xi.shape, generator=stream))
        log_snr = snr.clamp(min=1e-12).log()
        moved = [v.to(self.device) for v in (z, log_snr, target, kappa.square())]
        given = None if context is None else context.to(self.device)
        out = in_directions(self.network, self.process, moved[0], moved[1], given)
        return (moved[3] * (out - moved[2]).square()).mean()

    def advance(self) -> Tensor:
        """One optimiser step, the EMA, and A's adaptation where this step has one; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self.decay(self.step / self.steps)
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        self.step += 1
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        if self.step in self.rounds:
            self.adapt(self.rounds[self.step])
        return loss.detach()

    def averaged(self) -> nn.Module:
        """The network with averaged weights; buffers (running statistics) are the latest."""
        for old, new in zip(self.average.buffers(), self.network.buffers()):
            old.copy_(new)
        return self.average

    def adapt(self, k: int) -> None:
        """Round k of the stochastic approximation, with the averaged network."""
        context = self.source.draw(self.how.paths, random.generator(self.seed, "adaptation context", k)).context
        if context is not None:
            context = context.to(self.device)
        moments = backward_moments(Score(self.process, self.averaged()), self.how, self.seed, self.step, context, T_MIN)
        assert self.least is not None
        self.process = adapt.update(self.process, moments, self.how, k, self.least)
        row: dict[str, Any] = {
            "step": self.step,
            "eta": self.how.step_size(k),
            "stiffness": self.process.stiffness.tolist(),
        }
        self.history.append(row)

    def model(self) -> Model:
        """The model as it stands: the current process, with a prior fitted to it, and the averaged network."""
        process = self.process
        if process.prior in ("mixture", "empirical"):
            points = self.source.points(random.generator(self.seed, "prior data"))
            process = process.with_prior(process.prior, points, seed=self.seed)
        return Model(process, copy.deepcopy(self.averaged()).eval(), list(self.history), T_MIN)
