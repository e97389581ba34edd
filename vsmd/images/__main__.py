"""`python -m vsmd.images`: train, sample, evaluate; on N devices `torchrun --nproc_per_node=N -m vsmd.images`.

A process whose peer does not answer for ten minutes, or VSMD_TIMEOUT seconds, ends with an error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from tyro.conf import Positional, arg

from vsmd import arguments, checks, files
from vsmd.data.images import tile
from vsmd.images.configs import CONFIGS, Config, SamplingSettings, config
from vsmd.images.evaluation import METRICS, evaluate, report
from vsmd.images.pictures import save_png
from vsmd.images.sampling import FIXED, Painter
from vsmd.images.training import BEST, CHECKPOINT, LAST, SETTINGS, loaded, together, train
from vsmd.model import load
from vsmd.training import checkpoints
from vsmd.training.compute import PRECISIONS, Compute
from vsmd.training.distributed import World, launched

UNNAMED = "cifar10-small"  # the configuration that images of your own start from, unless one is named


def settings_of(path: Path) -> Config:
    """The settings that a run's folder holds; whatever is wrong with the file is one line that names it."""
    with files.refusing(path, "the settings of a run"):
        return Config.from_text(path.read_text(encoding="utf-8"))


# The comment behind a field is its help on the command line, the docstring of a class that of its command.


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command's options, and what it does."""

    device: str = "auto"  # auto, cpu, cuda or cuda:N

    def __call__(self, device: torch.device) -> None:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Start(Command):
    """Where a run's settings come from."""

    config: Annotated[
        str | None, arg(help=f"settings to start from: {', '.join(CONFIGS)}; on resume the run's own")
    ] = None
    out: Path | None = None  # the run's folder; runs/<config> by default, runs/<name> for images of your own
    resume: bool = False  # go on from the folder's checkpoint

    def folder_for(self, images: str | None) -> Path:
        """The run's folder."""
        if self.out is not None:
            return self.out
        if images is None or (self.config is not None and images == config(self.config).data.images):
            if self.config is None:
                known = ", ".join(map(repr, CONFIGS))
                raise ValueError(f"config=None: must be given, one of {known}, or --data.images, or --out of a run")
            return Path("runs") / self.config
        return Path("runs") / (Path(images).resolve().stem if Path(images).exists() else images)


@dataclass(frozen=True, kw_only=True)
class Before(Start):
    """What says where the settings come from that other options override."""

    images: Annotated[str | None, arg(name="data.images")] = None

    def settings(self) -> Config:
        """Those of a run that goes on, of the configuration, or for images of your own of a small one."""
        saved = self.folder_for(self.images) / SETTINGS
        if self.resume and self.config is None and saved.is_file():
            return settings_of(saved)
        name = self.images if self.images in CONFIGS or self.images is None else UNNAMED
        return config(self.config or name)


@dataclass(frozen=True, kw_only=True)
class Train(Start):
    """Train a model in a folder of its own."""

    settings: Annotated[Config, arg(name="")]

    def __call__(self, device: torch.device) -> None:
        folder, world = self.folder_for(self.settings.data.images), World.current()
        if world.first:
            head = f"out={folder} device={device} processes={world.size}"
            print(self.settings.text, head, sep="\n", file=sys.stderr)
        try:
            train(self.settings, folder, device=device, resume=self.resume)
        except KeyboardInterrupt:
            if world.first and (folder / CHECKPOINT).exists():
                step = checkpoints.step_of(folder / CHECKPOINT)
                print(f"stopped after step {step:,}; --resume --out {folder} goes on", file=sys.stderr)
            raise


@dataclass(frozen=True, kw_only=True)
class Drawing(Command, SamplingSettings):
    """A command that draws images from a model."""

    model: Positional[Path]  # a model file, or a run's folder
    best: bool = False  # of a run, the model with the lowest held-out loss in place of the last
    seed: int = 0  # of the first image; the next ones count up
    solver: Annotated[str, arg(help=f"how the reverse process is solved: {', '.join(FIXED)}")] = "exponential"
    batch_size: int = 64  # images that each process draws at once
    precision: Annotated[str, arg(help=f"of the network: {' or '.join(PRECISIONS)}")] = "float32"

    def painter(self, device: torch.device) -> Painter:
        """The model on its device, with the solver."""
        name = BEST if self.best else LAST
        if self.model.is_dir() and not (self.model / name).exists():
            hint = f"its run writes one after `checkpoints.every` steps: train --resume --out {self.model} goes on"
            raise ValueError(f"model={str(self.model)!r}: holds no {name} yet; {hint}")
        model = load(self.model / name if self.model.is_dir() else self.model, device)
        return Painter(
            model, self.solver, self.evaluations, grid_power=self.grid_power, denoise=self.denoise,
            guidance=self.guidance, batch_size=self.batch_size, compute=Compute(self.precision),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sample(Drawing):
    """Draw images from a model."""

    out: Path  # a folder for PNG files, or a file: ending in .npz, or in .png for one sheet of all
    n: Annotated[int, arg(aliases=["-n"])] = 64  # images
    label: int | None = None  # class of all images, for a conditional model; None: the classes take turns

    def __call__(self, device: torch.device) -> None:
        is_file = self.out.suffix in (".npz", ".png")
        if self.out.suffix and not is_file and not self.out.is_dir():
            raise ValueError(f"out={str(self.out)!r}: must be a folder, or a file ending in .npz or .png")
        files.check_writable(self.out if is_file else self.out / "000000.png")
        n, painter, world = checks.positive_int("n", self.n), self.painter(device), World.current()
        labels = self.labels(getattr(painter.model.network, "classes", 0))
        seeds = range(self.seed, self.seed + n)
        if is_file:
            drawn = together(painter, seeds, labels, world)
            if world.first and self.out.suffix == ".png":
                save_png(self.out, tile(drawn, round(n**0.5)))
            elif world.first:
                arrays: dict[str, Any] = {"images": drawn.permute(0, 2, 3, 1).numpy(), "seeds": np.array(seeds)}
                arrays |= {} if labels is None else {"labels": labels.numpy()}
                with files.replacing(self.out) as temporary:
                    np.savez(temporary, **arrays)
            return
        mine = range(world.rank, n, world.size)
        chosen = None if labels is None else labels[list(mine)]
        for rows, batch in painter.batches([seeds[i] for i in mine], chosen):
            for i, image in zip(mine[rows], batch.permute(0, 2, 3, 1).numpy()):
                save_png(self.out / f"{seeds[i]:06d}.png", image[..., 0] if image.shape[-1] == 1 else image)

    def labels(self, classes: int) -> torch.Tensor | None:
        """The labels of the images; None for a model without classes."""
        if self.label is not None and not 0 <= self.label < classes:
            raise ValueError(f"label={self.label}: must be one of the model's {classes} classes, 0 to {classes - 1}")
        turns = torch.arange(self.n) % max(classes, 1)
        return None if not classes else turns if self.label is None else torch.full_like(turns, self.label)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Drawing):
    """Distances of a model's samples to the data, beside those of as many real images."""

    images: str | None = None  # what the model was trained on; a run's folder knows it
    metrics: Annotated[tuple[str, ...], arg(help=f"of {', '.join(METRICS)}")] = ("FD-EffNet", "KID")
    reference: int = 10_000  # training images to compare with
    out: Path | None = None  # a CSV file for the figures
    n: Annotated[int, arg(aliases=["-n"])] = 2_000  # samples

    def __call__(self, device: torch.device) -> None:
        for metric in self.metrics:
            checks.one_of("metrics", metric, METRICS)
        if self.out is not None:
            files.check_writable(self.out)
        saved = self.model / SETTINGS if self.model.is_dir() else self.model.with_name(SETTINGS)
        if self.images is None and not saved.is_file():
            raise ValueError("images=None: must name the images that the model was trained on; no run's folder tells")
        settings = settings_of(saved) if saved.is_file() else Config()
        if self.images is not None:
            settings = settings.with_overrides({"images": self.images})
        painter, reference = self.painter(device), checks.positive_int("reference", self.reference)
        image_set = loaded(settings, World.current())
        rows = evaluate(
            painter, image_set, self.n, metrics=self.metrics, reference=reference, seed=self.seed,
            device=device,
        )  # fmt: skip
        report(rows, self.out)


def parsed(argv: list[str]) -> Command:
    """The command that a command line gives; ValueError, one line, for a mistake, SystemExit after help is printed."""
    asked = {"-h", "--help"} & set(argv)
    settings = Config()
    if argv[:1] == ["train"]:
        start, _ = arguments.parsed(Before, args=argv[1:], add_help=False, return_unknown_args=True)
        if not asked or start.config is not None:
            settings = start.settings()
    trains = Annotated[Train, tyro.conf.subcommand("train", default=Train(settings=settings))]
    samples = Annotated[Sample, tyro.conf.subcommand("sample")]
    evaluates = Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    return arguments.parsed(trains | samples | evaluates, args=argv, prog="python -m vsmd.images", description=__doc__)


@arguments.reported
def main(argv: list[str] | None = None) -> int:
    """Run a command."""
    command = parsed(sys.argv[1:] if argv is None else argv)
    with launched(command.device) as device:
        command(device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
