"""What is killed: small pieces of work that leave files in a folder and, called again, go on from what they left.

Each is a function of a folder. Called once, undisturbed, it leaves what every interrupted and resumed one must leave.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tinyimages as tiny
import torch
import torch._dynamo  # what optimisers load when the first one is made: once, not in every child

import vsmd
from repro import grid
from repro.reports import command as reports
from torture import seeds
from vsmd import command, files, latent
from vsmd.images.training import CHECKPOINT, train

STEPS = 90


def toy(folder: Path) -> None:
    """A training with adaptation and a checkpoint every ten steps, of which two stay; samples of its model."""
    process = vsmd.forward_process("VSULD", (3,), beta=4.0)
    adaptation = vsmd.Adaptation(rounds=6, paths=60, nodes=8)
    options: dict[str, Any] = {"steps": STEPS, "batch_size": 16, "adaptation": adaptation, "network": seeds.mlp()}
    path = folder / "checkpoint.safetensors"
    model = vsmd.fit(process, seeds.points(300), checkpoint=path, checkpoint_every=10, keep=2, **options)
    model.save(folder / "model.safetensors")
    files.write_atomic(folder / "samples.txt", repr(model.sample(5, seed=1).tolist()))


def autoencoder(folder: Path) -> None:
    """The pre-training of an autoencoder, then a bridge on its codes, each with its checkpoint."""
    options: dict[str, Any] = {"batch_size": 16, "steps": STEPS}
    paths = [folder / f"{name}.safetensors" for name in ("pretraining", "bridge", "model")]
    codec = latent.pretrain(seeds.codec(), seeds.points(300), checkpoint=paths[0], checkpoint_every=20, **options)
    fitted = latent.fit(
        seeds.points(300),
        autoencoder=codec,
        checkpoint=paths[1],
        checkpoint_every=15,
        adaptation=seeds.ADAPTATION,
        **options,
    )
    fitted.save(paths[2])


def forecast(folder: Path) -> None:
    """A forecaster with a checkpoint and early stopping, its folder and its forecast."""
    estimator = seeds.estimator(steps=STEPS, patience=15, checkpoint=folder / "checkpoint.safetensors")
    predictor = estimator.train(seeds.walk(200))
    predictor.serialize(folder / "predictor")
    (drawn,) = predictor.predict(seeds.walk(), num_samples=6)
    files.write_atomic(folder / "forecast.txt", repr(drawn.samples.tolist()))


def images(folder: Path) -> None:
    """An image run with a snapshot every three steps, and what its log has but for the clock."""
    run = folder / "run"
    config = tiny.config(method="VSULD", steps=14, every=3, keep=2)
    train(config, run, data=tiny.pictures(), resume=(run / CHECKPOINT).exists())
    log = pd.read_csv(run / "log.csv").drop(columns=["seconds", "images_per_second"])
    files.write_atomic(folder / "log.txt", log.to_csv(index=False))


def points(folder: Path) -> None:
    """The command `vsmd points`, overwriting what is there."""
    data = folder / "data.csv"
    if not data.exists():
        pd.DataFrame(seeds.points(400).numpy(), columns=["a", "b", "c"]).to_csv(data, index=False)
    line = f"points {data} --out {folder}/out.csv --model {folder}/model.safetensors --steps 40 --prior moments --force"
    if command.main(line.split()):
        raise SystemExit(1)


def runs(folder: Path) -> list[grid.Run]:
    """The grid that is killed: runs which note that they were executed."""
    return grid.product("tinyruns:run", method=["CLD", "SGM"], seed=[0, 1, 2], slow=0.05, log=str(folder / "log"))


def store(folder: Path) -> None:
    """A grid of runs, each in a process of its own."""
    grid.execute(runs(folder), grid.Store(folder / "store"), progress=False)


def notebook(folder: Path) -> None:
    """`python -m repro` on a folder of one notebook that executes a grid of runs."""
    import nbformat

    path = folder / "notebooks" / "01_tiny.ipynb"
    if not path.exists():
        path.parent.mkdir(parents=True)
        (folder / "pyproject.toml").write_text("")
        cell = (
            "from repro import grid\nstore = grid.profile(profile).store\n"
            f"log = {str(folder / 'log')!r}\n"
            "runs = grid.product('tinyruns:run', method=['CLD', 'SGM'], seed=[0, 1], slow=.05, log=log)\n"
            "print(grid.execute(runs, store))\nprint(store.table('tiny', runs).drop(columns='train_seconds'))"
        )
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in ('profile = "quick"', cell)])
        nb.cells[0].metadata["tags"] = ["parameters"]
        for number, each in enumerate(nb.cells):
            each.id = f"cell{number}"
        nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        with files.replacing(path) as temporary:
            nbformat.write(nb, temporary)
    os.chdir(folder)
    os.environ["VSMD_REPORTS"] = str(folder / "reports")
    raise SystemExit(reports.main(["--profile", "quick"]))


def smoke(folder: Path) -> None:
    """`make reproduce PROFILE=smoke` of the repository's cheapest notebook."""
    os.environ["VSMD_REPORTS"] = str(folder / "reports")
    raise SystemExit(reports.main(["--profile", "smoke", "--only", "01"]))


def book(folder: Path) -> None:
    """The book, from the stored results."""
    raise SystemExit(subprocess.run([sys.executable, "-m", "repro.book", "--out", str(folder / "book")]).returncode)


VICTIMS: dict[str, Callable[[Path], None]] = {
    "toy": toy, "autoencoder": autoencoder, "forecast": forecast, "images": images, "points": points, "store": store,
    "notebook": notebook, "smoke": smoke, "book": book,
}  # fmt: skip
# What the interrupted and the undisturbed one must have alike; rows are compared without what times something.
KEPT: dict[str, tuple[str, ...]] = {
    "toy": ("checkpoint.safetensors", "model.safetensors", "samples.txt"),
    "autoencoder": ("*.safetensors",),
    "points": ("out.csv", "model.safetensors"),
    "forecast": ("*.safetensors", "*.txt", "predictor/*"),
    "images": ("run/[!c]*.safetensors", "run/checkpoint.safetensors", "run/samples/*", "run/*.json", "*.txt"),
    "store": (),
    "notebook": (),
    "smoke": (),
    "book": ("book/html/**/*.html", "book/html/objects.inv"),
}


def strike(number: int, at: int, before: bool) -> None:
    """From now on the `at`-th file that is put in its place is met by a signal to this process, before or after it."""
    real, calls = os.replace, count()

    def replace(source: Any, target: Any, **options: Any) -> None:
        meets = next(calls) == at
        if meets and before:
            os.kill(os.getpid(), number)
        real(source, target, **options)
        if meets and not before:
            os.kill(os.getpid(), number)

    setattr(os, "replace", replace)  # noqa: B010 - whose types are many


def quiet() -> None:
    """One thread, and the same starts for whoever comes."""
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002 - whoever draws from it must not notice
    for name in ("REFRESH", "VSMD_SCHEDULER"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
