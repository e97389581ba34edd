"""The picture runs at tiny sizes, with eight pooled numbers for EfficientNet's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repro.studies import latent_images as runs
from repro.studies.image_quality import cleared
from repro.studies.latent import LATENT_COLUMNS
from vsmd import Adaptation
from vsmd.random import generator

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = generator(0, "pictures")
    base = torch.randint(0, 256, (6, *SHAPE), generator=stream)
    train = (base[torch.randint(6, (60,), generator=stream)] * torch.rand(60, 1, 1, 1, generator=stream)).byte()

    def features(images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), (2, 4)).flatten(1)

    monkeypatch.setattr(runs, "_set", lambda dataset, n_train: (train[: n_train or None], train[:30]))
    monkeypatch.setattr(runs, "_features", lambda: features)
    runs._reference.cache_clear()
    monkeypatch.setattr(runs, "SHOWN", 12)
    monkeypatch.setattr("repro.studies.latent.STEPS", 4)
    monkeypatch.setitem(runs.BRIDGE, "adaptation", Adaptation(rounds=1, paths=8, nodes=2))
    monkeypatch.setitem(runs.PIXELS, "adaptation", Adaptation(rounds=1, paths=4, nodes=2))


def test_latent_run(tmp_path: Path) -> None:
    methods = ["LSBDM", "VSULD", "steered VSCLD"]
    made = runs.run_latent("any", 1, methods, 4, 20, pretrain_steps=3, steps=2, width=4, workdir=tmp_path)
    rows = made.tables["latent"]
    assert all(list(r) == LATENT_COLUMNS for r in rows)
    assert [r["method"] for r in rows] == ["reconstruction", *methods]
    assert all(r["fd"] > 0 and r["recon_error"] > 0 and (r["ambient_dim"], r["latent_dim"]) == (64, 4) for r in rows)
    assert made.points is not None
    assert made.points["latent_any_steered-VSCLD_1"].shape == (12, 64)
    assert made.points["latent_any_interpolation_1"].shape == (12, 64)
    assert made.points["latent_any_VSULD_1"].min() >= 0
    scores = made.tables["latent_scores"]
    assert [r["direction"] for r in scores] == [*range(4)] * 3
    assert [r["stiffness"] for r in scores[:4]] == [0.0] * 4  # a Brownian motion
    assert [r["std"] for r in scores[:4]] == sorted((r["std"] for r in scores[:4]), reverse=True)
    assert len({r["stiffness"] for r in scores[8:]}) == 4
    again = runs.run_latent("any", 1, methods, 4, 20, pretrain_steps=3, steps=2, width=4, workdir=tmp_path)
    assert [r["fd"] for r in again.tables["latent"]] == [r["fd"] for r in rows]


def test_denoised_runs_are_rows_of_their_own() -> None:
    """Named so, with pictures of their own, and not those that the solver leaves; LSBDM is never denoised."""
    run: dict[str, Any] = {"latent_dim": 4, "samples": 20, "pretrain_steps": 3, "steps": 2, "width": 4}
    plain, clean = (runs.run_latent("any", 1, ["LSBDM", "VSULD"], denoise=d, **run) for d in (False, True))
    assert [r["method"] for r in clean.tables["latent"]] == ["reconstruction", "VSULD+denoise"]
    assert clean.tables["latent"][0] == plain.tables["latent"][0]
    assert clean.tables["latent"][1]["fd"] != plain.tables["latent"][2]["fd"]
    assert "latent_any_VSULD+denoise_1" in (clean.points or {})
    plain, clean = (runs.run_pixels("any", "VSULD", 2, 10, steps=2, width=4, denoise=d) for d in (False, True))
    (before,), (after,) = plain.tables["latent"], clean.tables["latent"]
    assert after["method"] == "pixel VSULD+denoise"
    assert after["fd"] != before["fd"]


def test_pixel_run_and_floor() -> None:
    made = runs.run_pixels("any", "VSULD", 2, 10, steps=2, width=4)
    (row,) = made.tables["latent"]
    assert list(row) == LATENT_COLUMNS
    assert (row["method"], row["ambient_dim"], row["latent_dim"]) == ("pixel VSULD", 64, None)
    (floor,) = runs.baseline("any", 2, 20).tables["latent"]
    assert floor["method"] == "real"
    assert floor["fd"] >= 0


def test_cleared_pictures_on_black(monkeypatch: pytest.MonkeyPatch) -> None:
    train = torch.zeros(40, *SHAPE, dtype=torch.uint8)
    train[:, :, 2:5, 2:5] = 200
    monkeypatch.setattr(runs, "_set", lambda dataset, n_train: (train, train[:30]))
    runs._reference.cache_clear()
    plain, clear = runs.run_pixels("any", "VSULD", 0, 10, steps=2, width=4).tables["latent"]
    assert clear["method"] == "pixel VSULD, cleared"
    assert clear["fd"] != plain["fd"]
    assert {k: v for k, v in clear.items() if k not in ("method", "fd")} == {
        k: v for k, v in plain.items() if k not in ("method", "fd")
    }
    some = torch.tensor([0, 25, 26, 255], dtype=torch.uint8)
    assert cleared(some).tolist() == [0, 0, 26, 255]


def test_missing_sets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise FileNotFoundError(f"{name}: not found")

    monkeypatch.setattr("vsmd.data.images.load", absent)
    assert runs.available(["x"]) == ([], {"x": "x: not found"})
