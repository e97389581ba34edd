"""Named panels: what the shipped data are, and what is said where data are absent or others."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from panelfiles import series, write

from vsmd.data import gluonts_files, panel_sources
from vsmd.data.panel_sources import Benchmark
from vsmd.data.panels import Panel

needs_data = pytest.mark.skipif(not os.environ.get("VSMD_DATA"), reason="VSMD_DATA is not set")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Path:
        raise URLError("no route to host")

    monkeypatch.setattr(gluonts_files, "_download", fail)


def test_ecb_rates_are_what_they_are_said_to_be() -> None:
    panel = panel_sources.ecb_rates()
    assert panel.values.shape == (17, 7_126)
    assert panel.times is not None
    assert [str(t)[:10] for t in panel.times[[0, -1]]] == ["1999-01-04", "2026-10-30"]
    assert panel.names[:2] == ("USD", "JPY")
    assert panel.values[:2, 0].tolist() == [1.1789, 133.73]  # first fixing of the euro
    assert (panel.first, panel.ends[-1]) == (7_126 - 150, 7_126 - 30)


@needs_data
def test_exchange_rate_nips() -> None:
    panel = panel_sources.panel("exchange_rate_nips")
    assert panel.values.shape == (8, 6_071 + 150)
    assert (panel.first, str(panel.start), panel.targets.shape) == (6_071, "1990-01-01", (5, 30, 8))


@needs_data
@pytest.mark.parametrize(("kind", "count"), [("load", 95), ("renewables", 42)])
def test_simbench(kind: str, count: int) -> None:
    panel = panel_sources.simbench(kind)
    assert panel.values.shape == (count, 8_784)
    assert panel.first == 8_784 - 168


def test_a_benchmark_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Benchmark("h", 3, 40, 4, 2)
    monkeypatch.setitem(panel_sources.BENCHMARKS, "solar_nips", small)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    values = series()
    write(tmp_path / "solar_nips", values)
    assert np.array_equal(panel_sources.panel("solar_nips").values, values)
    monkeypatch.setitem(panel_sources.BENCHMARKS, "solar_nips", Benchmark("h", 137, 7_009, 4, 2))
    with pytest.raises(ValueError, match=r"holds \(series, training steps, windows\) \(3, 40, 2\); solar_nips has"):
        panel_sources.panel("solar_nips")
    monkeypatch.setitem(panel_sources.BENCHMARKS, "solar_nips", Benchmark("h", 3, 40, 4, 2, digest="0"))
    with pytest.raises(ValueError, match="damaged or another data set"):
        panel_sources.panel("solar_nips")


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exchange_rate_nips.tar.gz").write_bytes(b"no archive")
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"exchange_rate_nips\.tar\.gz: is damaged or another file"):
        panel_sources.panel("exchange_rate_nips")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["electricity_nips", "simbench_load"])
def test_absent_data_say_what_to_provide(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide = r"point VSMD_DATA to a folder that holds"
    monkeypatch.delenv("VSMD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"{name}: not found, VSMD_DATA is not set.*{provide}"):
        panel_sources.panel(name)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"in VSMD_DATA=.*{provide}") as caught:
        panel_sources.panel(name)
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
    assert gluonts_files.locate("solar_nips") == Path()
    assert seen == [gluonts_files.PATIENCE]
    assert socket.getdefaulttimeout() is None


def test_a_panel_from_outside_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Panel("mine", "D", "2020-01-01", series(), ("a", "b", "c"), prediction_length=4, windows=2)
    with pytest.raises(ValueError, match=r"^panel='mine': must be one of"):
        panel_sources.panel("mine")
    monkeypatch.setitem(panel_sources.PANELS, "mine", lambda: mine)
    assert panel_sources.panel("mine") is mine


def test_unknown_panel() -> None:
    with pytest.raises(ValueError, match="did you mean 'ecb_rates'"):
        panel_sources.panel("ecb_rate")
