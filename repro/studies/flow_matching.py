r"""Conditional flow matching, what a user would pick instead: same network, batches, steps, optimiser, average, seeds.

x_t = (1 - t) x_0 + t x_1 with noise x_0 ~ N(0, I) and data x_1, target velocity x_1 - x_0 (Lipman et al. 2023 with
sigma = 0). `i-cfm`: x_0 and x_1 independent. `ot-cfm`: paired within minibatches by exact optimal transport (Tong et
al. 2024). `-standardised`, `-whitened`: of data with mean 0 and variance 1 per coordinate, or per principal axis, and
mapped back after. Time runs from noise at 0 to data at 1; the network is told log t/(1 - t).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from repro.grid.runs import Result
from repro.studies import toys
from repro.studies.drawing import counted
from repro.studies.paths import path_energy, straightness
from repro.studies.plans import Draw, draws_of
from repro.studies.sets.toys import toy
from vsmd import checks, random
from vsmd.family import forward_process
from vsmd.priors import Mixture
from vsmd.processes import ForwardProcess
from vsmd.scores import in_directions
from vsmd.training.data import Data
from vsmd.training.pairs import Pairs
from vsmd.training.trainer import Trainer

SCALINGS = {"": "coordinates", "-standardised": "coordinates", "-whitened": "principal"}
METHODS = {c + s: (c == "ot-cfm", s) for c in ("i-cfm", "ot-cfm") for s in SCALINGS}
SOURCES = ("gaussian", "mixture")
PLAN = 256  # points a transport plan: 4 plans for a batch of 1,024; larger ones cost more than the network
# what peers train with besides, unless told otherwise: `fit`'s defaults (tested)
AS_FIT: dict[str, Any] = {"schedule": "cosine", "ema": 0.999, "clip": 1.0, "device": torch.device("cpu")}
LEVEL = 7.0  # |log t/(1 - t)| <= 7: t between .001 and .999
OPTIONS, GRID_POWER = ("grid_power",), 1.0  # of a plan's lines: times 1 - (1 - u)^p at uniform u
EVALUATIONS = {"euler": 1, "ab2": 1, "midpoint": 2, "heun": 2}  # a step


def paired(x0: Tensor, x1: Tensor, size: int = PLAN) -> Tensor:
    """x1 (n, *shape) in the order that minimises sum |x0 - x1|^2 within minibatches of `size` rows at most.

    Exact plans by POT. Minibatches are interleaved, so that times stratified over the rows are so in each of them.
    """
    import ot
    from scipy.spatial.distance import cdist

    groups, out = -(-len(x1) // size), x1.clone()
    for rows in (slice(g, None, groups) for g in range(groups)):
        cost = cdist(*(x[rows].flatten(1).double().numpy() for x in (x0, x1)), "sqeuclidean")
        plan = ot.emd([], [], cost, numItermax=10_000_000)  # between uniform weights: a permutation over n
        out[rows] = x1[rows][torch.from_numpy(plan).argmax(1)]
    return out


def follow(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    times: Tensor,
    solver: str,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Carry x along dx/dt = velocity(x, t) over the nodes `times` by one of `EVALUATIONS`; `watch` sees every node.

    ab2: Adams–Bashforth on a uniform grid, its first step Euler's. ValueError for an unknown solver.
    """
    checks.one_of("solver", solver, EVALUATIONS)
    last = None
    if watch:
        watch(x)
    for t, end in pairwise(times):
        h, v = end - t, velocity(x, t)
        if solver == "midpoint":
            step = velocity(x + h / 2 * v, t + h / 2)
        elif solver == "heun":
            step = (v + velocity(x + h * v, end)) / 2
        else:
            step = v if solver == "euler" or last is None else 1.5 * v - 0.5 * last
        x, last = x + h * step, v
        if watch:
            watch(x)
    return x


def level_of(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The level (n or 1, *shape) by which the network is told the time: log t/(1 - t), bounded."""
    return torch.logit(t).clamp(-LEVEL, LEVEL).view(-1, *[1] * len(shape)).expand(-1, *shape)


@dataclass(frozen=True, eq=False)
class Flow:
    """A trained flow: velocity network (averaged weights), the scaling of its data, and its source's law."""

    network: nn.Module
    process: ForwardProcess  # for the data's moments only
    scaled: bool
    source: Mixture | None = None  # N(0, I) if None

    def scale(self, x: Tensor) -> Tensor:
        """Data x (n, *shape) in the coordinates of the flow."""
        return self.process.standardised(x) if self.scaled else x

    def unscale(self, z: Tensor) -> Tensor:
        """Inverse of `scale`."""
        return self.process.from_directions(z * self.process.known().unit) if self.scaled else z

    def start(self, n: int, stream: torch.Generator) -> Tensor:
        """n draws (n, *shape) of the source, float32."""
        shape = (n, *self.process.shape)
        if self.source is None:
            return torch.randn(shape, generator=stream)
        return self.source.sample(n, stream).view(shape).float()

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """The network's velocity at z (n, *shape) and times t, one or (n,)."""
        return in_directions(self.network, self.process.basis, z, level_of(t, self.process.shape), None)

    def sample(
        self,
        n: int,
        solver: str,
        steps: int,
        seed: int,
        *,
        grid_power: float = GRID_POWER,
        batch_size: int = 20_000,
        trajectory: bool = False,
    ) -> Tensor:
        """n samples (n, *shape) float32 after `steps` steps, or all nodes (steps + 1, n, *shape).

        Steps are uniform in u, where t = 1 - (1 - u)^grid_power: from 1 upwards the last ones, near the data, are
        shorter in t.
        """
        times, out = torch.linspace(0, 1, steps + 1), []

        def velocity(z: Tensor, u: Tensor) -> Tensor:
            left = 1 - u
            return self.velocity(z, 1 - left**grid_power) * (grid_power * left ** (grid_power - 1))

        with torch.no_grad():
            for start in self.start(n, random.generator(seed, "prior")).split(batch_size):
                nodes: list[Tensor] = []
                watch = (lambda x, nodes=nodes: nodes.append(self.unscale(x))) if trajectory else None
                end = follow(velocity if grid_power != 1 else self.velocity, start, times, solver, watch)
                out.append(torch.stack(nodes) if trajectory else self.unscale(end))
        return torch.cat(out, 1 if trajectory else 0)


class FlowTrainer(Trainer):
    """The family's training loop, step by step, with flow matching's loss."""

    def __init__(self, method: str, data: Data, shape: tuple[int, ...], source: str, **settings: Any) -> None:
        self.optimal, scaling = METHODS[checks.one_of("method", method, METHODS)]
        checks.one_of("source", source, SOURCES)
        # the process is there for the data's moments and axes, taken as `fit` takes them
        super().__init__(forward_process("SGM", shape, basis=SCALINGS[scaling]), data, adaptation=None, **settings)
        self.start = Flow(self.average, self.process, scaling != "")
        if source == "mixture":
            points = self.start.scale(self.source.points(random.generator(self.seed, "prior data")))
            mixture = Mixture.fitted(points, torch.full(shape, 1e9), 32, self.seed)  # no noise: of the data itself
            self.start = Flow(self.average, self.process, scaling != "", mixture)

    def pairs(self) -> Pairs:
        """Points x_t between source and data with targets x_1 - x_0; times stratified over [0, 1] in the batch."""
        (x, _), stream = self.batch()
        x1, x0 = self.start.scale(x), self.start.start(len(x), stream)
        if self.optimal:
            x1 = paired(x0, x1)
        t = (torch.arange(len(x)) + torch.rand(len(x), generator=stream)) / len(x)
        at = t.view(-1, *[1] * (x.ndim - 1))
        level = level_of(t, self.process.shape)
        return Pairs((1 - at) * x0 + at * x1, level, x1 - x0, torch.ones(()).expand_as(x1), None)

    def flow(self) -> Flow:
        """The flow as it stands, with the averaged network."""
        return Flow(copy.deepcopy(self.averaged()).eval(), self.process, self.start.scaled, self.start.source)


def train(
    method: str,
    data: Data,
    shape: tuple[int, ...],
    *,
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = 4e-3,
    network: nn.Module | None = None,
    source: str = "gaussian",
    seed: int = 0,
    looks: Collection[int] = (),
    look: Callable[[int, Flow], object] | None = None,
    **settings: Any,
) -> Flow:
    """Train one of `METHODS` on `data` (tensor or sampler, as `vsmd.fit` takes them), everything else as `fit` has it.

    source: N(0, I), or a 32-component "mixture" fitted to the (scaled) data. look: shown the flow as it stands after
    the steps `looks`. settings: others of the training than `AS_FIT`. Raises ValueError for unknown names,
    FloatingPointError when the weights are not finite after training.
    """
    trainer = FlowTrainer(
        method, data, shape, source, network=network, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
        seed=seed, **AS_FIT | settings,
    )  # fmt: skip
    advanced(trainer, method, looks, lambda: look(trainer.step, trainer.flow()) if look else None)
    return trainer.flow()


def advanced(
    trainer: Trainer, method: str, looks: Collection[int] = (), look: Callable[[], object] = lambda: None
) -> None:
    """Take all steps of a peer's training, `look` after those of `looks`; FloatingPointError when the weights are not
    finite after them."""
    while trainer.step < trainer.steps:
        trainer.advance()
        if trainer.step in looks:
            look()
    if not all(bool(torch.isfinite(p).all()) for p in trainer.averages):
        raise FloatingPointError(f"{method}: weights are not finite after step {trainer.steps}")


def drawn(flow: Flow, samples: int, draw: Draw, seed: int, batch_size: int = 20_000) -> tuple[Tensor, int]:
    """Samples (n, *shape) of a plan's draw, in at least one step, and the network's calls a path."""
    steps = max(1, draw.evaluations // EVALUATIONS[draw.solver])
    sample = partial(flow.sample, samples, draw.solver, steps, seed, grid_power=draw.grid_power, batch_size=batch_size)
    return counted(flow.network, draw.evaluations, sample)


def _paths(flow: Flow, points: int, seed: int) -> toys.Row:
    """Straightness per axis and path energy on 100 uniform steps, as for the family."""
    x = flow.sample(points, "heun", toys.PATH_STEPS, seed, trajectory=True)
    times = torch.linspace(0, 1, toys.PATH_STEPS + 1, dtype=torch.float64)
    bend = straightness(x, times)
    return {"straightness_x": float(bend[0]), "straightness_y": float(bend[1]), "path_energy": path_energy(x, times)}


def run(
    dataset: str,
    method: str,
    seed: int,
    plan: list[toys.Row],
    steps: int = 6_000,
    samples: int = 100_000,
    source: str = "gaussian",
    points: int = 0,
    learning_rate: float = toys.LEARNING_RATE,
) -> Result:
    """Rows of `toys` for flow matching on a two-dimensional set; columns that mean nothing here are empty.

    plan: how samples are drawn (`plans`; solvers of `EVALUATIONS`); the last number of the first line is the main row
    (W2, stored points). source: "gaussian", or "mixture" (then named in the column `prior`).
    """
    draws = draws_of(plan, EVALUATIONS, options=OPTIONS, power=GRID_POWER)
    main = draws[len(plan[0]["evaluations"]) - 1]
    began = time.perf_counter()
    flow = train(method, toy(dataset), (2,), steps=steps, source=source, seed=seed, learning_rate=learning_rate)
    base: toys.Row = {
        "dataset": dataset, "method": method, "prior": "mixture" if source == "mixture" else None, "seed": seed,
        "train_steps": steps, "train_seconds": time.perf_counter() - began,
    }  # fmt: skip
    base |= _paths(flow, min(samples, toys.PATH_POINTS), seed)
    rows, shown = [], {}
    for draw in draws:
        x, nfe = drawn(flow, samples, draw, seed)
        row = {**base, "solver": draw.solver, "nfe": nfe}
        rows.append(toys.ordered(row | toys.quality(x, dataset, seed, with_w2=draw == main)))
        if points and draw == main:
            shown[f"{dataset}_{method}{'-mixture' * (source == 'mixture')}_{seed}"] = x[:points].numpy()
    return Result({"toys": rows}, shown)
