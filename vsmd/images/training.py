"""A training run on images in a folder of its own: configuration, log, checkpoints, samples, last and best models."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsmd import files, random
from vsmd.data import images
from vsmd.data.image_files import ImageSet
from vsmd.images.configs import Config
from vsmd.images.logs import Log
from vsmd.images.pictures import Pictures, save_png
from vsmd.images.sampling import Painter
from vsmd.model import Model
from vsmd.training import fit
from vsmd.training.distributed import World
from vsmd.training.pairs import loss, pairs_at

CHECKPOINT, LAST, BEST, SETTINGS = "checkpoint.safetensors", "model.safetensors", "best.safetensors", "config.json"
PART = 64  # held-out images that the loss is taken of at once


def train(
    config: Config,
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    resume: bool = False,
    data: ImageSet | None = None,
) -> Model:
    """Train as `config` says and return the model; everything that the run writes goes into `folder`.

    Called by all processes of a process group together. The folder holds config.json, log.csv (and tensorboard/),
    checkpoint.safetensors with the `keep - 1` before it, samples/<step>.png, model.safetensors (the last; averaged
    weights) and best.safetensors (the lowest held-out loss of the models with the same A).

    config: all settings, such as `vsmd.images.config("cifar10")`.
    folder: made if it is not there.
    device: of this process.
    resume: go on from the folder's checkpoint, bit for bit on as many processes as before.
    data: the images, in place of those that `config.data.images` names.
    Raises ValueError for bad settings, a folder that holds a run already or another process trains in, or a checkpoint
    of other settings; OSError where the disk is too full for the run.
    """
    world, folder = World.current(), Path(folder)
    if (folder / CHECKPOINT).exists() and not resume:
        raise ValueError(f"out={str(folder)!r}: holds a run; --resume goes on with it, or choose another folder")
    refusal = f"out={str(folder)!r}: another process trains there; wait for it, or choose another folder"
    with files.alone(folder, refusal) if world.first else nullcontext():
        image_set = loaded(config, world) if data is None else data
        run = RunFolder(config, image_set, folder, world)
        network = config.build(image_set.shape, len(image_set.classes))
        run.check_disk(sum(p.numel() for p in network.parameters()))
        every, steps = config.checkpoints.every, config.training.steps
        return fit(
            config.process(image_set.shape), run.pictures, **config.fitting, network=network, device=device,
            checkpoint=folder / CHECKPOINT, checkpoint_every=every, keep=config.checkpoints.keep, on_start=run.begin,
            on_loss=run.report, snapshots={*range(every, steps, every), steps}, on_snapshot=run.snapshot,
        )  # fmt: skip


def loaded(config: Config, world: World) -> ImageSet:
    """The images that a configuration names; where they are downloaded or unpacked first, one process does it."""
    if not world.first:
        world.wait()
    try:
        return images.load(config.data.images, config.data.size)
    finally:
        if world.first:
            world.wait()


class RunFolder:
    """What happens beside the steps of a run: its files. Of several processes the first one writes them."""

    def __init__(self, config: Config, image_set: ImageSet, folder: Path, world: World) -> None:
        count, data = len(image_set.train), config.data
        if data.held_out > count - 2:
            raise ValueError(f"held_out={data.held_out}: must be at most {count - 2}, all images but two")
        if data.conditional and image_set.train_labels is None:
            raise ValueError(f"conditional=True: {image_set.name} has no labels")
        self.config, self.folder, self.world = config, folder, world
        self.classes, self.shape = len(image_set.classes), image_set.shape
        order = torch.randperm(count, generator=random.generator(config.seed, "held out"))
        apart, rest = order[: data.held_out].sort().values, order[data.held_out :].sort().values
        labels = image_set.train_labels if data.conditional else None
        self.held_out, self.held_out_labels = image_set.train[apart], None if labels is None else labels[apart]
        trained_on = image_set.train[rest] if data.held_out else image_set.train
        self.pictures = Pictures(trained_on, data.flips, None if labels is None else labels[rest])
        self.log: Log | None = None
        self.best: tuple[int, float] | None = None  # `mark` of the best model so far
        self.made: int | None = None  # the step that a run goes on from, where its snapshot is whole

    def check_disk(self, parameters: int) -> None:
        """OSError where less is free than a new run writes: checkpoints (16 bytes a parameter) and models (4)."""
        need = parameters * (16 * (self.config.checkpoints.keep + 1) + 4 * 3)
        if self.world.first and not (self.folder / CHECKPOINT).exists() and shutil.disk_usage(self.folder).free < need:
            raise OSError(f"out={str(self.folder)!r}: the run writes {need / 1e9:.2g} GB, more than is free there")

    def begin(self, step: int) -> None:
        """Training begins after `step`, its checkpoint accepted: settings and log are the run's."""
        made = False
        if self.world.first:
            files.write_atomic(self.folder / SETTINGS, self.config.text)
            self.log = Log(self.folder, self.config.training.steps, self.config.training.batch_size)
            rows = self.log.begin(step)
            marks = [self.mark(int(row["step"]), float(row["held_out_loss"])) for row in rows if row["held_out_loss"]]
            self.best = min(marks, default=None)
            made = any(int(row["step"]) == step and not row["loss"] for row in rows) and (self.folder / LAST).exists()
        self.made = step if self.world.largest(made) else None

    def mark(self, step: int, loss: float) -> tuple[int, float]:
        """What models are compared by, less is better: first the later A, then the lower loss."""
        adapts = self.config.process(self.shape).variational_score == "adaptive"
        rounds = self.config.adaptation().schedule(self.config.training.steps) if adapts else []
        return -sum(r <= step for r in rounds), loss

    def report(self, step: int, loss: float) -> None:
        """The mean loss of the last steps, into the log."""
        if self.log is not None:
            self.log.report(step, loss)

    def snapshot(self, step: int, model: Model) -> None:
        """The model of this step: its loss on the held-out images, a sheet of samples, its files, at last its row."""
        if step == self.made:
            return
        began, cells = time.perf_counter(), {}
        if not model.process.steered:
            s = model.process.stiffness
            cells = {f"stiffness_{name}": float(getattr(s, name)()) for name in ("min", "mean", "max")}
        if len(self.held_out):
            cells["held_out_loss"] = held_out_loss(model, self.held_out, self.held_out_labels, self.config, self.world)
        sheet = self.sheet(model)
        if self.log is None:
            return
        if sheet is not None:
            save_png(self.folder / "samples" / f"{step:08d}.png", sheet)
            self.log.sheet(step, sheet)
        model.save(self.folder / LAST)
        if "held_out_loss" in cells:
            mark = self.mark(step, cells["held_out_loss"])
            if self.best is None or mark < self.best:
                self.best = mark
                model.save(self.folder / BEST)
        self.log.row(step, **cells)
        self.log.pause(time.perf_counter() - began)

    def sheet(self, model: Model) -> np.ndarray | None:
        """A sheet of images, the same seeds every time, drawn by all processes."""
        config, n = self.config, self.config.checkpoints.grid
        if not n:
            return None
        labels = torch.arange(n) % self.classes if config.data.conditional else None
        painter = Painter(model, **dataclasses.asdict(config.sampling), compute=config.compute, checked=False)
        return images.tile(together(painter, range(n), labels, self.world), round(n**0.5))


def held_out_loss(model: Model, values: Tensor, labels: Tensor | None, config: Config, world: World) -> float:
    """The loss of training, at noise and times that are the same for every model, on held-out uint8 images."""
    process, device = model.process, model.score.device
    network = config.compute.called(model.network)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(world.rank * PART, len(values), world.size * PART):
        rows = slice(first, first + PART)
        stream = random.generator(config.seed, "held-out loss", first)
        x = images.to_float(values[rows])
        share = (torch.arange(len(x)) + torch.rand(len(x), generator=stream)) / len(x)
        times = model.t_min + (1 - model.t_min) * share
        context, weighting = None if labels is None else labels[rows], config.training.weighting
        pairs = pairs_at(process, x, times, stream, context, weighting)
        with torch.no_grad():
            total += len(x) * loss(network, process.basis, pairs.map(lambda v: v.to(device))).double().cpu()
    return float(world.total(total)) / len(values)


def together(painter: Painter, seeds: Sequence[int], labels: Tensor | None, world: World) -> Tensor:
    """The images of `seeds`, uint8 (n, C, H, W), each drawn by one of the processes."""
    mine = range(world.rank, len(seeds), world.size)
    drawn = torch.zeros(len(seeds), *painter.model.process.shape, dtype=torch.uint8)
    labels = None if labels is None else labels[list(mine)]
    with suppress(*(() if painter.checked else (FloatingPointError,))):  # a sheet does not end a training
        drawn[mine.start :: mine.step] = painter([seeds[i] for i in mine], labels)
    return world.total(drawn)
