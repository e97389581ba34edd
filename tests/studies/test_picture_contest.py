"""repro.studies.picture_contest and picture_choices: rows, parts, what a backbone is to the peers, and the choice."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from repro.studies import edm, flow_matching, picture_choices
from repro.studies import picture_contest as contest
from vsmd import forward_process
from vsmd.data.images import ImageSet

TINY: dict[str, Any] = {"network": {"width": 8}, "batch_size": 4, "rounds": 1, "paths": 4, "nodes": 3}
SMALL: dict[str, Any] = {"samples": 6, "reference": 7, "settings": TINY}
FAMILY = [{"prior": "moments", "solver": "exponential", "evaluations": [3, 2], "denoise": True}]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Features that need no network: an image's mean brightness in its quarters."""

    def of(images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1)

    monkeypatch.setattr(contest, "features", lambda kind: of)
    for cached in (contest.known, contest.floors):
        cached.cache_clear()
    yield
    for cached in (contest.known, contest.floors):
        cached.cache_clear()


def test_the_family_in_a_basis() -> None:
    result = contest.run(
        "digits", "VSCLD", 0, 5, FAMILY, steps=4, basis="cosine", R=1, a_mode="steered", looks=2, **SMALL
    )
    rows = result.tables["pictures"]
    assert all(tuple(row) == contest.COLUMNS for row in rows)
    assert [(r["train_steps"], r["nfe"], r["metric"]) for r in rows] == [
        (step, nfe, metric) for step, nfe in ((2, 3), (4, 3), (4, 2)) for metric in ("FD-EffNet", "KID")
    ]
    for row in rows:
        assert (row["part"], row["a_mode"], row["basis"], row["prior"]) == (
            "validation", "steered", "cosine", "moments",
        )  # fmt: skip
        assert (row["images_seen"], row["n_samples"]) == (4 * row["train_steps"], 6)
        assert math.isfinite(row["value"])
        assert row["floor"] == contest.floors("digits", "validation", 7, 6)[row["metric"]]


def test_peers() -> None:
    plan = [{"solver": "midpoint", "evaluations": [4]}]
    rows = contest.run_peer("digits", "ot-cfm", 0, plan, 4, part="test", looks=2, learning_rate=1e-4, **SMALL).tables
    assert [(r["train_steps"], r["nfe"], r["method"], r["units"], r["learning_rate"]) for r in rows["pictures"]] == [
        (step, 4, "ot-cfm", "raw", 1e-4) for step in (2, 2, 4, 4)
    ]
    levels = [{"solver": "heun", "evaluations": [5], "grid_power": 3, "sigma_max": 20}]
    row, _ = contest.run_peer("digits", "edm", 0, levels, 2, part="test", **SMALL).tables["pictures"]
    assert (row["method"], row["nfe"], row["grid_power"], row["sigma_max"], row["part"]) == ("edm", 5, 3, 20, "test")
    assert math.isfinite(row["value"])


def test_haze_is_measured_on_black(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faint grey over black images is all of what the plain distance hears; cleared, nothing is left."""
    train = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    train[:, :, 3] = torch.randint(100, 255, (40, 1, 8), generator=torch.Generator().manual_seed(0)).byte()
    monkeypatch.setattr(contest, "part_of", lambda dataset, part: ImageSet("black", train[:20], train[20:]))
    clean = contest.measures(train[20:], "black", "test", 20)
    hazy = contest.measures(torch.where(train[20:] == 0, 20, train[20:]).byte(), "black", "test", 20)
    assert (clean["haze"], hazy["haze"]) == (0, 7 / 8)
    assert hazy["FD-EffNet"] > 10 + clean["FD-EffNet"]
    assert hazy[contest.CLEARED] == pytest.approx(clean["FD-EffNet"], rel=1e-6)


def test_images_kept_apart_are_not_trained_on() -> None:
    whole, apart = contest.part_of("digits", "test"), contest.part_of("digits", "validation")
    assert len(apart.test) == len(whole.train) // 5
    rows = torch.cat([apart.train, apart.test]).flatten(1).tolist()
    assert sorted(rows) == sorted(whole.train.flatten(1).tolist())
    with pytest.raises(ValueError, match=r"^part='train': must be one of"):
        contest.part_of("digits", "train")


class Affine(nn.Module):
    """A backbone that answers 2 image + level."""

    backbone = True

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        return 2 * image + level.view(-1, 1, 1, 1)


@pytest.mark.parametrize("basis", ["coordinates", "principal"])
def test_a_backbone_is_the_velocity_itself(basis: str) -> None:
    """Flow matching's time is one level for all pixels: what a backbone answers in data coordinates is the velocity."""
    shape = (1, 2, 2)
    data = torch.randn(200, *shape, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 5).view(shape)
    process = forward_process("SGM", shape, basis=basis).with_data(data)
    x, t = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2)), torch.tensor([0.3])
    flow = flow_matching.Flow(Affine(), process, scaled=True)
    turned = process.basis.back(x)
    want = process.basis.into(2 * turned + torch.logit(t).view(-1, 1, 1, 1))
    torch.testing.assert_close(flow.velocity(x, t), want, rtol=1e-5, atol=1e-5)
    denoiser, sigma = edm.EDM(Affine(), process, 1.0), torch.tensor(0.7)
    norm = (1 + sigma**2).sqrt()
    want = x / norm**2 + sigma / norm * process.basis.into(2 * turned / norm - sigma.log())
    torch.testing.assert_close(denoiser.denoised(x, sigma), want, rtol=1e-5, atol=1e-5)


def test_candidates() -> None:
    budget = picture_choices.Budget(5, 6)
    runs = picture_choices.first("digits", budget)
    assert len(runs) == 3 + 6 + 6 + 6 + 6
    assert not any(r.config.get("a_mode") == "steered" and r.config["basis"] == "coordinates" for r in runs)
    peers = picture_choices.peers("digits", budget)
    assert sorted({(r.config["method"], r.config["learning_rate"]) for r in peers}) == [
        (m, rate) for m in ("edm", "i-cfm", "ot-cfm") for rate in (1e-3, 2e-3, 4e-3)
    ]
    assert all(run.config["seed"] == picture_choices.SEED for run in [*runs, *peers])


def row_of(value: float, **columns: Any) -> dict[str, Any]:
    base = dict.fromkeys(contest.COLUMNS) | {
        "dataset": "digits", "part": "validation", "nfe": 20, "metric": "FD-EffNet", "solver": "exponential+denoise",
        "grid_power": 2.0, "learning_rate": 2e-3, "beta": 5, "weighting": "backbone", "prior": "moments",
        "schedule": "constant", "units": "raw",
    }  # fmt: skip
    return base | {"value": value} | columns


def test_the_choice() -> None:
    ours = {"method": "CLD", "a_mode": "zero"}
    flow = {"method": "i-cfm", "prior": None, "weighting": None, "schedule": None, "beta": None}
    rows = pd.DataFrame([
        row_of(9, **ours, basis="coordinates"), row_of(8, **ours, basis="cosine", grid_power=3.0),
        row_of(math.nan, **ours, basis="principal"), row_of(1, **ours, basis="coordinates", metric="KID"),
        row_of(1, **ours, basis="cosine", part="test"), row_of(1, **ours, basis="cosine", nfe=40),
        row_of(7, **flow, solver="euler", learning_rate=1e-3), row_of(6, **flow, solver="midpoint"),
    ])  # fmt: skip
    best = picture_choices.chosen(rows)
    assert [(r["method"], r["basis"], r["solver"], r["value"]) for r in best.to_dict("records")] == [
        ("CLD", "cosine", "exponential+denoise", 8), ("i-cfm", "", "midpoint", 6),
    ]  # fmt: skip
    again = picture_choices.second(best[:1], "digits", picture_choices.Budget(5, 6))
    assert {(r.config["weighting"], r.config["learning_rate"]) for r in again} == {
        ("score", 2e-3), ("unit", 2e-3), ("backbone", 1e-3), ("backbone", 4e-3),
    }  # fmt: skip
    runs = picture_choices.final(best, "digits", [0, 1], picture_choices.Budget(5, 6, 3))
    assert [(r.function.split(":")[1], r.config["seed"]) for r in runs] == [
        ("run", 0), ("run_peer", 0), ("run", 1), ("run_peer", 1),
    ]  # fmt: skip
    assert runs[0].config["plan"] == [
        {"prior": "moments", "solver": "exponential", "evaluations": [20, 10, 40], "denoise": True, "grid_power": 3.0}
    ]
    assert all((r.config["part"], r.config["looks"]) == ("test", 3) for r in runs)
