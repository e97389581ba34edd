"""A training run on images in a folder of its own: configuration, log, checkpoints, samples, last and best models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsmd import random
from vsmd.data import images
from vsmd.data.image_files import ImageSet
from vsmd.images.configs import Config
from vsmd.images.logs import Log
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import Painter
from vsmd.model import Model
from vsmd.training import checkpoints, fit
from vsmd.training.distributed import World
from vsmd.training.pairs import loss, pairs_at

CHECKPOINT, LAST, BEST, SETTINGS = "checkpoint.safetensors", "model.safetensors", "best.safetensors", "config.json"
PART = 64  # images kept apart that are looked at together


def train(
    config: Config,
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    resume: bool = False,
    data: ImageSet | None = None,
) -> Model:
    """Train as `config` says and return the model; everything that the run writes goes into `folder`.

    config.json, log.csv (and tensorboard/), checkpoint.safetensors with the `keep - 1` before it, samples/<step>.png,
    model.safetensors (the last; averaged weights) and best.safetensors (the lowest loss on the images kept apart, of
    models with the same A). resume: go on from the folder's checkpoint, bit for bit on as many processes as before.
    data: the images, instead of those that `config.data` names. Called by all processes of a process group together.
    Raises ValueError for bad settings, a folder that holds a run already, or a checkpoint of other settings.
    """
    world, folder = World.current(), Path(folder)
    if (folder / CHECKPOINT).exists() and not resume:
        raise ValueError(f"out={str(folder)!r}: holds a run; --resume goes on with it, or choose another folder")
    found = loaded(config, world) if data is None else data
    run = Run(config, found, folder, world)
    return fit(
        config.process(found.shape),
        run.pictures,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        ema=config.ema,
        clip=config.clip,
        adaptation=config.adaptation,
        network=config.build(found.shape, len(found.classes)),
        seed=config.seed,
        device=device,
        compute=config.compute,
        checkpoint=folder / CHECKPOINT,
        checkpoint_every=config.every,
        keep=config.keep,
        on_loss=run.report,
        snapshots={*range(config.every, config.steps, config.every), config.steps},
        on_snapshot=run.snapshot,
    )


def loaded(config: Config, world: World) -> ImageSet:
    """The images that a configuration names; where they are downloaded or unpacked first, one process does it."""
    if not world.first:
        world.wait()
    try:
        return images.load(config.data, config.size)
    finally:
        if world.first:
            world.wait()


class Run:
    """What happens beside the steps of a run: its files. Of several processes the first one writes them."""

    def __init__(self, config: Config, found: ImageSet, folder: Path, world: World) -> None:
        if config.held_out > len(found.train) - 2:
            raise ValueError(f"held_out={config.held_out}: must be at most {len(found.train) - 2}, all images but two")
        if config.conditional and found.train_labels is None:
            raise ValueError(f"conditional=True: {found.name} has no labels")
        self.config, self.folder, self.world = config, folder, world
        self.classes, self.shape = len(found.classes), found.shape
        order = torch.randperm(len(found.train), generator=random.generator(config.seed, "held out"))
        apart, rest = order[: config.held_out].sort().values, order[config.held_out :].sort().values
        labels = found.train_labels if config.conditional else None
        self.apart, self.apart_labels = found.train[apart], None if labels is None else labels[apart]
        kept = found.train[rest] if config.held_out else found.train
        self.pictures = Pictures(kept, config.flips, None if labels is None else labels[rest])
        self.log: Log | None = None
        self.best: tuple[int, float] | None = None  # `mark` of the best model so far
        if world.first:
            written(folder / SETTINGS, lambda path: path.write_text(config.text, encoding="utf-8"))
            self.log = Log(folder, config.steps, config.batch_size)
            there = (folder / CHECKPOINT).exists()
            rows = self.log.begin(checkpoints.step_of(folder / CHECKPOINT) if there else 0)
            marks = [self.mark(int(row["step"]), float(row["held_out_loss"])) for row in rows if row["held_out_loss"]]
            self.best = min(marks, default=None)

    def mark(self, step: int, loss: float) -> tuple[int, float]:
        """What models are compared by, less is better: losses where A is the same, and the later A else."""
        adapts = self.config.process(self.shape).variational_score == "adaptive"
        rounds = self.config.adaptation.schedule(self.config.steps) if adapts else []
        return -sum(r <= step for r in rounds), loss

    def report(self, step: int, loss: float) -> None:
        """The mean loss of the last steps, into the log."""
        if self.log is not None:
            self.log.report(step, loss)

    def snapshot(self, step: int, model: Model) -> None:
        """The model of this step: its loss on the images kept apart, a sheet of samples, and its files."""
        began, cells = time.perf_counter(), {}
        if not model.process.steered:
            s = model.process.stiffness
            cells = {f"stiffness_{name}": float(getattr(s, name)()) for name in ("min", "mean", "max")}
        if len(self.apart):
            cells["held_out_loss"] = held_out_loss(model, self.apart, self.apart_labels, self.config, self.world)
        sheet = self.sheet(model)
        if self.log is None:
            return
        self.log.row(step, **cells)
        if sheet is not None:
            written(self.folder / "samples" / f"{step:08d}.png", lambda path: save_png(path, sheet))
            self.log.sheet(step, sheet)
        model.save(self.folder / LAST)
        if "held_out_loss" in cells:
            mark = self.mark(step, cells["held_out_loss"])
            if self.best is None or mark < self.best:
                self.best = mark
                model.save(self.folder / BEST)
        self.log.resting(time.perf_counter() - began)

    def sheet(self, model: Model) -> np.ndarray | None:
        """A sheet of images, the same seeds every time, drawn by all processes."""
        n, config = self.config.grid, self.config
        if not n:
            return None
        labels = torch.arange(n) % self.classes if config.conditional else None
        painter = Painter(
            model, config.solver, config.evaluations, grid_power=config.grid_power, compute=config.compute
        )
        return images.tile(together(painter, range(n), labels, self.world), round(n**0.5))


def held_out_loss(model: Model, values: Tensor, labels: Tensor | None, config: Config, world: World) -> float:
    """The loss of training, at noise and times that are the same for every model, on uint8 images kept apart."""
    process, device = model.process, model.score.device
    network = config.compute.called(model.network)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(world.rank * PART, len(values), world.size * PART):
        rows = slice(first, first + PART)
        stream = random.generator(config.seed, "held-out loss", first)
        x = images.to_float(values[rows])
        share = (torch.arange(len(x)) + torch.rand(len(x), generator=stream)) / len(x)
        times = model.t_min + (1 - model.t_min) * share
        pairs = pairs_at(process, x, times, stream, None if labels is None else labels[rows])
        with torch.no_grad():
            total += len(x) * loss(network, process.basis, pairs.map(lambda v: v.to(device))).double().cpu()
    return float(world.total(total)) / len(values)


def together(painter: Painter, seeds: Sequence[int], labels: Tensor | None, world: World) -> Tensor:
    """The images of `seeds`, uint8 (n, C, H, W), each drawn by one of the processes."""
    own = range(world.rank, len(seeds), world.size)
    found = torch.zeros(len(seeds), *painter.model.process.shape, dtype=torch.uint8)
    found[own.start :: own.step] = painter([seeds[i] for i in own], None if labels is None else labels[list(own)])
    return world.total(found)


def written(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through `write`: `path` holds the old bytes or all of the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write (height, width, 3) or (height, width) uint8 as PNG."""
    from PIL import Image

    Image.fromarray(picture).save(path)
