"""Images trained until they stop improving (notebook 04): the family in its bases and what a user would pick instead.

The same U-Net, batches, steps, average and seeds for all, on the processor. A run measures one part of its set:
settings are chosen on training images kept apart ("validation", `picture_choices`), tables are of "test". Rows of
`pictures`: one a draw and metric beside its floor, that of the part's own images; the first draw also on the way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import edm, flow_matching
from repro.studies.drawing import by_prior, counted, peer_columns
from repro.studies.image_quality import FAINT, cleared, features, on_black, reference_images
from repro.studies.images import configured, drawn
from repro.studies.plans import Draw, draws_of
from repro.studies.toys import process_of
from vsmd import checks, random
from vsmd.data.images import ImageSet, load, to_uint8
from vsmd.images.configs import Config
from vsmd.images.evaluation import distance
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import FIXED, Painter
from vsmd.model import Model

PARTS = ("validation", "test")
APART = 1_000  # training images kept apart to choose by, at most a fifth of them
BATCH = 100  # images drawn at once
CLEARED = "FD-EffNet, cleared"  # where most of a set is black: without a diffusion's faint haze
HAZE = "haze"  # there, too: the share of pixels that are faint and not black
SETTING = ("method", "a_mode", "basis", "units", "beta", "R", "schedule", "prior", "weighting", "learning_rate",
           "solver", "grid_power", "sigma_max")  # fmt: skip
COLUMNS = ("dataset", "part", *SETTING, "nfe", "seed", "images_seen", "train_steps", "params", "metric", "value",
           "floor", "n_samples", "train_seconds", "sample_seconds")  # fmt: skip

Row = dict[str, Any]
Sampled = Callable[[Draw], tuple[Tensor, int]]  # images (n, C, H, W) float, and the network's calls an image


@cache
def part_of(dataset: str, part: str) -> ImageSet:
    """The set; of "validation" with training images kept apart, at random and always the same, in the tests' place."""
    images = load(dataset)
    if checks.one_of("part", part, PARTS) == "test":
        return images
    apart = min(APART, len(images.train) // 5)
    order = torch.randperm(len(images.train), generator=random.generator(0, "kept apart"))
    return ImageSet(images.name, images.train[order[apart:]], images.train[order[:apart]])


@cache
def known(dataset: str, part: str, reference: int) -> Tensor:
    """Features of `reference` training images of a part."""
    return features("FD-EffNet")(reference_images(part_of(dataset, part), reference))


@cache
def floors(dataset: str, part: str, reference: int, n: int) -> dict[str, float]:
    """The metrics of the part's own images, n of them."""
    return measures(part_of(dataset, part).test[:n], dataset, part, reference)


def measures(images: Tensor, dataset: str, part: str, reference: int) -> dict[str, float]:
    """FD-EffNet and KID of uint8 images to the part's training images; and what haze does, of sets on black."""
    base, found = known(dataset, part, reference), features("FD-EffNet")(images)
    values = {metric: distance(metric, found, base) for metric in ("FD-EffNet", "KID")}
    if on_black(part_of(dataset, part).train):
        values[CLEARED] = distance("FD-EffNet", features("FD-EffNet")(cleared(images)), base)
        values[HAZE] = float(((images > 0) & (images < FAINT)).double().mean())
    return values


class Contest:
    """A run's part of its set and its configuration; the rows of what is trained in it."""

    def __init__(self, config: str, part: str, seed: int, steps: int, settings: Row, samples: int, reference: int):
        self.config: Config = configured(config, "SGM", seed, {**settings, "steps": steps, "held_out": 0})
        self.dataset, self.part, self.seed = self.config.data.images, part, seed
        self.set = part_of(self.dataset, part)
        self.samples = min(checks.positive_int("samples", samples), len(self.set.test))
        self.reference = min(checks.positive_int("reference", reference), len(self.set.train))
        self.network = self.config.build(self.set.shape, 0)
        self.pictures = Pictures(self.set.train, self.config.data.flips)
        self.began, self.resting = time.perf_counter(), 0.0
        self.rows: list[Row] = []

    def marks(self, looks: int) -> set[int]:
        """`looks` steps, evenly spaced, of which the last is the training's end."""
        steps = self.config.training.steps
        return {round(steps * (i + 1) / checks.positive_int("looks", looks)) for i in range(looks)} - {0}

    def measure(self, step: int, columns: Row, draws: list[Draw], sampled: Sampled) -> None:
        """Rows of the model as it stands after `step`, what this takes left out of the seconds of training."""
        now = time.perf_counter()
        about: Row = {
            "dataset": self.dataset, "part": self.part, "seed": self.seed, "images_seen":
            step * self.config.training.batch_size, "params": sum(p.numel() for p in self.network.parameters()),
            "n_samples": self.samples, **columns, "train_steps": step,
            "train_seconds": now - self.began - self.resting,
        }  # fmt: skip
        real = floors(self.dataset, self.part, self.reference, self.samples)
        for draw in draws:
            start = time.perf_counter()
            x, nfe = sampled(draw)
            about |= {"solver": draw.name, "nfe": nfe, "grid_power": draw.grid_power, "sigma_max": draw.sigma_max}
            about["sample_seconds"] = time.perf_counter() - start
            if bool(torch.isfinite(x).all()):
                values = measures(to_uint8(x), self.dataset, self.part, self.reference)
            else:
                values = dict.fromkeys(real, float("nan"))
            for metric, value in values.items():
                row = about | {"metric": metric, "value": value, "floor": real[metric]}
                self.rows.append({name: row.get(name) for name in COLUMNS})
        self.resting += time.perf_counter() - now


def run(
    config: str,
    method: str,
    seed: int,
    beta: float,
    plan: list[Row],
    steps: int,
    part: str = "validation",
    basis: str = "coordinates",
    R: float | None = None,
    schedule: str = "constant",
    a_mode: str | None = None,
    weighting: str = "backbone",
    learning_rate: float | None = None,
    looks: int = 1,
    samples: int = 1_000,
    reference: int = 4_000,
    settings: Row = {},  # noqa: B006 - never mutated
) -> Result:
    """One of the six methods trained on a set's training images, and what is drawn from it as a plan says (`plans`).

    config: of `vsmd.images`, whose network, batches and optimiser are everybody's. basis: of A, and of the data's
    variances. learning_rate: the configuration's, if not given. looks: how often the first draw is measured on the way,
    its end included. settings: other fields of the configuration that differ.
    """
    draws = draws_of(plan, FIXED, priors=True)
    contest = Contest(config, part, seed, steps, _with_rate(settings, learning_rate), samples, reference)
    process = process_of(method, beta, R, schedule, basis, a_mode, contest.set.shape)
    columns: Row = {
        "method": method, "a_mode": process.variational_score, "basis": basis, "units": "raw", "beta": beta, "R": R,
        "schedule": schedule, "weighting": weighting, "learning_rate": contest.config.training.learning_rate,
    }  # fmt: skip

    def look(step: int, model: Model) -> None:
        shown = draws if step == steps else draws[:1]
        for started, its in by_prior(model, shown, contest.pictures, seed):
            contest.measure(step, columns | {"prior": its[0].prior}, its, partial(_painted, contest, started))

    fitting = contest.config.fitting | {"weighting": weighting}
    marks = contest.marks(looks)
    vsmd.fit(
        process, contest.pictures, **fitting, network=contest.network, snapshots=marks, on_snapshot=look
    )  # fmt: skip
    return Result({"pictures": contest.rows})


def _with_rate(settings: Row, learning_rate: float | None) -> Row:
    return settings if learning_rate is None else {**settings, "learning_rate": learning_rate}


def _painted(contest: Contest, model: Model, draw: Draw) -> tuple[Tensor, int]:
    """Images of seeds 0, 1, … by the family's solvers."""
    compute = dataclasses.replace(contest.config.compute, compile=False)
    painter = Painter(
        model, draw.solver, draw.evaluations, grid_power=draw.grid_power, denoise=draw.denoise, batch_size=BATCH,
        compute=compute, checked=False,
    )  # fmt: skip
    return drawn(painter, contest.samples), painter.evaluations


def run_flow(
    config: str,
    method: str,
    seed: int,
    plan: list[Row],
    steps: int,
    part: str = "validation",
    learning_rate: float | None = None,
    looks: int = 1,
    samples: int = 1_000,
    reference: int = 4_000,
    settings: Row = {},  # noqa: B006
) -> Result:
    """Flow matching (`flow_matching.METHODS`), with the same network and budget; arguments as of `run`."""
    draws = draws_of(plan, flow_matching.EVALUATIONS, options=flow_matching.OPTIONS, power=flow_matching.GRID_POWER)
    contest = Contest(config, part, seed, steps, _with_rate(settings, learning_rate), samples, reference)

    def sampled(flow: flow_matching.Flow, draw: Draw) -> tuple[Tensor, int]:
        return flow_matching.drawn(flow, contest.samples, draw, seed, BATCH)

    _train_peer(contest, flow_matching.train, method, draws, sampled, looks)
    return Result({"pictures": contest.rows})


def run_edm(
    config: str,
    method: str,
    seed: int,
    plan: list[Row],
    steps: int,
    part: str = "validation",
    learning_rate: float | None = None,
    looks: int = 1,
    samples: int = 1_000,
    reference: int = 4_000,
    settings: Row = {},  # noqa: B006
) -> Result:
    """EDM (`edm.SCALINGS`), with the same network and budget; arguments as of `run`."""
    draws = draws_of(plan, {"heun"}, options=edm.OPTIONS, power=edm.POWER)
    contest = Contest(config, part, seed, steps, _with_rate(settings, learning_rate), samples, reference)

    def sampled(model: edm.EDM, draw: Draw) -> tuple[Tensor, int]:
        high = edm.HIGH if draw.sigma_max is None else draw.sigma_max
        n, count = edm.steps_of(draw.evaluations), contest.samples
        sample = partial(model.sample, count, n, seed, high=high, power=draw.grid_power, batch_size=BATCH)
        return counted(model.network, draw.evaluations, sample)

    _train_peer(contest, edm.train, method, draws, sampled, looks)
    return Result({"pictures": contest.rows})


def _train_peer(
    contest: Contest,
    train: Callable[..., Any],
    method: str,
    draws: list[Draw],
    sampled: Callable[[Any, Draw], tuple[Tensor, int]],
    looks: int,
) -> None:
    """Train a peer as the configuration has it, and measure it on the way and at its end."""
    chosen, steps = contest.config.training, contest.config.training.steps
    columns = peer_columns(method, chosen.learning_rate, steps, contest.began)

    def look(step: int, model: Any) -> None:
        contest.measure(step, columns, draws if step == steps else draws[:1], partial(sampled, model))

    settings = {"schedule": chosen.schedule, "ema": chosen.ema, "clip": chosen.clip, "compute": contest.config.compute}
    train(
        method, contest.pictures, contest.set.shape, steps=steps, batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate, network=contest.network, seed=contest.seed, looks=contest.marks(looks),
        look=look, **settings,
    )  # fmt: skip
