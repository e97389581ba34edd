"""The image runs: rows and their columns, going on after a stop, bits per dimension."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repro.studies import images as runs
from repro.studies import likelihoods
from repro.studies.throughput import throughput
from vsmd.data.images import ImageSet
from vsmd.random import generator

TINY: dict[str, Any] = {
    "network": {"width": 8}, "batch_size": 4, "every": 1, "held_out": 0, "rounds": 2, "paths": 4, "nodes": 3,
}  # fmt: skip
PLAN: list[dict[str, Any]] = [
    {"solver": "exponential", "evaluations": [2, 3]},
    {"solver": "heun", "denoise": True, "evaluations": [4]},
]


def mean_only(x: Tensor, dataset: str, metrics: list[str], reference: int) -> dict[str, float]:
    return {m: float(x.double().mean()) for m in metrics}


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances that need no features."""
    monkeypatch.setattr(runs, "qualities", mean_only)
    monkeypatch.setattr(runs, "real", lambda metric, dataset, reference, n: (torch.zeros(1), float(reference + n)))


def tiny_run(workdir: Path | None = None, method: str = "VSCLD") -> Any:
    return runs.run("digits", method, 0, PLAN, 6, TINY, checkpoints=3, samples=5, reference=7, workdir=workdir)


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("train_seconds", "images_per_second")} for row in rows]


def test_run(cheap: None) -> None:
    result = tiny_run()
    rows = result.tables["images"]
    assert all(list(row) == runs.COLUMNS for row in rows)
    found = [(r["images_seen"], r["solver"], r["nfe"], r["metric"]) for r in rows]
    early = [(seen, "exponential", 2, m) for seen in (8, 16) for m in ("FD-EffNet", "KID")]
    late = [
        (24, s, n, m)
        for s, n in (("exponential", 2), ("exponential", 3), ("heun+denoise", 3))
        for m in ("FD-EffNet", "KID")
    ]
    assert found == [*early, *late, (24, "heun+denoise", 3, "memorised")]
    for row in rows:
        assert (row["dataset"], row["method"], row["device"], row["world_size"]) == ("digits", "VSCLD", "cpu", 1)
        assert row["n_samples"] == 5
        assert row["floor"] == (0.5 if row["metric"] == "memorised" else 12)
        assert row["train_seconds"] == pytest.approx(row["images_seen"] / row["images_per_second"])
        assert math.isfinite(row["value"])
    trace = result.tables["images_adaptation"]
    assert [row["step"] for row in trace] == sorted({row["step"] for row in trace})
    assert all(row["stiffness_min"] <= row["stiffness_mean"] <= row["stiffness_max"] for row in trace)
    assert result.points is not None
    shapes = {name: value.shape for name, value in result.points.items()}
    name = "digits_VSCLD_0"
    assert shapes == {f"samples_{name}": (5, 64), f"neighbours_{name}": (10, 64), f"stiffness_{name}": (8, 8)}


def test_run_goes_on_after_a_stop(cheap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_run(method="SGM")
    asked = 0

    def stop(*given: Any) -> dict[str, float]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise KeyboardInterrupt
        return mean_only(*given)

    monkeypatch.setattr(runs, "qualities", stop)
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, "SGM")
    monkeypatch.setattr(runs, "fit", lambda *given, **named: 1 / 0)  # nor is it trained again
    monkeypatch.setattr(runs, "device_name", lambda where: "another")
    again = tiny_run(tmp_path, "SGM")
    assert asked == 1 + 1 + 4  # what was measured is not measured again
    assert plain(again.tables["images"]) == plain(whole.tables["images"])
    assert "images_adaptation" not in again.tables
    for step in (2, 4):  # nor does what was measured need its model
        (tmp_path / f"model-{step}.safetensors").unlink()
    assert plain(tiny_run(tmp_path, "SGM").tables["images"]) == plain(whole.tables["images"])


def test_rate_leaves_out_what_was_not_training(cheap: None, tmp_path: Path) -> None:
    rates = [row["images_per_second"] for row in tiny_run(tmp_path).tables["images"]]
    assert all(rate > 0 for rate in rates)
    notes = runs.Notes(tmp_path / "notes.json")
    assert set(rates) == {notes.values[f"rate {step}"] for step in (2, 4, 6)}
    assert notes.once("rate 2", lambda: 1 / 0) == notes.values["rate 2"]


def test_configured() -> None:
    chosen = runs.configured("digits", "CLD", 3, {"steps": 7, "network": {"width": 8}, "variational_score": "steered"})
    assert (chosen.process.method, chosen.seed, chosen.training.steps, chosen.network.width) == ("CLD", 3, 7, 8)
    assert chosen.network.depth == 1
    with pytest.raises(ValueError, match="digits"):
        runs.configured("digit", "CLD", 0, {})
    with pytest.raises(ValueError, match=r"^field='widht': must be one of .*"):
        runs.configured("digits", "CLD", 0, {"widht": 8})


def test_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = throughput("digits", "CLD", 4, 2, settings={"network": {"width": 8}}).tables["images_throughput"]
    assert row["images_per_second"] > 0
    assert row["bare_share"] == pytest.approx(row["images_per_second"] / row["bare_images_per_second"])
    assert (row["device"], row["peak_memory_gb"]) == ("cpu", None)
    assert row["hours_200M_on_8"] == pytest.approx(200e6 / 8 / row["images_per_second"] / 3600)


# ---- bits per dimension --------------------------------------------------------------------------


def test_dequantised() -> None:
    levels = torch.arange(17).mul(255).div(16).round().to(torch.uint8).view(1, 1, 1, 17).expand(400, 1, 1, 17)
    x = likelihoods.dequantised(levels, 17, generator(0))
    k = ((x + 1) * 17 / 2).floor()
    assert torch.equal(k, torch.arange(17.0).expand_as(k))
    inside = (x + 1) * 17 / 2 - k
    assert float(inside.mean()) == pytest.approx(0.5, abs=0.02)
    uniform = torch.full((3,), -17 * math.log(2))
    assert likelihoods.bits(uniform, 17, 17).tolist() == pytest.approx([math.log2(17)] * 3)


def test_likelihood_of_a_network_that_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the model is the Gaussian of its pixels' means and variances, which is known."""
    stock = torch.randint(0, 256, (60, 1, 4, 4), generator=generator(0), dtype=torch.uint8)
    stock[:, :, 2:] //= 4
    monkeypatch.setattr(likelihoods, "load", lambda name: ImageSet("noise", stock[:50], stock[50:]))
    result = likelihoods.likelihood(
        "digits",
        "CLD",
        0,
        3,
        1,
        {**TINY, "network": {"width": 8, "multipliers": [1]}, "learning_rate": 1e-12},
        tolerance=1e-4,
    )
    value = {row["method"]: row["value"] for row in result.tables["images"]}
    x = likelihoods.dequantised(stock[50:53], 17, generator(0, "dequantise")).flatten(1).double()
    many = likelihoods.dequantised(stock[:50].repeat(400, 1, 1, 1), 17, generator(1)).flatten(1).double()
    law = torch.distributions.Normal(many.mean(0), many.std(0))
    assert value["CLD"] == pytest.approx(float(likelihoods.bits(law.log_prob(x).sum(1), 16, 17).mean()), abs=0.03)
    assert value["uniform"] == pytest.approx(math.log2(17))
    assert value["gaussian"] < value["uniform"]
    assert all(list(row) == runs.COLUMNS for row in result.tables["images"])
