"""Every reader of the package: the sound file that it begins with, how it is read, what it may raise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vsmd
from torture import seeds
from vsmd import latent
from vsmd.data import images, panels, points


@dataclass(frozen=True)
class Reader:
    """source: name of the sound file or folder. read: of a path. raises: what it documents. names: that its message
    names the file."""

    source: str
    read: Callable[[Path], Any]
    raises: tuple[type[Exception], ...] = (ValueError,)
    names: bool = True
    twin: str = ""  # another name to read it under, where the reader looks for that


def _model(path: Path) -> None:
    """Loaded, it must also sample, or say why it does not."""
    model = vsmd.load(path)
    if not bool(torch.isfinite(model.sample(4, steps=20, seed=0)).all()):
        raise AssertionError("samples are not finite")


def _latent(path: Path) -> None:
    latent.load(path).sample(3, steps=20)


def _predictor(path: Path) -> None:
    from vsmd.forecasting import VSMDPredictor

    loaded = VSMDPredictor.deserialize(path)
    if max(loaded.prediction_length, loaded.num_samples, loaded.sampling_steps) <= 1_000:
        next(iter(loaded.predict(seeds.walk(), num_samples=3)))


def _panel(path: Path) -> None:
    panels.from_wide(path, "h", 4, windows=2, gaps="missing" if sum(path.parent.name.encode()) % 2 else "error")


def _series(path: Path) -> None:
    from repro.studies.sets import gluonts_files

    gluonts_files.read(path, "series", "h", 4)


def _simbench(path: Path) -> None:
    from repro.studies.sets.panels import simbench

    os.environ["VSMD_DATA"] = str(path.parent.parent)
    simbench("renewables")


def _text(path: Path) -> str:
    """What such a file begins with; nothing of what is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(2**24).decode(errors="replace")


def _config(path: Path) -> None:
    from vsmd.images import Config

    Config.from_text(_text(path))


def _resumed_command(path: Path) -> None:
    from vsmd.images.__main__ import parsed

    parsed(["train", "--out", str(path.parent), "--resume", "--device", "cpu"])


def _log(path: Path) -> None:
    from vsmd.images.logs import Log

    Log(path.parent, 12, 8).begin(5)


def _losses(path: Path) -> None:
    from vsmd.forecasting.stopping import EarlyStopping

    record = path.parent / path.name.removesuffix(".losses.json")
    for name in (record, record.with_name(f"{record.name}.best.safetensors")):
        name.touch()
    EarlyStopping(seeds.points(), 2, 0, record)


def _store(path: Path) -> None:
    from repro import grid

    store = grid.Store(path)
    store.table("tiny")
    store.states(grid.product("tinyruns:run", method="CLD", seed=[0, 1]))
    store.provenance("tiny")
    store.points("p0")


def _finished(path: Path) -> None:
    from repro.grid.spool import Finished

    Finished.read(_text(path), path.name)


def _notebook(path: Path) -> None:
    from repro.reports import command

    command.notebook_hash(path, "smoke")


def _claims(path: Path) -> None:
    from repro.reports import claims

    claims.load(path)


def _paper(path: Path) -> None:
    from repro.reports import page

    page.load_paper(path)


FILE = (ValueError, FileNotFoundError)
FIT = (ValueError, FloatingPointError)  # a file whose numbers are sound but wild: sampling says so
SET = (ValueError, TypeError)  # of images that are not uint8
READERS: dict[str, Reader] = {
    "model": Reader("model.safetensors", _model, FIT), "model, mixture score": Reader("bridge.safetensors", _model,
    FIT),
    "model, overdamped": Reader("plain.safetensors", _model, FIT), "latent model": Reader("latent.safetensors",
    _latent, FIT),
    "checkpoint": Reader("checkpoint.safetensors", seeds.checkpointed, FIT),
    "checkpoint of pre-training": Reader("pretraining.safetensors", seeds.pretrained, FIT),
    "predictor": Reader("predictor", _predictor, FIT, names=False), "npz": Reader("images.npz", images.load, SET),
    "npy": Reader("points.npy", points.read, names=False), "points csv": Reader("points.csv", points.read, names=False),
    "points csv.gz": Reader("points.csv.gz", points.read, names=False), "panel csv": Reader("panel.csv", _panel, FILE),
    "points parquet": Reader("points.parquet", points.read, names=False), "panel csv.gz": Reader("panel.csv.gz",
    _panel, FILE),
    "panel parquet": Reader("panel.parquet", _panel, FILE), "series": Reader("series", _series),
    "series gz": Reader("series_zipped", _series), "series tar.gz": Reader("series.tar.gz", _series),
    "profiles npz": Reader("simbench/renewables_hourly.npz", _simbench, twin="simbench_hourly/renewables_hourly.npz"),
    "config": Reader("config.json", _config, names=False),
    "config of a run": Reader("config.json", _resumed_command, names=False, twin="config.json"),
    "log": Reader("log.csv", _log, names=False, twin="log.csv"),
    "losses": Reader("losses.json", _losses, names=False, twin="x.losses.json"),
    "store": Reader("store", _store, (ValueError, FileNotFoundError), names=False),
    "finished run": Reader("finished.json", _finished, names=False), "notebook": Reader("01_notebook.ipynb", _notebook),
    "claims": Reader("claims.yaml", _claims, names=False), "paper": Reader("paper.yaml", _paper, names=False),
    **{f"pictures {suffix}": Reader(f"pictures/{suffix}", images.load, names=False) for suffix in seeds.PICTURES},
}  # fmt: skip
