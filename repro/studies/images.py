"""The image experiments of notebook 04: one method trained within a budget, its samples measured on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vsmd
from repro.grid.files import read_json
from repro.grid.runs import Result
from repro.studies.plans import Draw, draws_of
from vsmd import random
from vsmd.data.images import ImageSet, load, to_uint8
from vsmd.files import write_atomic
from vsmd.images.configs import Config, config
from vsmd.images.evaluation import METRICS
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import FIXED, Painter
from vsmd.metrics.frechet import EfficientNetFeatures, InceptionFeatures, feature_distance, kernel_distance
from vsmd.metrics.neighbours import memorisation
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
_KIND = {"KID": "FD-EffNet"}  # whose features a distance takes, where they are not its own
MEMORY = 500  # samples of which it is asked whether they repeat the training images
DRAWN = {"cpu": 100, "cuda": 500}  # images drawn at once

Row = dict[str, Any]


def configured(name: str, method: str, seed: int, settings: Row) -> Config:
    """The configuration `name` with method and seed, and `settings`: {"beta": 2, "network": {"width": 64}}, say."""
    return config(name).with_overrides({"method": method, "seed": seed, **settings})


def device() -> torch.device:
    """Where runs are computed: on the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(found: torch.device) -> str:
    """The name that rows give a device: the GPU's own, or "cpu"."""
    return torch.cuda.get_device_name(found) if found.type == "cuda" else found.type


class Notes:
    """What a run has found so far, in a file of its folder: work done before it was stopped is not done again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = read_json(path) or {}

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What is noted under `key`, made and noted if it is not there."""
        if key not in self.found:
            self.found[key] = make()
            write_atomic(self.path, json.dumps(self.found))
        return self.found[key]


# --- quality --------------------------------------------------------------------------------------------------------


@cache
def _features(kind: str) -> EfficientNetFeatures | InceptionFeatures:
    return METRICS[kind](device())


def reference_images(found: ImageSet, n: int) -> Tensor:
    """n training images (all, where there are not so many) at random, the same every time: a set may be sorted."""
    return found.train[torch.randperm(len(found.train), generator=random.generator(0, "reference"))[:n]]


@cache
def _real(metric: str, dataset: str, reference: int, n: int) -> tuple[Tensor, float]:
    """Features of `reference` training images, and the distance of n test images to them: the floor."""
    found = load(dataset)
    features = _features(_KIND.get(metric, metric))
    known = features(reference_images(found, reference))
    return known, _distance(metric, features(found.test[:n]), known)


def _distance(metric: str, features: Tensor, known: Tensor) -> float:
    return kernel_distance(features, known) if metric == "KID" else feature_distance(features, known)


def qualities(x: Tensor, dataset: str, metrics: list[str], reference: int) -> dict[str, float]:
    """The distances `metrics` of samples x (n, C, H, W) float to the training images; nan where any has diverged."""
    if not bool(torch.isfinite(x).all()):
        return dict.fromkeys(metrics, math.nan)
    images = to_uint8(x.clone())
    features = {kind: _features(kind)(images) for kind in {_KIND.get(m, m) for m in metrics}}
    return {m: _distance(m, features[_KIND.get(m, m)], _real(m, dataset, reference, len(x))[0]) for m in metrics}


def drawn(painter: Painter, n: int) -> Tensor:
    """The images of seeds 0 … n - 1 as the solver leaves them, float32 (n, C, H, W)."""
    size = painter.batch_size
    return torch.cat([painter.floats(range(i, min(i + size, n))) for i in range(0, n, size)])


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Rows of the images of `train` (uint8) nearest to images x (uint8), by squared pixel distance; (len(x),)."""
    a = x.flatten(1).float()
    best, rows = torch.full((len(a),), math.inf), torch.zeros(len(a), dtype=torch.int64)
    for first in range(0, len(train), 5_000):
        b = train[first : first + 5_000].flatten(1).float()
        value, row = (b.square().sum(1) - 2 * a @ b.T).min(1)
        rows = torch.where(value < best, first + row, rows)
        best = torch.minimum(value, best)
    return rows


def evaluations(draw: Draw) -> int:
    """Network calls an image that a plan's draw takes: at most those that it may, in whole steps."""
    steps = steps_within(draw.solver, draw.evaluations, draw.denoise)
    return steps * as_solver(draw.solver).evaluations + draw.denoise


# --- a run ----------------------------------------------------------------------------------------------------------


def trained(config: Config, found: ImageSet, folder: Path, marks: list[int], notes: Notes) -> Model:
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
        rate = (step - first) * config.training.batch_size / (now - begun - resting)
        notes.once(f"rate {step}", lambda: rate)
        model.save(folder / f"model-{step}.safetensors")
        resting += time.perf_counter() - now

    return fit(
        config.process(found.shape), Pictures(found.train, config.data.flips), **config.fitting,
        network=config.build(found.shape, 0), device=device(), checkpoint=path,
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
    # Network calls an image; a wrong plan is told before the training.
    taken = {draw: evaluations(draw) for draw in draws}
    best = next((draw for draw in draws if draw.denoise), draws[0])  # that the figures show
    found = load(chosen.data.images)
    samples, reference = min(samples, len(found.test)), min(reference, len(found.train))
    marks = [round(chosen.training.steps * (i + 1) / checkpoints) for i in range(checkpoints)]

    where, compute = device(), dataclasses.replace(chosen.compute, compile=False)

    def painted(model: Model, draw: Draw) -> Painter:
        model.network.to(where)
        return Painter(
            model, draw.solver, draw.evaluations, grid_power=chosen.sampling.grid_power, denoise=draw.denoise,
            batch_size=DRAWN[where.type], compute=compute,
        )  # fmt: skip

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) if workdir is None else workdir
        notes = Notes(folder / "notes.json")
        final = trained(chosen, found, folder, marks, notes)
        steered = final.process.variational_score == "steered"
        base: Row = {
            "dataset": chosen.data.images, "method": f"{method}-steered" if steered else method,
            "params": sum(p.numel() for p in final.network.parameters()), "world_size": World.current().size,
            "device": notes.found["device"], "n_samples": samples,
        }  # fmt: skip
        rows: list[Row] = []
        name = f"{chosen.data.images}_{base['method']}_{seed}"
        points: dict[str, np.ndarray] = {}
        shown: list[Tensor] = []  # of the final model

        def measured(step: int, draw: Draw) -> dict[str, float]:
            model = final if step == chosen.training.steps else vsmd.load(folder / f"model-{step}.safetensors")
            x = drawn(painted(model, draw), samples)
            if model is final and draw == best:
                shown.append(x[:MEMORY])
            return qualities(x, chosen.data.images, metrics, reference)

        for step in marks:
            last = step == chosen.training.steps
            first = f"{step} {draws[0].name} {draws[0].evaluations}"
            if not (last or first in notes.found or (folder / f"model-{step}.safetensors").exists()):
                continue  # it was stopped there
            rate = notes.found.get(f"rate {step}", math.nan)
            seen = step * chosen.training.batch_size
            base |= {"images_seen": seen, "train_seconds": seen / rate, "images_per_second": rate}
            for draw in draws if last else draws[:1]:
                values = notes.once(f"{step} {draw.name} {draw.evaluations}", partial(measured, step, draw))
                for metric, value in values.items():
                    floor = _real(metric, chosen.data.images, reference, samples)[1]
                    row = {"solver": draw.name, "nfe": taken[draw], "metric": metric, "value": value}
                    rows.append(base | row | {"floor": floor})
        x = shown[0] if shown else drawn(painted(final, best), min(MEMORY, samples))
        if bool(torch.isfinite(x).all()):
            images = to_uint8(x)
            rows.append(base | {"solver": best.name, "nfe": taken[best], **_memory(images, found)})
            some = images[:NEIGHBOURS]
            beside = found.train[nearest(some, found.train)]
            points[f"samples_{name}"] = images[:KEPT].flatten(1).numpy()
            points[f"neighbours_{name}"] = torch.cat([some, beside]).flatten(1).numpy()
    key = {"dataset": chosen.data.images, "method": base["method"], "seed": seed}
    trace = adaptation(final, key, chosen.training.batch_size)
    if trace:
        points[f"stiffness_{name}"] = final.process.stiffness.mean(0).flatten(0, 1).numpy()
    tables = {"images": [{c: row[c] for c in COLUMNS} for row in rows]}
    return Result(tables | ({"images_adaptation": trace} if trace else {}), points)


def _memory(images: Tensor, found: ImageSet) -> Row:
    """Cells on memorising: the share of images nearer to training than to test images, 1/2 for new ones."""
    value = memorisation(images, reference_images(found, len(found.test)), found.test)
    return {"metric": "memorised", "value": value, "n_samples": len(images), "floor": 0.5}


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
    here: list[str] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            load(name)
            here.append(name)
        except (FileNotFoundError, ImportError) as error:
            missing[name] = str(error)
    return here, missing
