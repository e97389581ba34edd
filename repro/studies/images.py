"""The image experiments of notebook 04: one method trained within a budget, its samples measured on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vsmd
from repro.grid.files import read_json
from repro.grid.runs import Result
from repro.studies.image_quality import Row, device, memorised, nearest, qualities, real
from repro.studies.plans import Draw, draws_of
from vsmd.data.images import ImageSet, load, to_uint8
from vsmd.files import write_atomic
from vsmd.images.configs import Config, config
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import FIXED, Painter
from vsmd.model import Model
from vsmd.samplers import as_solver
from vsmd.samplers.generation import steps_within
from vsmd.training import checkpoints, fit
from vsmd.training.distributed import World

COLUMNS = [
    "dataset", "method", "params", "images_seen", "world_size", "device", "solver", "nfe", "metric", "value",
    "n_samples", "floor", "train_seconds", "images_per_second",
]  # fmt: skip
KEPT, NEIGHBOURS = 64, 8  # samples kept for the figures, and those whose nearest training images are looked for
MEMORY = 500  # samples of which it is asked whether they repeat the training images
DRAWN = {"cpu": 100, "cuda": 500}  # images drawn at once


def configured(name: str, method: str, seed: int, settings: Row) -> Config:
    """The configuration `name` with method and seed, and `settings`: {"beta": 2, "network": {"width": 64}}, say."""
    return config(name).with_overrides({"method": method, "seed": seed, **settings})


def device_name(where: torch.device) -> str:
    """The name that rows give a device: the GPU's own, or "cpu"."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else where.type


class Notes:
    """Values that a run has worked out, in a file of its folder: when it goes on after a stop, they are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = read_json(path) or {}

    def once(self, key: str, work_out: Callable[[], Any]) -> Any:
        """The value noted under `key`; worked out and noted where there is none."""
        if key not in self.values:
            self.values[key] = work_out()
            write_atomic(self.path, json.dumps(self.values))
        return self.values[key]


# --- samples --------------------------------------------------------------------------------------------------------


def drawn(model: Model, config: Config, draw: Draw, n: int) -> Tensor:
    """The images of seeds 0 … n - 1 as a plan's draw leaves them, float32 (n, C, H, W); on the GPU, if there is one."""
    where, compute = device(), dataclasses.replace(config.compute, compile=False)
    model.network.to(where)
    painter = Painter(
        model, draw.solver, draw.evaluations, grid_power=draw.grid_power, denoise=draw.denoise,
        batch_size=DRAWN[where.type], compute=compute, checked=False,
    )  # fmt: skip
    size = painter.batch_size
    return torch.cat([painter.floats(range(i, min(i + size, n))) for i in range(0, n, size)])


def evaluations(draw: Draw) -> int:
    """Network calls an image that a plan's draw takes: at most those that it may, in whole steps."""
    steps = steps_within(draw.solver, draw.evaluations, draw.denoise)
    return steps * as_solver(draw.solver).evaluations + draw.denoise


# --- a run ----------------------------------------------------------------------------------------------------------


def trained(config: Config, images: ImageSet, folder: Path, marks: list[int], notes: Notes) -> Model:
    """Train in `folder`, or go on; the model of each of the steps `marks` is left there, and its rate in the notes.

    images_per_second is that of the process which reached the mark, compilation included, without what it spent on
    anything else. A step at which the run was stopped from outside leaves no model. A training that has come to its end
    is not begun again, and the notes keep the device that it was begun on.
    """
    if (folder / f"model-{config.training.steps}.safetensors").exists():
        return vsmd.load(folder / f"model-{config.training.steps}.safetensors")
    notes.once("device", lambda: device_name(device()))
    path = folder / "training.safetensors"
    first, begun, resting = checkpoints.step_of(path) if path.exists() else 0, time.perf_counter(), 0.0

    def keep(step: int, model: Model) -> None:
        nonlocal resting
        now = time.perf_counter()
        rate = (step - first) * config.training.batch_size / (now - begun - resting)  # none where a resume begins
        if step > first:
            notes.once(f"rate {step}", lambda: rate)
        model.save(folder / f"model-{step}.safetensors")
        resting += time.perf_counter() - now

    return fit(
        config.process(images.shape), Pictures(images.train, config.data.flips), **config.fitting,
        network=config.build(images.shape, 0), device=device(), checkpoint=path,
        checkpoint_every=config.checkpoints.every, snapshots=marks, on_snapshot=keep,
    )  # fmt: skip


def run(
    config: str,
    method: str,
    seed: int,
    plan: list[Row],
    steps: int,
    settings: Row = {},  # noqa: B006 - never mutated
    checkpoints: int = 6,
    samples: int = 2_000,
    reference: int = 10_000,
    metrics: list[str] = ["FD-EffNet", "KID"],  # noqa: B006
    workdir: Path | None = None,
) -> Result:
    """Train one method by a configuration of `vsmd.images` and measure it: rows of `images` and `images_adaptation`.

    steps: of training. settings: other fields of the configuration that differ. plan: how samples are drawn from the
    trained model (`plans`); the very first also at the other `checkpoints`, spaced evenly. samples: so many, at most as
    many as there are test images, so that the floor – test images against the same `reference` training images – has
    the same bias. metrics: FD-EffNet, KID (of the same features), FID. Points: samples (denoised ones, if the plan has
    any), their nearest training images, the final stiffness. A run that was stopped goes on in `workdir`. All of it
    runs on the GPU, if there is one; samples are drawn without compilation, which would cost more than it saves for
    each of the models.
    """
    chosen = configured(config, method, seed, {**settings, "steps": steps})
    draws = draws_of(plan, FIXED)
    best = next((draw for draw in draws if draw.denoise), draws[0])  # that the figures show
    calls = {draw: evaluations(draw) for draw in draws}  # a wrong plan is told before the training
    images = load(chosen.data.images)
    samples, reference = min(samples, len(images.test)), min(reference, len(images.train))
    marks = [round(chosen.training.steps * (i + 1) / checkpoints) for i in range(checkpoints)]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) if workdir is None else workdir
        notes = Notes(folder / "notes.json")
        final = trained(chosen, images, folder, marks, notes)
        measured = Measured(chosen, final, folder, notes, best, samples, reference, metrics)
        steered = final.process.variational_score == "steered"
        base: Row = {
            "dataset": chosen.data.images, "method": f"{method}-steered" if steered else method,
            "params": sum(p.numel() for p in final.network.parameters()), "world_size": World.current().size,
            "device": notes.values["device"], "n_samples": samples,
        }  # fmt: skip
        rows: list[Row] = []
        for step in marks:
            about = base | measured.training(step)
            for draw in draws if step == chosen.training.steps else draws[:1]:
                columns = about | {"solver": draw.name, "nfe": calls[draw]}
                rows += [columns | cells for cells in measured.rows(step, draw)]
        x = measured.shown()
    name, points = f"{base['dataset']}_{base['method']}_{seed}", dict[str, np.ndarray]()
    if bool(torch.isfinite(x).all()):
        rows.append(about | {"solver": best.name, "nfe": calls[best], **memorised(to_uint8(x), images)})
        points |= gallery(to_uint8(x), images, name)
    key = {"dataset": chosen.data.images, "method": base["method"], "seed": seed}
    trace = adaptation(final, key, chosen.training.batch_size)
    if trace:
        points[f"stiffness_{name}"] = final.process.stiffness.mean(0).flatten(0, 1).numpy()
    tables = {"images": [{c: row[c] for c in COLUMNS} for row in rows]}
    return Result(tables | ({"images_adaptation": trace} if trace else {}), points)


@dataclass
class Measured:
    """The models of a run and what their samples are worth; what the notes have is not measured again.

    best: the draw whose samples of the final model are shown.
    """

    config: Config
    final: Model
    folder: Path
    notes: Notes
    best: Draw
    samples: int
    reference: int
    metrics: list[str]
    of_best: Tensor | None = None

    def training(self, step: int) -> Row:
        """Cells on the training up to a step."""
        rate = self.notes.values.get(f"rate {step}", math.nan)
        seen = step * self.config.training.batch_size
        return {"images_seen": seen, "train_seconds": seen / rate, "images_per_second": rate}

    def rows(self, step: int, draw: Draw) -> list[Row]:
        """Cells on each metric of the samples of a step's model; none where a stop from outside left no model."""
        key, last = f"{step} {draw.name} {draw.evaluations}", step == self.config.training.steps
        if not (last or key in self.notes.values or self._file(step).exists()):
            return []
        dataset = self.config.data.images
        values = self.notes.once(
            key, lambda: self._qualities(self.final if last else vsmd.load(self._file(step)), draw)
        )
        floors = {metric: real(metric, dataset, self.reference, self.samples)[1] for metric in values}
        return [{"metric": metric, "value": value, "floor": floors[metric]} for metric, value in values.items()]

    def shown(self) -> Tensor:
        """Samples of the final model for the figures, float32 (n, C, H, W)."""
        if self.of_best is None:
            self.of_best = drawn(self.final, self.config, self.best, min(MEMORY, self.samples))
        return self.of_best

    def _file(self, step: int) -> Path:
        return self.folder / f"model-{step}.safetensors"

    def _qualities(self, model: Model, draw: Draw) -> dict[str, float]:
        x = drawn(model, self.config, draw, self.samples)
        if model is self.final and draw == self.best:
            self.of_best = x[:MEMORY]
        return qualities(x, self.config.data.images, self.metrics, self.reference)


def gallery(samples: Tensor, images: ImageSet, name: str) -> dict[str, np.ndarray]:
    """Points for the figures: samples (n, C, H, W) uint8, and some of them with their nearest training images."""
    some = samples[:NEIGHBOURS]
    beside = images.train[nearest(some, images.train)]
    return {
        f"samples_{name}": samples[:KEPT].flatten(1).numpy(),
        f"neighbours_{name}": torch.cat([some, beside]).flatten(1).numpy(),
    }


def adaptation(model: Model, key: Row, batch_size: int) -> list[Row]:
    """Rows of `images_adaptation`: stiffness over the pixels (mean, least, largest) after each round."""
    rows = []
    for h in model.history:
        s = np.asarray(h["stiffness"])
        cells = {f"stiffness_{name}": getattr(s, name)() for name in ("mean", "min", "max", "std")}
        images = {"step": h["step"], "images_seen": h["step"] * batch_size, "eta": h["eta"]}
        rows.append({**key, **images, **{k: float(v) for k, v in cells.items()}})
    return rows


def available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those of the sets that can be had here, and for the others the reason why not."""
    missing: dict[str, str] = {}
    for name in names:
        try:
            load(name)
        except (FileNotFoundError, ImportError) as error:
            missing[name] = str(error)
    return [name for name in names if name not in missing], missing
