"""Images trained until they stop improving (notebook 04): the family in its bases and what a user would pick instead.

The same U-Net, batches, steps, average and seeds for all, on the processor. A run measures one part of its set:
settings are chosen on training images kept apart ("validation", `picture_choices`), tables are of "test". Rows of
`pictures`: one a draw and metric beside its floor, that of the part's own images; the first draw also on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import edm, flow_matching
from repro.studies.drawing import by_prior, peer_columns
from repro.studies.image_quality import FAINT, cleared, features, on_black, reference_images
from repro.studies.images import configured, drawn, evaluations
from repro.studies.plans import Draw, draws_of
from repro.studies.toys import process_of
from vsmd import checks, random
from vsmd.data.images import ImageSet, load, to_uint8
from vsmd.images.configs import Config
from vsmd.images.evaluation import distance
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import FIXED
from vsmd.model import Model

PARTS = ("validation", "test")
APART = 1_000  # training images kept apart to choose by, at most a fifth of them
BATCH = 100  # images of a peer drawn at once
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

    def __init__(
        self, config: str, part: str, seed: int, steps: int, learning_rate: float | None, settings: Row, samples: int,
        reference: int,
    ) -> None:  # fmt: skip
        rate = {} if learning_rate is None else {"learning_rate": learning_rate}
        self.config: Config = configured(config, "SGM", seed, {**settings, **rate, "steps": steps, "held_out": 0})
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
    contest = Contest(config, part, seed, steps, learning_rate, settings, samples, reference)
    process = process_of(method, beta, R, schedule, basis, a_mode, contest.set.shape)
    columns: Row = {
        "method": method, "a_mode": process.variational_score, "basis": basis, "units": "raw", "beta": beta, "R": R,
        "schedule": schedule, "weighting": weighting, "learning_rate": contest.config.training.learning_rate,
    }  # fmt: skip

    def look(step: int, model: Model) -> None:
        shown = draws if step == steps else draws[:1]
        for started, its in by_prior(model, shown, contest.pictures, seed):
            contest.measure(step, columns | {"prior": its[0].prior}, its, partial(_drawn, contest, started))

    fitting = contest.config.fitting | {"weighting": weighting}
    marks = contest.marks(looks)
    vsmd.fit(
        process, contest.pictures, **fitting, network=contest.network, snapshots=marks, on_snapshot=look
    )  # fmt: skip
    return Result({"pictures": contest.rows})


def _drawn(contest: Contest, model: Model, draw: Draw) -> tuple[Tensor, int]:
    """Images by the family's solvers, and the network's calls an image."""
    return drawn(model, contest.config, draw, contest.samples), evaluations(draw)


class Peer(NamedTuple):
    """How a peer is trained, and drawn by a plan: solvers, what a line may leave out, the power of its grid."""

    train: Callable[..., Any]
    drawn: Callable[..., tuple[Tensor, int]]
    solvers: Collection[str]
    options: tuple[str, ...]
    power: float


_FLOW = Peer(flow_matching.train, flow_matching.drawn, flow_matching.EVALUATIONS, flow_matching.OPTIONS,
             flow_matching.GRID_POWER)  # fmt: skip
_EDM = Peer(edm.train, edm.drawn, {"heun"}, edm.OPTIONS, edm.POWER)
PEERS = {**dict.fromkeys(flow_matching.METHODS, _FLOW), **dict.fromkeys(edm.SCALINGS, _EDM)}


def run_peer(
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
    """Flow matching or EDM (`PEERS`), with the same network and budget; arguments as of `run`."""
    peer = PEERS[checks.one_of("method", method, PEERS)]
    draws = draws_of(plan, peer.solvers, options=peer.options, power=peer.power)
    contest = Contest(config, part, seed, steps, learning_rate, settings, samples, reference)
    chosen = contest.config.training
    columns = peer_columns(method, chosen.learning_rate, steps, contest.began)

    def look(step: int, model: Any) -> None:
        def sampled(draw: Draw) -> tuple[Tensor, int]:
            return peer.drawn(model, contest.samples, draw, seed, BATCH)

        contest.measure(step, columns, draws if step == steps else draws[:1], sampled)

    peer.train(
        method, contest.pictures, contest.set.shape, steps=steps, batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate, network=contest.network, seed=seed, looks=contest.marks(looks), look=look,
        schedule=chosen.schedule, ema=chosen.ema, clip=chosen.clip, compute=contest.config.compute,
    )  # fmt: skip
    return Result({"pictures": contest.rows})
