"""Sound files of every kind that the package reads, small, made once; damaged ones begin as copies of them."""

from __future__ import annotations

import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import panelfiles
import torch
import torch._dynamo  # as in `victims`
from torch import Tensor

import vsmd
from repro import grid
from vsmd import latent
from vsmd.data.calendars import as_period
from vsmd.forecasting import VSMDEstimator
from vsmd.images import Config
from vsmd.images.logs import COLUMNS
from vsmd.latent.autoencoder import VectorAutoencoder

PICTURES = ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm", "pgm")
ADAPTATION = vsmd.Adaptation(rounds=1, paths=20, nodes=4)
SMALL: dict[str, Any] = {"steps": 3, "batch_size": 8, "adaptation": ADAPTATION}
PERIODS = 60


def points(n: int = 64, d: int = 3) -> Tensor:
    """Points of several scales."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) * torch.arange(1, d + 1)


def mlp() -> torch.nn.Module:
    """A small network."""
    return vsmd.networks.build("mlp", shape=(3,), width=8, depth=1)


def codec() -> VectorAutoencoder:
    """A small autoencoder."""
    return VectorAutoencoder((3,), 2, 8)


def checkpointed(path: Path) -> vsmd.Model:
    """The training whose checkpoint is damaged: it resumes from `path`."""
    return vsmd.fit(vsmd.forward_process("CLD", (3,)), points(), network=mlp(), checkpoint=path, **SMALL)


def pretrained(path: Path) -> VectorAutoencoder:
    """Likewise of an autoencoder."""
    return latent.pretrain(codec(), points(), steps=3, batch_size=8, checkpoint=path)


def walk(steps: int = 80) -> list[dict[str, Any]]:
    """Two series, as a GluonTS data set."""
    values = np.random.default_rng(0).normal(size=(2, steps)).cumsum(1)
    return [{"start": as_period("2024-01-01", "B"), "target": values}]


def estimator(**more: Any) -> VSMDEstimator:
    """A small forecaster of them."""
    settings: dict[str, Any] = {"width": 8, "depth": 1, "steps": 3, "batch_size": 16, "scale_window": 10}
    return VSMDEstimator(3, "B", adaptation=ADAPTATION, sampling_steps=3, **{**settings, **more})


def make(folder: Path) -> None:
    """All of them, by the names that `readers` knows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder.mkdir(parents=True, exist_ok=True)
        _models(folder)
        _tables(folder)
        _images(folder)
        _paper(folder)


def _models(folder: Path) -> None:
    adaptive = vsmd.forward_process("VSULD", (3,), prior="mixture", basis="principal")
    mixture = vsmd.forward_process("CLD", (3,), beta=3.0, variational_score="mixture")
    for name, process in (("model", adaptive), ("bridge", mixture), ("plain", vsmd.forward_process("SGM", (3,)))):
        options: dict[str, Any] = {}
        if name == "bridge":
            options["mixture"] = vsmd.couplings.MixtureFit(components=2, steps=5, batch_size=32)
        vsmd.fit(
            process, points(), network=mlp(), units="whitened" * (name == "model") or None, **SMALL, **options
        ).save(folder / f"{name}.safetensors")
    checkpointed(folder / "checkpoint.safetensors")
    codes = pretrained(folder / "pretraining.safetensors")
    latent.fit(points(), autoencoder=codes, **SMALL).save(folder / "latent.safetensors")
    estimator().train(walk()).serialize(folder / "predictor")


def _tables(folder: Path) -> None:
    frame = pd.DataFrame(points().numpy().astype(float).round(4), columns=["a", "b", "c"])
    hours = pd.date_range("2024-01-01", periods=PERIODS, freq="h", name="time")
    panel = pd.DataFrame(points(PERIODS).numpy().round(3), hours, ["a", "b", "c"])
    for name, table, index in (("points", frame, False), ("panel", panel, True)):
        table.to_csv(folder / f"{name}.csv", index=index)
        table.to_csv(folder / f"{name}.csv.gz", index=index)
        table.to_parquet(folder / f"{name}.parquet", index=index)
    np.save(folder / "points.npy", frame.to_numpy())
    for zipped in (False, True):
        written = panelfiles.write(folder / f"series{'_zipped' * zipped}", panelfiles.series(), zipped=zipped)
        if not zipped:
            with tarfile.open(folder / "series.tar.gz", "w:gz") as archive:
                archive.add(written, "series")
    values: dict[str, Any] = {
        "values": panel.to_numpy().repeat(4, 0),
        "names": np.array(["a", "b", "c"]),
        "start": np.array("2016-01-01"),
    }
    (folder / "simbench").mkdir()
    np.savez_compressed(folder / "simbench" / "renewables_hourly.npz", **values)


def _images(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 8, 8), dtype=np.uint8)
    np.savez_compressed(folder / "images.npz", images=images, labels=np.arange(12) % 3)
    for suffix in PICTURES:
        place = folder / "pictures" / suffix
        place.mkdir(parents=True)
        for i, image in enumerate(images[:4]):
            Image.fromarray(image).convert("L" if suffix == "pgm" else "RGB").save(place / f"{i}.{suffix}")
    (folder / "config.json").write_text(Config().text)
    lines = [",".join(COLUMNS), *(f"{step},{8 * step},{step / 10},80.5,0.{step},,,,"[:60] for step in range(1, 9))]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "losses.json").write_text(json.dumps({"3": 0.5, "7": 0.4, "11": 0.45}))


def _paper(folder: Path) -> None:
    """A store with two runs and one in its spool, a notebook, and the files of claims and of the paper's items."""
    import nbformat

    store = grid.Store(folder / "store")
    runs = grid.product("tinyruns:run", method="CLD", seed=[0, 1])
    provenance = {"date": "2026-01-01", "seconds": 1.0, "commit": "", "device": "cpu", "torch": "2"}
    for run in runs:
        rows = [{"method": "CLD", "seed": run.config["seed"], "error": 0.5, "train_seconds": 1.0}]
        result = grid.Result({"tiny": rows}, {f"p{run.config['seed']}": np.eye(2)})
        store.put(run, result, code={}, provenance=provenance)
    (finished,) = list(store.finished())[:1]
    assert not isinstance(finished, str)
    (folder / "finished.json").write_text(finished.text())
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell('profile = "quick"'), nbformat.v4.new_markdown_cell("x")]
    )
    nb.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nb, folder / "01_notebook.ipynb")
    for name in ("claims.yaml", "paper.yaml"):
        source = Path(__file__).resolve().parents[2] / "notebooks" / name
        (folder / name).write_bytes(source.read_bytes())
