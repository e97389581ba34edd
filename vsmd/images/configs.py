"""Every hyper-parameter of a run on images, one flat typed table: printed, saved with the run, overridden by name."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import vsmd
from vsmd import checks, networks, random
from vsmd.adaptation import Adaptation
from vsmd.family import VARIATIONAL_SCORES
from vsmd.methods import METHODS
from vsmd.processes import PRIORS, ForwardProcess
from vsmd.samplers import as_solver
from vsmd.samplers.generation import steps_within
from vsmd.training import Compute
from vsmd.training.compute import PRECISIONS
from vsmd.training.trainer import SCHEDULES


@dataclass(frozen=True)
class Decayed(Adaptation):
    """Adaptation with eta_k = eta decay^k, the published code's step decay; after `end` A is frozen."""

    decay: float = 0.99

    def step_size(self, k: int) -> float:
        """eta_k of round k = 0, 1, …"""
        return self.eta * self.decay**k


@dataclass(frozen=True)
class Config:
    """What a run on images is made of. Defaults are those of CIFAR-10 in the paper (its Table 2, whose two learning
    rates have each other's label: 3e-4 is the network's, 3e-6 that of A).

    data: "digits", "mnist5k", "cifar10", a folder of images or an npz file; size: side that a folder's images are cut
    to; held_out: training images kept apart, whose loss says which model is the best; flips: mirror half of them;
    conditional: train on the labels too. method, beta, damping (of ULD and VSULD), variational_score (None: the
    method's own), prior: of the process. network: settings of the U-Net. steps, batch_size (of all processes
    together), learning_rate (AdamW), schedule ("step": times .99 a hundred times over the run), ema, clip: of `fit`.
    rounds, paths, nodes, eta, decay, freeze: A is adapted in `rounds` simulations of `paths` paths on `nodes` steps (at
    beta = 10 fewer than 80 move A by their own error), moved by eta decay^k of the way to the minimiser that the k-th
    one finds, and frozen from the share `freeze` of the training on; one simulation tells that minimiser outright, so
    the paper's 3e-6 has no counterpart. precision, channels_last, compile, accumulate: see `Compute`. every: steps
    between two checkpoints with samples; keep: of the last checkpoints. grid: images of a sheet of samples. solver,
    evaluations, grid_power: of samples; evaluations are network calls an image (Heun on the paper's 125 points: 250),
    times t = u^grid_power.
    Raises ValueError naming the field, its value and what is allowed.
    """

    data: str = "cifar10"
    size: int | None = None
    held_out: int = 500
    flips: bool = True
    conditional: bool = False
    method: str = "VSULD"
    beta: float = 10.0
    damping: float = 0.9
    variational_score: str | None = None
    prior: str = "gaussian"
    network: dict[str, Any] = field(default_factory=dict)
    steps: int = 400_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    schedule: str = "step"
    ema: float = 0.9999
    clip: float = 1.0
    rounds: int = 30
    paths: int = 1_024
    nodes: int = 80
    eta: float = 0.2
    decay: float = 0.99
    freeze: float = 0.7
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    accumulate: int = 1
    every: int = 5_000
    keep: int = 2
    grid: int = 64
    solver: str = "heun"
    evaluations: int = 250
    grid_power: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        named = {"method": METHODS, "prior": PRIORS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, allowed in named.items():
            checks.one_of(name, getattr(self, name), allowed)
        if self.variational_score is not None:
            checks.one_of("variational_score", self.variational_score, VARIATIONAL_SCORES)
        for name in ("steps", "batch_size", "rounds", "paths", "nodes", "accumulate", "every", "keep", "evaluations"):
            checks.positive_int(name, getattr(self, name))
        for name in ("beta", "learning_rate", "eta", "decay", "grid_power"):
            checks.positive(name, getattr(self, name))
        for name in ("held_out", "grid"):
            checks.in_range(name, getattr(self, name), 0, math.inf)
        steps_within(self.solver, self.evaluations, denoise=True)
        if METHODS[self.method].k == 1 and as_solver(self.solver).needs_velocity:
            raise ValueError(f"solver={self.solver!r}: {self.method} has no velocity to split")
        checks.in_range("ema", self.ema, 0, 1)
        checks.in_range("freeze", self.freeze, 0, 1)

    @property
    def compute(self) -> Compute:
        """How steps are computed."""
        return Compute(self.precision, self.channels_last, self.compile, self.accumulate)

    @property
    def adaptation(self) -> Decayed:
        """How A is adapted."""
        begin = min(0.05, self.freeze / 2)
        return Decayed(
            rounds=self.rounds, begin=begin, end=self.freeze, eta=self.eta, decay=self.decay, paths=self.paths,
            nodes=self.nodes,
        )  # fmt: skip

    def process(self, shape: tuple[int, ...]) -> ForwardProcess:
        """The forward process for images of that shape."""
        under = self.method in ("ULD", "VSULD")
        return vsmd.forward_process(
            self.method, shape, beta=self.beta, damping=self.damping if under else None,
            variational_score=self.variational_score, prior=self.prior,
        )  # fmt: skip

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The U-Net for images of that shape, its first weights a function of the seed; classes: 0 unconditional."""
        import torch

        settings = dict(self.network) | ({"classes": classes} if self.conditional else {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.generator(self.seed, "network").initial_seed())
            return networks.build("unet", shape=list(shape), **settings)

    def with_overrides(self, given: Mapping[str, Any]) -> Config:
        """The same but for some fields; those of `network` are merged into it."""
        changed = dict(given)
        if "network" in changed:
            changed["network"] = {**self.network, **changed["network"]}
        return dataclasses.replace(self, **changed)

    @property
    def text(self) -> str:
        """The table as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_text(cls, text: str) -> Config:
        """The inverse of `text`; ValueError for what is none."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"config: {error}") from None


def parser(annotation: Any) -> Any:
    """From a command line's text to a field's value: numbers, true or false, none where it is allowed, JSON objects."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kind = next(o for o in options if o is not type(None))

    def parse(text: str) -> Any:
        if type(None) in options and text.lower() == "none":
            return None
        if kind is bool:
            return checks.one_of("value", text.lower(), ("true", "false")) == "true"
        if typing.get_origin(kind) is dict:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError(f"{text!r}: must be a JSON object")
            return value
        return kind(text)

    return parse


def config(name: str) -> Config:
    """The configuration of that name (ValueError for an unknown one)."""
    return CONFIGS[checks.one_of("config", name, CONFIGS)]


SMALL: dict[str, Any] = {"width": 48, "multipliers": [1, 2], "depth": 1, "attention": [], "patch": 2}
CONFIGS: dict[str, Config] = {
    "cifar10": Config(precision="bfloat16", channels_last=True, compile=True),
    "cifar10-medium": Config(
        network={"width": 64, "depth": 2}, steps=20_000, learning_rate=6e-4, ema=0.999, schedule="cosine", rounds=10,
        paths=64, precision="bfloat16", channels_last=True, compile=True, evaluations=40,
    ),
    "cifar10-small": Config(
        network=SMALL, steps=12_000, batch_size=64, learning_rate=1e-3, ema=0.999, schedule="cosine", rounds=10,
        paths=64, every=1_000, grid=36, evaluations=40,
    ),
    "mnist5k": Config(
        data="mnist5k", held_out=200, flips=False, network=SMALL | {"width": 32}, steps=1_500, batch_size=64,
        learning_rate=2e-3, ema=0.99, schedule="cosine", rounds=8, paths=32, every=500, grid=36,
        evaluations=40,
    ),
    "digits": Config(
        data="digits", held_out=100, flips=False, network=SMALL | {"width": 32, "patch": 1}, steps=1_500, batch_size=64,
        learning_rate=2e-3, ema=0.99, schedule="cosine", rounds=8, paths=64, every=500, grid=36,
        evaluations=40,
    ),
}  # fmt: skip
