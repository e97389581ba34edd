"""vsmd.images.evaluation: distances beside their floor, of the images that seeds say, against images chosen once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from test_sampling import model
from tinyimages import pictures
from torch import Tensor

from vsmd.images import Painter, evaluation
from vsmd.images.evaluation import evaluate, report
from vsmd.metrics.distances import frechet_distance_of
from vsmd.metrics.frechet import kernel_distance


class Pixels:
    """Six pixels as features: no network."""

    describes = "pixels"

    def __init__(self, device: Any) -> None:
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)[:, 2:8]


@pytest.fixture(autouse=True)
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "METRICS", {"FD-EffNet": Pixels, "KID": Pixels})


def test_values_and_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    painter, image_set = Painter(model(), evaluations=5), pictures()
    frechet, kernel = evaluate(painter, image_set, 20, reference=1_000, seed=3)
    images, real = (x.float().flatten(1)[:, 2:8] for x in (painter(range(3, 23)), image_set.train))
    assert frechet["value"] == pytest.approx(frechet_distance_of(images, real), rel=1e-3)
    assert kernel["value"] == pytest.approx(kernel_distance(images, real), rel=1e-3)
    test = image_set.test.float().flatten(1)[:, 2:8]
    assert frechet["floor"] == pytest.approx(frechet_distance_of(test, real), rel=1e-6)
    assert (frechet["n_samples"], frechet["n_floor"], frechet["n_reference"]) == (20, 8, 40)
    report([frechet, kernel], tmp_path / "out" / "figures.csv")
    said = capsys.readouterr().out
    assert "n = 20, 5 evaluations, against 40 training images · pixels" in said
    with (tmp_path / "out" / "figures.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [frechet["value"], kernel["value"]]


def test_conditional_models_take_turns() -> None:
    (row,) = evaluate(Painter(model(conditional=True), evaluations=3), pictures(), 6, metrics=["KID"])
    assert torch.isfinite(torch.tensor(row["value"]))


def test_bad_values() -> None:
    painter = Painter(model(), evaluations=3)
    with pytest.raises(ValueError, match=r"^metrics='FIDD': must be one of"):
        evaluate(painter, pictures(), metrics=["FIDD"])
    with pytest.raises(ValueError, match=r"^images corners: of shape \(3, 4, 4\); the model draws \(1, 4, 4\)$"):
        evaluate(painter, pictures(3))
    with pytest.raises(ValueError, match=r"^n=0: must be"):
        evaluate(painter, pictures(), 0, metrics=["KID"])
