"""Real points (notebook 09): every method of the family and what a user would pick instead, on sets split beforehand.

The same network, batches, steps, average and seeds for all that train. A run measures one part of its set: settings are
chosen on "validation" (`point_choices`), tables are of "test". Rows of `points`: one a draw, its measures beside their
floors, which are those of training points in the samples' place (`vsmd.metrics.points`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import vsmd
from repro.grid.runs import Result
from repro.studies import edm, flow_matching
from repro.studies.drawing import by_prior, counted, drawn, peer_columns
from repro.studies.plans import Draw, draws_of
from repro.studies.sets import points as sets
from repro.studies.toys import process_of
from vsmd import checks, networks, random
from vsmd.couplings import MixtureFit
from vsmd.data.points import PointSet
from vsmd.metrics.points import Reference
from vsmd.model import Model
from vsmd.priors import Mixture
from vsmd.samplers import SOLVERS

NETWORK: dict[str, Any] = {"name": "mlp", "width": 256, "depth": 4}
TRAINING: dict[str, Any] = {"batch_size": 512}
STEPS = 4_000
LEARNING_RATE = 2e-3
MOST, FEW = 5_000, 2_000  # samples that are measured, at most as many as the part has points; FEW to choose by
SCORED = 128  # points whose likelihood is taken
PARTS = ("validation", "test")
SETTING = ("method", "units", "basis", "a_mode", "beta", "R", "schedule", "prior", "weighting", "learning_rate",
           "solver", "grid_power", "sigma_max")  # fmt: skip
COLUMNS = ("dataset", "part", "dim", "anisotropy", *SETTING, "nfe", "seed", "selected", "sw2", "sw2_floor", "energy",
           "energy_floor", "auc", "auc_floor", "tail_error", "tail_error_floor", "nll", "memorised",
           "memorised_floor", "train_steps", "train_seconds", "sample_seconds", "n_train", "n_samples")  # fmt: skip

Row = dict[str, Any]


class Measured:
    """One part of a set, and rows of samples held against it."""

    def __init__(self, dataset: str, part: str, seed: int) -> None:
        self.set: PointSet = load(dataset)
        held = getattr(self.set, checks.one_of("part", part, PARTS))
        self.reference, self.held = Reference.of(self.set.train, held, seed), held
        self.quick = part == "validation"  # what is chosen by and no more: a classifier takes longer than training
        self.n, self.seed = min(FEW if self.quick else MOST, len(held)), seed
        self.base: Row = {
            "dataset": dataset, "part": part, "dim": self.set.train.shape[1], "seed": seed,
            "anisotropy": sets.documented(self.set)["anisotropy"], "n_train": len(self.set.train),
        }  # fmt: skip

    def row(self, x: Tensor, **columns: Any) -> Row:
        """A row of samples x (n, d), with the columns of how they came about; nan where any of them diverged."""
        finite = bool(torch.isfinite(x).all())
        measures = self.reference.measures(x, self.quick) if finite else {}
        row = {**self.base, **columns, **measures, "n_samples": len(x)}
        if not finite:
            row |= dict.fromkeys(("sw2", "energy", "auc", "tail_error", "memorised"), math.nan)
        return {name: row.get(name) for name in COLUMNS}


@cache
def load(dataset: str) -> PointSet:
    """The set of that name, read once a process."""
    return sets.load(dataset)


def network_of(dim: int, seed: int) -> nn.Module:
    """The network of all methods, its first weights a function of the seed."""
    with random.first_weights(random.generator(seed, "network")):
        return networks.build(**NETWORK, shape=[dim])


def run(
    dataset: str,
    method: str,
    seed: int,
    beta: float,
    plan: list[Row],
    part: str = "validation",
    units: str = "whitened",
    basis: str = "coordinates",
    R: float | None = None,
    schedule: str = "constant",
    a_mode: str | None = None,
    components: int | None = None,
    weighting: str = "score",
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
    likelihood: bool = False,
    chosen: bool = False,
) -> Result:
    """One of the six methods trained on a set's training part, and what is drawn from it as a plan says (`plans`).

    likelihood: whether rows have the negative log-likelihood a dimension of the part, in nats (from the row's prior).
    chosen: whether this is what the validation part chose of the whole family; the rows' column selected.
    """
    draws, measured = draws_of(plan, SOLVERS, priors=True), Measured(dataset, part, seed)
    train = measured.set.train
    process = process_of(method, beta, R, schedule, basis, a_mode, tuple(train.shape[1:]))
    began = time.perf_counter()
    model = vsmd.fit(
        process, train, units=units, weighting=weighting, network=network_of(train.shape[1], seed), steps=steps,
        seed=seed, learning_rate=learning_rate, mixture=MixtureFit(components), **TRAINING,
    )  # fmt: skip
    columns: Row = {
        "method": method, "units": units, "basis": basis, "a_mode": process.variational_score, "beta": beta, "R": R,
        "schedule": schedule, "weighting": weighting, "learning_rate": learning_rate, "train_steps": steps,
        "train_seconds": time.perf_counter() - began, "selected": chosen or None,
    }  # fmt: skip
    rows = []
    for started, its_draws in by_prior(model, draws, train, seed):
        columns["nll"] = _nll(started, measured.held) if likelihood else None
        sample = partial(_counted, started, measured.n, seed=seed)
        rows += [_row(measured, columns | {"prior": draw.prior}, draw, sample) for draw in its_draws]
    return Result({"points": rows})


def run_flow(
    dataset: str,
    method: str,
    seed: int,
    plan: list[Row],
    part: str = "validation",
    source: str = "gaussian",
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
) -> Result:
    """Flow matching (`flow_matching.METHODS`), with the same network and budget."""
    draws = draws_of(plan, flow_matching.EVALUATIONS, options=flow_matching.OPTIONS, power=flow_matching.GRID_POWER)
    measured = Measured(dataset, part, seed)
    train, began = measured.set.train, time.perf_counter()
    flow = flow_matching.train(
        method, train, tuple(train.shape[1:]), network=network_of(train.shape[1], seed), source=source, steps=steps,
        seed=seed, learning_rate=learning_rate, **TRAINING,
    )  # fmt: skip
    columns = peer_columns(method, learning_rate, steps, began) | {"prior": source}
    sample = partial(flow_matching.drawn, flow, measured.n, seed=seed)
    return Result({"points": [_row(measured, columns, draw, sample) for draw in draws]})


def run_edm(
    dataset: str,
    method: str,
    seed: int,
    plan: list[Row],
    part: str = "validation",
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
) -> Result:
    """EDM (`edm.SCALINGS`), with the same network and budget, its own levels of noise, solver and grids."""
    draws = draws_of(plan, {"heun"}, options=edm.OPTIONS, power=edm.POWER)
    measured = Measured(dataset, part, seed)
    train, began = measured.set.train, time.perf_counter()
    model = edm.train(
        method, train, tuple(train.shape[1:]), network=network_of(train.shape[1], seed), steps=steps, seed=seed,
        learning_rate=learning_rate, **TRAINING,
    )  # fmt: skip
    columns, sample = (
        peer_columns(method, learning_rate, steps, began),
        partial(edm.drawn, model, measured.n, seed=seed),
    )
    return Result({"points": [_row(measured, columns, draw, sample) for draw in draws]})


def run_plain(dataset: str, method: str, seed: int, value: float = 0.0, part: str = "validation") -> Result:
    """What needs no network, in axes whitened by the training part.

    method: "gaussian", of the training part's moments; "mixture", of `value` components by EM; "resampled", training
    points under noise of `value` standard deviations along every axis; "real", training points as they are.
    """
    measured, began = Measured(dataset, part, seed), time.perf_counter()
    stream, reference, train = random.generator(seed, "plain", method), measured.reference, measured.set.train
    z, n = reference.whiten(train), measured.n
    checks.one_of("method", method, ("gaussian", "mixture", "resampled", "real"))
    if method == "mixture":
        mixture = Mixture.fitted(z.float(), torch.full(z.shape[1:], 1e9), round(value), seed)
        z = mixture.sample(n, stream)
    elif method == "gaussian":
        z = torch.randn(n, z.shape[1], generator=stream, dtype=torch.float64)
    else:
        z = z[torch.randint(len(z), (n,), generator=stream)]
        z = z + (value if method == "resampled" else 0.0) * torch.randn(z.shape, generator=stream, dtype=z.dtype)
    seconds = time.perf_counter() - began
    setting = {"method": method if method in ("gaussian", "real") else f"{method}-{value:g}", "train_seconds": seconds}
    x = reference.mean + z.double() @ torch.linalg.pinv(reference.axes)
    return Result({"points": [measured.row(x.to(train.dtype), **setting, nfe=0)]})


def _counted(model: Model, samples: int, draw: Draw, seed: int) -> tuple[Tensor, int]:
    """Samples (n, d) of a plan's draw and the network's calls a path."""
    return counted(model.network, draw.evaluations, partial(drawn, model, samples, draw, seed))


def _row(measured: Measured, columns: Row, draw: Draw, sample: Callable[..., tuple[Tensor, int]]) -> Row:
    began = time.perf_counter()
    x, nfe = sample(draw=draw)
    seconds = time.perf_counter() - began
    grid = {"grid_power": draw.grid_power, "sigma_max": draw.sigma_max}
    return measured.row(x, **columns, **grid, solver=draw.name, nfe=nfe, sample_seconds=seconds)


def _nll(model: Model, held: Tensor) -> float:
    """Mean negative log-likelihood a dimension of some points, in nats; nan where the flow diverges."""
    some = held[:SCORED]
    try:
        return -float(model.log_prob(some).mean()) / some[0].numel()
    except FloatingPointError:
        return math.nan
