"""The named real sets: sizes, what is documented, and that parts share nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.studies.sets import points
from vsmd.data import images

NEEDS_DATA = {"cifar10-grey", "cifar10-colour", "load-days", "renewables-days", "load-hours", "exchange"}
NEEDS_DATA |= {"renewables-hours"}
SIZES = {  # rows and columns
    "patches-grey": (25_480, 64), "patches-colour": (25_480, 192), "cifar10-grey": (60_000, 64),
    "cifar10-colour": (60_000, 192), "digits": (1_797, 64), "mnist5k-axes": (5_000, 64), "ecb-days": (7_125, 17),
    "ecb-weeks": (1_425, 85), "load-days": (366 * 72, 24), "renewables-days": (366 * 28, 24), "load-hours": (8_784, 95),
    "exchange": (6_220, 8), "breast-cancer": (569, 30), "renewables-hours": (8_784, 42), "diabetes": (442, 9),
}  # fmt: skip
SLOW = {"patches-colour", "cifar10-colour", "cifar10-grey", "load-hours"}  # the same code as another one's


def test_every_set_is_named() -> None:
    assert set(points.SETS) == set(SIZES)
    assert set(points.KEPT) <= set(SIZES)
    with pytest.raises(ValueError, match=r"^points='digit': must be one of .* \(did you mean 'digits'\?\)$"):
        points.load("digit")


@pytest.mark.parametrize("name", sorted(set(SIZES) - SLOW))
def test_sizes_and_documentation(name: str) -> None:
    if name in NEEDS_DATA and not os.environ.get("VSMD_DATA"):
        pytest.skip("VSMD_DATA is not set")
    data = points.load(name)
    row = points.documented(data)
    assert row["dataset"] == data.name == name
    sizes = [len(x) for x in (data.train, data.validation, data.test)]
    assert (sum(sizes), len(data.columns)) == SIZES[name]
    assert sizes[0] > sizes[2] > 0.1 * sum(sizes)
    assert "(" in data.description
    assert int(row["rank"]) <= int(row["dim"])
    assert (row["rank"] == row["dim"]) == (name != "renewables-hours")
    assert float(row["anisotropy"]) > 10
    everything = torch.cat([data.train, data.validation, data.test]).numpy()
    assert len(np.unique(everything, axis=0)) > 0.95 * len(everything)


def test_patches_share_no_region() -> None:
    """The 49 patches of a square lie in one part: each part holds a multiple of 49."""
    data = points.load("patches-grey")
    assert [len(x) % 49 for x in (data.train, data.validation, data.test)] == [0, 0, 0]
    again = points.load("patches-grey")
    assert torch.equal(data.test, again.test)
    assert 0 <= float(data.train.min()) <= float(data.train.max()) < 1


def test_axes_are_of_the_training_part() -> None:
    data = points.load("mnist5k-axes")
    covariance = data.train.double().T.cov()
    off = covariance - covariance.diagonal().diag()
    assert float(off.abs().max()) < 1e-4 * float(covariance.max())
    assert bool((covariance.diagonal().diff() < 0).all())
    test = data.test.double().T.cov()
    assert float((test - test.diagonal().diag()).abs().max()) > 1e-2 * float(test.max())


def test_returns_add_up() -> None:
    """A week's row holds five days' rows, one after the other; a rate's returns sum to its log-change in per cent."""
    days, weeks = points.load("ecb-days"), points.load("ecb-weeks")
    all_days = torch.cat([days.train, days.validation, days.test])
    week = weeks.train[0].view(5, 17)
    assert all(bool((all_days == day).all(1).any()) for day in week)
    assert weeks.columns[0] == "USD day 1"
    assert float(torch.cat([weeks.train, weeks.validation, weeks.test]).sum()) == pytest.approx(
        float(all_days.sum()), rel=1e-3
    )


def test_patches_of_images_are_cut_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images of one value each: a patch has that value but for its noise, and test images are the test part."""
    values = torch.arange(60, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    monkeypatch.setitem(images.SETS, "cifar10", lambda: images.ImageSet("cifar10", values[:45], values[45:]))
    data = points.load("cifar10-colour")
    assert data.columns[:2] == ("r00", "r01")
    assert len(data.columns) == 192
    assert torch.equal((data.test * 256).floor().mean(1), torch.arange(45.0, 60.0))
    assert [len(data.train), len(data.validation)] == [30, 15]
    grey = points.load("cifar10-grey")
    assert torch.allclose((grey.test * 256).mean(1), torch.arange(45.5, 60.5), atol=0.2)


def test_a_day_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """366 days of two profiles and one that is mostly 0: rows are days, profiles side by side, none of the third."""
    hours = np.arange(8_784.0, dtype=np.float32)
    profiles = np.stack([hours, hours + 0.5, np.where(hours < 100, hours, 0)], 1)
    (tmp_path / "simbench_hourly").mkdir()
    file = tmp_path / "simbench_hourly" / "load_hourly.npz"
    np.savez(file, values=profiles, names=np.array(["a", "b", "c"]), start=np.array("2016-01-01T00:00"))
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    data = points.load("load-days")
    rows = torch.cat([data.train, data.validation, data.test])
    assert len(rows) == 2 * 366
    assert bool((rows.diff(dim=1) == 1).all())
    assert bool((rows[:, 0] % 24 == torch.where(rows[:, 0] % 1 > 0, 0.5, 0.0)).all())
    days = [set((part[:, 0] // 24).tolist()) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*days)) == sum(map(len, days)) == 366
    assert points.load("load-hours").columns == ("a", "b", "c")


def test_data_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSMD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"^simbench_load: not found, VSMD_DATA is not set; .*[^\n]$"):
        points.load("load-days")
