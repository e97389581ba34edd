"""Every hyper-parameter of a run on images, in typed groups: printed, saved with the run, overridden by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import vsmd
from vsmd import checks, messages, networks, random
from vsmd.adaptation import Adaptation
from vsmd.bases import BASES
from vsmd.family import VARIATIONAL_SCORES
from vsmd.methods import METHODS
from vsmd.priors import PRIORS
from vsmd.processes import ForwardProcess
from vsmd.samplers import as_solver
from vsmd.samplers.generation import steps_within
from vsmd.schedules import BetaSchedule
from vsmd.training import Compute
from vsmd.training.pairs import WEIGHTINGS
from vsmd.training.trainer import SCHEDULES

# The comment behind a field is its help on the command line.


@dataclass(frozen=True)
class DataSettings:
    """The images."""

    images: str = "cifar10"  # "digits", "mnist5k", "cifar10", a folder of images or an npz file
    size: int | None = None  # side in pixels that a folder's images are cut to; None leaves them
    held_out: int = 500  # training images kept apart, whose loss says which model is the best
    flips: bool = True  # mirror half of the images
    conditional: bool = False  # train on the labels too

    def __post_init__(self) -> None:
        checks.non_negative_int("held_out", self.held_out)


@dataclass(frozen=True)
class ProcessSettings:
    """The forward process."""

    method: str = "VSULD"  # "SGM", "VSDM", "CLD", "VSCLD", "ULD" or "VSULD"
    beta: float = 10.0  # of the noise schedule, which is constant
    damping: float = 0.9  # R of ULD and VSULD; the other methods have their own
    variational_score: str | None = None  # "zero", "adaptive" or "steered"; None: the method's own
    prior: str = "gaussian"  # the law that generation starts from
    basis: str = "coordinates"  # directions of A: "coordinates" (pixels), "principal" axes or "cosine" (frequencies)

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        BetaSchedule.of(self.beta)
        if self.variational_score is not None:
            checks.one_of("variational_score", self.variational_score, VARIATIONAL_SCORES)
        checks.one_of("prior", self.prior, PRIORS)
        checks.one_of("basis", self.basis, [name for name in BASES if name != "orthogonal"])

    def __call__(self, shape: tuple[int, ...]) -> ForwardProcess:
        """The forward process for images of that shape."""
        settings = dataclasses.asdict(self) | ({} if self.method in ("ULD", "VSULD") else {"damping": None})
        return vsmd.forward_process(settings.pop("method"), shape, **settings)


@dataclass(frozen=True)
class NetworkSettings:
    """The U-Net; by default with 57 M parameters at 3 x 32 x 32."""

    width: int = 128  # channels of the first size
    multipliers: tuple[int, ...] = (1, 2, 2, 2)  # channels of each size, in widths; each size is half the one before
    depth: int = 3  # residual blocks a size
    attention: tuple[int, ...] = (16, 8)  # sizes in pixels, after patching, that have attention
    patch: int = 1  # side of the blocks of pixels that become channels at the entrance
    frequencies: int = 16  # Fourier features of the noise level
    levels: bool = True  # tell the network the pixels' relative levels in further channels (basis "coordinates")

    def __post_init__(self) -> None:
        for name in ("multipliers", "attention"):  # lists, where they come from JSON
            if isinstance(sizes := getattr(self, name), list):
                object.__setattr__(self, name, tuple(sizes))


@dataclass(frozen=True)
class TrainingSettings:
    """Optimisation: AdamW on the network, and the average of its weights."""

    steps: int = 400_000  # of the optimiser
    batch_size: int = 256  # images a step, of all processes together
    learning_rate: float = 3e-4  # of the network
    schedule: str = "step"  # of the learning rate: "cosine", "constant" or "step" (times .99 a hundred times)
    ema: float = 0.9999  # decay of the weight average that samples are drawn with
    clip: float = 1.0  # largest norm of the gradient; 0: none
    weighting: str = "score"  # of the noise levels in the loss: "score", "unit" or "backbone"
    context_dropout: float = 0.0  # share of images whose label is left out; .1 lets samples be guided

    def __post_init__(self) -> None:
        checks.positive_int("steps", self.steps)
        checks.positive_int("batch_size", self.batch_size)
        checks.positive("learning_rate", self.learning_rate)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.in_range("ema", self.ema, 0, 1)
        checks.one_of("weighting", self.weighting, WEIGHTINGS)
        checks.in_range("context_dropout", self.context_dropout, 0.0, 0.99)


@dataclass(frozen=True)
class Decayed(Adaptation):
    """Adaptation with eta_k = eta decay^k, the published code's step decay; after `end` A is frozen."""

    decay: float = 0.99

    def step_size(self, k: int) -> float:
        """eta_k of round k = 0, 1, …"""
        return self.eta * self.decay**k


@dataclass(frozen=True)
class AdaptationSettings:
    """Adaptation of A: in each round paths are simulated, and A moves part of the way to the minimiser they give.

    One simulation tells that minimiser outright, so the paper's learning rate of A, 3e-6, has no counterpart.
    """

    rounds: int = 30  # simulations in all
    paths: int = 1_024  # paths of a simulation
    nodes: int = 80  # steps of a simulation; at beta = 10 fewer move A by their own error
    eta: float = 0.2  # share of the way to the minimiser that A moves in the first round
    decay: float = 0.99  # factor of eta from one round to the next
    freeze: float = 0.7  # share of the training after which A is frozen

    def __post_init__(self) -> None:
        for name in ("rounds", "paths", "nodes"):
            checks.positive_int(name, getattr(self, name))
        checks.positive("eta", self.eta)
        checks.positive("decay", self.decay)
        checks.in_range("freeze", self.freeze, 0, 1)

    def __call__(self) -> Decayed:
        """The adaptation that `fit` takes."""
        settings = dataclasses.asdict(self)
        end = settings.pop("freeze")
        return Decayed(begin=min(0.05, end / 2), end=end, **settings)


@dataclass(frozen=True)
class CheckpointSettings:
    """What is saved on the way."""

    every: int = 5_000  # steps between two checkpoints
    keep: int = 2  # checkpoints that are kept, the last ones
    grid: int = 64  # images of the sheet of samples that is drawn at each; 0: no sheet

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        checks.positive_int("keep", self.keep)
        checks.non_negative_int("grid", self.grid)


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are drawn."""

    solver: str = "exponential"  # one of those with fixed steps, such as "exponential", "heun", "baoab"
    evaluations: int = 20  # network calls an image; Heun, on the paper's 125 points, takes 250, two a step
    grid_power: float = 2.0  # p of the times t = u^p, u evenly spaced
    denoise: bool = True  # the last call removes the noise that is left where the times end
    guidance: float = 1.0  # w of s_0 + w (s_c - s_0), towards the label; other than 1 each call is two

    def __post_init__(self) -> None:
        steps_within(self.solver, self.evaluations, self.denoise)
        checks.in_range("guidance", self.guidance, 0.0, 100.0)
        checks.positive("grid_power", self.grid_power)


@dataclass(frozen=True)
class Config:
    """What a run on images is made of. Defaults are those of CIFAR-10 in the paper (its Table 2, whose two learning
    rates have each other's label: 3e-4 is the network's, 3e-6 that of A).

    Raises ValueError naming the field, its value and what is allowed.
    """

    data: DataSettings = field(default_factory=DataSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    compute: Compute = field(default_factory=Compute)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        for group in dataclasses.fields(self)[:-1]:
            for setting in dataclasses.fields(settings := getattr(self, group.name)):
                _check_type(setting.name, getattr(settings, setting.name), str(setting.type))
        checks.non_negative_int("seed", self.seed)
        solver, method = self.sampling.solver, self.process.method
        if METHODS[method].k == 1 and as_solver(solver).needs_velocity:
            raise ValueError(f"solver={solver!r}: {method} has no velocity to split")
        dropout, guidance = self.training.context_dropout, self.sampling.guidance
        if dropout and not self.data.conditional:
            raise ValueError(f"context_dropout={dropout:g}: must be 0 without labels (data.conditional)")
        if guidance != 1 and not dropout:
            raise ValueError(f"guidance={guidance:g}: must be 1 where context_dropout is 0")

    @property
    def fitting(self) -> dict[str, Any]:
        """Arguments of `vsmd.fit`: the settings of training, the adaptation, the seed and how steps are computed."""
        settings = dataclasses.asdict(self.training)
        return settings | {"units": "raw", "adaptation": self.adaptation(), "seed": self.seed, "compute": self.compute}

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The U-Net for images of that shape, its first weights a function of the seed; classes: 0 unconditional."""
        settings = dataclasses.asdict(self.network) | ({"classes": classes} if self.data.conditional else {})
        with random.first_weights(random.generator(self.seed, "network")):
            return networks.build("unet", shape=list(shape), **settings)

    def with_overrides(self, changes: Mapping[str, Any]) -> Config:
        """The same but for some fields, named "training.steps", or "steps" for short, or {"training": {"steps": 9}}.

        Raises ValueError for an unknown name and for a bad value.
        """
        flat: dict[str, Any] = {}
        for name, value in changes.items():
            flat |= (
                {f"{name}.{short}": v for short, v in value.items()} if isinstance(value, Mapping) else {name: value}
            )
        groups: dict[str, dict[str, Any]] = {}
        for name, value in flat.items():
            allowed = [known for known in FIELDS if ("." in known) == ("." in name)]
            group, short = FIELDS[checks.one_of("field", name, allowed)]
            groups.setdefault(group, {})[short] = value
        whole = groups.pop("", {})
        whole |= {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        return dataclasses.replace(self, **whole)

    @property
    def text(self) -> str:
        """The settings as JSON, an object a group."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_text(cls, text: str) -> Config:
        """The inverse of `text`; ValueError for what is none."""
        try:
            settings = {**json.loads(text)}
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"config={messages.told(text)}: must be a JSON object ({error})") from None
        return cls().with_overrides(settings)


def _check_type(name: str, value: object, declared: str) -> None:
    """ValueError unless `value` is of the type that a field is declared with; a whole number is a float too."""
    kinds: dict[str, Any] = {"bool": bool, "int": int, "float": (int, float), "str": str, "tuple[int, ...]": int}
    kind, *none = declared.split(" | ")
    parts = value if isinstance(value, tuple) else (value,)
    right = all(isinstance(part, kinds[kind]) and isinstance(part, bool) == (kind == "bool") for part in parts)
    if not (right and isinstance(value, tuple) == ("tuple" in kind)) and not (none and value is None):
        said = "True or False" if kind == "bool" else declared.replace(" | ", " or ")
        raise ValueError(f"{name}={messages.told(value)}: must be {said}")


# Group and field that a name stands for: "training.steps" and "steps", which is in no other group; "seed" is in none.
FIELDS: dict[str, tuple[str, str]] = {"seed": ("", "seed")}
for _group in dataclasses.fields(Config)[:-1]:
    for _field in dataclasses.fields(_group.default_factory):  # type: ignore[arg-type]
        FIELDS[_field.name] = FIELDS[f"{_group.name}.{_field.name}"] = (_group.name, _field.name)


def config(name: str | None) -> Config:
    """The configuration of that name (ValueError for an unknown one)."""
    return CONFIGS[checks.one_of("config", name, CONFIGS)]


_GPU = {"precision": "bfloat16", "channels_last": True, "compile": True}
_HEUN = {"solver": "heun", "evaluations": 40}
_SHORT = {"schedule": "cosine", "ema": 0.999, "rounds": 10, "paths": 64}
_SMALL = {"width": 48, "multipliers": (1, 2), "depth": 1, "attention": (), "patch": 2, "batch_size": 64, "grid": 36}
_TINY = _SHORT | _SMALL | {
    "width": 32, "flips": False, "steps": 1_500, "learning_rate": 2e-3, "ema": 0.99, "rounds": 8, "every": 500,
}  # fmt: skip
CONFIGS: dict[str, Config] = {
    name: Config().with_overrides(changes)
    for name, changes in {
        "cifar10": _GPU | {"solver": "heun", "evaluations": 250},
        "cifar10-medium": _GPU | _SHORT | _HEUN | {"width": 64, "depth": 2, "steps": 20_000, "learning_rate": 6e-4},
        "cifar10-small": _SHORT | _HEUN | _SMALL | {"steps": 12_000, "learning_rate": 1e-3, "every": 1_000},
        "mnist5k": _TINY | {"images": "mnist5k", "held_out": 200, "paths": 32},
        "digits": _TINY | {"images": "digits", "held_out": 100, "patch": 1},
    }.items()
}
