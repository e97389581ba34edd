"""The studies' panels: what they are, and what is said where data are absent or others."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from panelfiles import series, write

from repro.studies.sets import panels
from repro.studies.sets.panels import Benchmark

needs_data = pytest.mark.skipif(not os.environ.get("VSMD_DATA"), reason="VSMD_DATA is not set")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Path:
        raise URLError("no route to host")

    monkeypatch.setattr(panels, "_download", fail)


@needs_data
def test_exchange_rate_nips() -> None:
    panel = panels.panel("exchange_rate_nips")
    assert panel.values.shape == (8, 6_071 + 150)
    assert (panel.first, str(panel.start), panel.targets.shape) == (6_071, "1990-01-01", (5, 30, 8))


@needs_data
@pytest.mark.parametrize(("kind", "count"), [("load", 95), ("renewables", 42)])
def test_simbench(kind: str, count: int) -> None:
    panel = panels.simbench(kind)
    assert panel.values.shape == (count, 8_784)
    assert panel.first == 8_784 - 168


def test_a_benchmark_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Benchmark("h", 3, 40, 4, 2)
    monkeypatch.setitem(panels.BENCHMARKS, "solar_nips", small)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    values = series()
    write(tmp_path / "solar_nips", values)
    assert np.array_equal(panels.panel("solar_nips").values, values)
    monkeypatch.setitem(panels.BENCHMARKS, "solar_nips", Benchmark("h", 137, 7_009, 4, 2))
    with pytest.raises(ValueError, match=r"holds \(series, training steps, windows\) \(3, 40, 2\); solar_nips has"):
        panels.panel("solar_nips")
    monkeypatch.setitem(panels.BENCHMARKS, "solar_nips", Benchmark("h", 3, 40, 4, 2, digest="0"))
    with pytest.raises(ValueError, match="damaged or another data set"):
        panels.panel("solar_nips")


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exchange_rate_nips.tar.gz").write_bytes(b"no archive")
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"exchange_rate_nips\.tar\.gz: is damaged or another file"):
        panels.panel("exchange_rate_nips")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["electricity_nips", "simbench_load"])
def test_absent_data_say_what_to_provide(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide = r"point VSMD_DATA to a folder that holds"
    monkeypatch.delenv("VSMD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"{name}: not found, VSMD_DATA is not set.*{provide}"):
        panels.panel(name)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"in VSMD_DATA=.*{provide}") as caught:
        panels.panel(name)
    assert "\n" not in str(caught.value)
    if name == "electricity_nips":
        assert "no route to host" in str(caught.value)


def test_a_download_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from gluonts.dataset.repository import datasets

    seen: list[float | None] = []

    def materialize(name: str) -> str:
        seen.append(socket.getdefaulttimeout())
        return "."

    monkeypatch.setattr(datasets, "materialize_dataset", materialize)
    monkeypatch.delenv("VSMD_DATA", raising=False)
    assert panels.locate("solar_nips") == Path()
    assert seen == [panels.PATIENCE]
    assert socket.getdefaulttimeout() is None


def test_unknown_panel_of_the_studies() -> None:
    with pytest.raises(ValueError, match="did you mean 'solar_shaped'"):
        panels.panel("solar_shape")


@pytest.mark.parametrize(("arrays", "message"), [
    (None, "cannot be read as npz"), ({}, r"'values' is missing"), ({"values": np.zeros((9, 2))}, "'names' is missing"),
    ({"values": np.zeros((9, 2)), "names": ["a", "b"], "start": "2016"}, "9 time steps; must be at least"),
    ({"values": np.array([{}]), "names": ["a"], "start": "2016"}, "allow_pickle=False"),
])  # fmt: skip
def test_damaged_profiles_are_named(
    arrays: dict[str, object] | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "simbench_hourly" / "load_hourly.npz"
    path.parent.mkdir()
    path.write_bytes(b"no archive")
    if arrays is not None:
        np.savez(path, **arrays)  # type: ignore[arg-type]
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=rf"load_hourly\.npz.*{message}") as caught:
        panels.panel("simbench_load")
    assert "\n" not in str(caught.value)
