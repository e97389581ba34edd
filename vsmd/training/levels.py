"""The noise levels of each training step: times stratified over [t_min, 1], and the channel at them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vsmd import kernels, random
from vsmd.processes import ForwardProcess
from vsmd.training.ahead import sent

T_MIN = 1e-3
TABLE = 2**17  # times x directions whose kernels are computed in one call
NODES = 1_025  # of the table that larger batches interpolate in


class Levels:
    """Signal-to-noise amplitude and kappa of the rows of each step's batch, and what else `process.snr` gives.

    Computed exactly, a block of steps in one call, where a step has at most 2^17 times x directions. Above (images)
    they come from a table of log snr and kappa at 1,025 times, equidistant in log t: linear interpolation is within
    5e-4 there, and the pairs of the loss are exact for whatever level they are made at.
    """

    def __init__(self, seed: int, batch_size: int, dim: int, device: torch.device) -> None:
        self.seed, self.batch_size, self.device = seed, batch_size, device
        self.block = max(1, TABLE // (batch_size * dim))  # steps whose kernels are computed in one call
        self.tabled = batch_size * dim > TABLE
        self._times: tuple[int, Tensor] | None = None
        self._tables: tuple[tuple[int, int], list[Tensor]] | None = None

    def times(self, step: int) -> Tensor:
        """The step's times (batch,), float64: stratified within the batch, a stream of their own."""
        return self._block(step // self.block)[step % self.block]

    def _block(self, index: int) -> Tensor:
        if self._times is None or self._times[0] != index:
            stream = random.generator(self.seed, "times", index)
            u = torch.rand(self.block, self.batch_size, generator=stream, dtype=torch.float64)
            strata = (torch.arange(self.batch_size, dtype=torch.float64) + u) / self.batch_size
            self._times = index, T_MIN + (1 - T_MIN) * strata
        return self._times[1]

    def __call__(self, process: ForwardProcess, version: int, step: int, rows: slice) -> tuple[Tensor, ...]:
        """snr and kappa (rows, *shape), float32 on the device, of a process whose A has changed `version` times."""
        if self.tabled:
            return self._interpolated(process, version, self.times(step)[rows])
        key = (step // self.block, version)
        if self._tables is None or self._tables[0] != key:
            times = self._block(key[0]).flatten()
            values = (e.float().expand(len(times), *e.shape[1:]) for e in process.snr(times))
            self._tables = key, [e.view(self.block, self.batch_size, *e.shape[1:]) for e in values]
        row = step % self.block
        return tuple(sent(e[row][rows], self.device) for e in self._tables[1])

    def _interpolated(self, process: ForwardProcess, version: int, t: Tensor) -> tuple[Tensor, ...]:
        key = (0, version)
        if self._tables is None or self._tables[0] != key:
            nodes = torch.logspace(math.log10(T_MIN), 0, NODES, dtype=torch.float64).clamp(max=1)
            snr, *others = (e.expand(NODES, *e.shape[1:]) for e in process.snr(nodes))
            self._tables = key, [e.float().to(self.device) for e in (kernels.log_level(snr), *others)]
        place = (t.log() - math.log(T_MIN)) * ((NODES - 1) / -math.log(T_MIN))
        low = place.long().clamp(0, NODES - 2)
        share = sent((place - low).float().view(-1, *[1] * len(process.shape)), self.device)
        low = sent(low, self.device)
        log_snr, *rest = (torch.lerp(e[low], e[low + 1], share) for e in self._tables[1])
        return log_snr.exp(), *rest
