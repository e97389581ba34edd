r"""EDM (Karras et al. 2022), what a user would pick instead: its preconditioning, its law of noise levels, its sampler.

x = y + sigma n. In units of the data's deviation its network learns, with weight 1, the same target as ours at
snr = sigma_data/sigma (`vsmd.training.pairs`): c_skip, c_out and c_in are the rotation of (xi, n), and its weight
undoes c_out. What is its own: log sigma ~ N(-1.2, 1.2^2) for sigma_data = 1/2 in training, and Heun's method in sigma
on sigma_i^(1/7) evenly spaced from 80 to .002, the last step to 0 by Euler. Same network, batches, steps, optimiser,
average and seeds as everything beside it. `edm`: one scale for all coordinates; `-standardised`, `-whitened`: of data
with variance 1 per coordinate, or per principal axis, and mapped back after.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from repro.studies.drawing import counted
from repro.studies.flow_matching import AS_FIT, advanced
from repro.studies.plans import Draw
from vsmd import checks, random
from vsmd.family import forward_process
from vsmd.processes import ForwardProcess
from vsmd.scores import in_directions
from vsmd.training.data import Data
from vsmd.training.pairs import Pairs, hybrid_pairs
from vsmd.training.trainer import Trainer

SCALINGS = {"edm": "coordinates", "edm-standardised": "coordinates", "edm-whitened": "principal"}
DATA = 0.5  # sigma_data of the numbers below
MEAN, STD = -1.2, 1.2  # of log sigma in training
LOW, HIGH, POWER = 0.002, 80.0, 7.0  # sigma of the sampler's grid, and rho
OPTIONS = ("grid_power", "sigma_max")  # of a plan's lines: rho and the grid's largest sigma


@dataclass(frozen=True, eq=False)
class EDM:
    """A trained denoiser (averaged weights) in units of the data's deviation, and how to get into them and back."""

    network: nn.Module
    process: ForwardProcess  # for the data's moments and axes only
    unit: Tensor | float  # what a direction is divided by

    def scale(self, x: Tensor) -> Tensor:
        """Data x (n, *shape) in units of deviation."""
        return self.process.to_directions(x) / self.unit

    def unscale(self, z: Tensor) -> Tensor:
        """Inverse of `scale`."""
        return self.process.from_directions(z * self.unit)

    def denoised(self, z: Tensor, sigma: Tensor) -> Tensor:
        """E[xi | xi + sigma n = z] for one sigma, in units of deviation: c_skip z + c_out net(c_in z, log snr)."""
        norm = (1 + sigma.square()).sqrt()
        level = (-sigma.log()).expand(1, *z.shape[1:])
        return z / norm.square() + sigma / norm * in_directions(self.network, self.process.basis, z / norm, level, None)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        steps: int,
        seed: int,
        *,
        high: float = HIGH,
        power: float = POWER,
        batch_size: int = 20_000,
        trajectory: bool = False,
    ) -> Tensor:
        """n samples (n, *shape) float32 after `steps` steps of 2 evaluations, the last of one; or all nodes of it.

        high, power: of the `grid`.
        """
        sigmas, parts = grid(steps, high, power), []
        start = torch.randn(n, *self.process.shape, generator=random.generator(seed, "prior"))
        for z in (start * sigmas[0]).split(batch_size):
            nodes = [z]
            for now, then in pairwise(sigmas):
                z = nodes[-1]
                slope = (z - self.denoised(z, now)) / now
                end = z + (then - now) * slope
                if then > 0:
                    end = z + (then - now) * (slope + (end - self.denoised(end, then)) / then) / 2
                nodes.append(end)
            parts.append(torch.stack([self.unscale(node) for node in (nodes if trajectory else nodes[-1:])]))
        whole = torch.cat(parts, 1)
        return whole if trajectory else whole[0]


def grid(steps: int, high: float = HIGH, power: float = POWER) -> Tensor:
    """sigma (steps + 1,) in units of the data's deviation, from high/sigma_data (160) to .004 and 0; power: rho."""
    first, last = ((s / DATA) ** (1 / power) for s in (high, LOW))
    share = torch.linspace(0, 1, checks.positive_int("steps", steps)) if steps > 1 else torch.zeros(1)
    return torch.cat([(first + share * (last - first)) ** power, torch.zeros(1)])


def steps_of(evaluations: int) -> int:
    """Steps within a number of evaluations: 2 each, the last 1."""
    return (checks.positive_int("evaluations", evaluations) + 1) // 2


def drawn(model: EDM, samples: int, draw: Draw, seed: int, batch_size: int = 20_000) -> tuple[Tensor, int]:
    """Samples (n, *shape) of a plan's draw and the network's calls a path."""
    high = HIGH if draw.sigma_max is None else draw.sigma_max
    grids: dict[str, Any] = {"high": high, "power": draw.grid_power, "batch_size": batch_size}
    sample = partial(model.sample, samples, steps_of(draw.evaluations), seed, **grids)
    return counted(model.network, draw.evaluations, sample)


class EDMTrainer(Trainer):
    """The family's training loop, step by step, with EDM's levels of noise and weight."""

    def __init__(self, method: str, data: Data, shape: tuple[int, ...], **settings: Any) -> None:
        basis = SCALINGS[checks.one_of("method", method, SCALINGS)]
        super().__init__(forward_process("SGM", shape, basis=basis), data, adaptation=None, **settings)
        moments = self.process.known()
        unit = moments.unit if method != "edm" else float(moments.var.mean().sqrt())
        self.edm = EDM(self.average, self.process, unit)

    def pairs(self) -> Pairs:
        """The pairs of one denoiser at log sigma drawn by quantiles stratified over the batch, with weight 1."""
        (x, context), stream = self.batch()
        n, shape = len(x), self.process.shape
        quantiles = (torch.arange(n) + torch.rand(n, generator=stream, dtype=torch.float64)) / n
        log_sigma = MEAN - math.log(DATA) + STD * torch.special.ndtri(quantiles)
        snr = (-log_sigma).exp().float().view(n, *[1] * len(shape)).expand(n, *shape)
        noise = torch.randn(n, *shape, generator=stream)
        return hybrid_pairs(self.edm.scale(x), snr, torch.ones_like(snr), noise, context)

    def trained(self) -> EDM:
        """The denoiser as it stands, with the averaged network."""
        return EDM(copy.deepcopy(self.averaged()).eval(), self.process, self.edm.unit)


def train(
    method: str,
    data: Data,
    shape: tuple[int, ...],
    *,
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = 4e-3,
    network: nn.Module | None = None,
    seed: int = 0,
    looks: Collection[int] = (),
    look: Callable[[int, EDM], object] | None = None,
    **settings: Any,
) -> EDM:
    """Train one of `SCALINGS` on `data` (tensor or sampler, as `vsmd.fit` takes them), everything else as `fit` has it.

    looks, look, settings: as of `flow_matching.train`.
    Raises ValueError for unknown names, FloatingPointError when the weights are not finite after training.
    """
    trainer = EDMTrainer(
        method, data, shape, network=network, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
        seed=seed, **AS_FIT | settings,
    )  # fmt: skip
    advanced(trainer, method, looks, lambda: look(trainer.step, trainer.trained()) if look else None)
    return trainer.trained()
