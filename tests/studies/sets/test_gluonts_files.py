"""GluonTS's files: the same panel from folder and archive, plain and compressed, and every way they can be wrong."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panelfiles import HORIZON, STEPS, WINDOWS, series, write

from repro.studies.sets.gluonts_files import read
from vsmd.data import tables


@pytest.mark.parametrize("kind", ["folder", "compressed", "archive"])
def test_the_same_panel_from_every_layout(kind: str, tmp_path: Path) -> None:
    values = series()
    values[1, 7] = np.nan
    path = write(tmp_path / "small", values, zipped=kind == "compressed")
    if kind == "archive":
        with tarfile.open(tmp_path / "small.tar.gz", "w:gz") as archive:
            archive.add(path, "small")
        path = tmp_path / "small.tar.gz"
    panel = read(path, "small", "h", HORIZON)
    assert np.array_equal(panel.values, values, equal_nan=True)
    assert (panel.first, panel.windows, panel.freq, str(panel.start)) == (STEPS, WINDOWS, "h", "2024-01-01 00:00")


def test_what_gluonts_itself_writes(tmp_path: Path) -> None:
    from gluonts.dataset.common import ListDataset, MetaData, TrainDatasets
    from gluonts.dataset.jsonl import JsonLinesWriter

    values = series()

    def items(*ends: int) -> Any:
        return ListDataset([{"start": "2024-01-01", "target": row[:e]} for e in ends for row in values], freq="h")

    meta = MetaData(freq="h", prediction_length=HORIZON)
    TrainDatasets(meta, items(STEPS), items(STEPS + 4, STEPS + 8)).save(str(tmp_path / "own"), JsonLinesWriter())
    panel = read(tmp_path / "own", "own", "h", HORIZON)
    assert np.array_equal(panel.values, values.astype(np.float32))


def test_late_starts_are_missing_values(tmp_path: Path) -> None:
    path, values = write(tmp_path / "late", series()), series()
    for part in ("train", "test"):
        file = path / part / f"{part}.json"
        items = [json.loads(line) for line in file.read_text().splitlines()]
        for item in items[1::3]:
            item.update(start="2024-01-01 05:00:00", target=item["target"][5:])
        file.write_text("\n".join(map(json.dumps, items)))
    panel = read(path, "late", "h", HORIZON)
    values[1, :5] = np.nan
    assert np.array_equal(panel.values, values, equal_nan=True)


def spoil(path: Path, what: str) -> None:
    def change(part: str, which: int, **new: Any) -> None:
        file = path / part / f"{part}.json"
        items = [json.loads(line) for line in file.read_text().splitlines()]
        items[which].update(new)
        file.write_text("\n".join(map(json.dumps, items)))

    if what == "another past":
        change("test", -2, target=[9.0] * 48)
    elif what == "count":
        file = path / "test" / "test.json"
        file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    elif what == "differing lengths":
        change("train", 1, target=[1.0, 2.0] * 19)
    elif what == "differing test lengths":
        change("test", -1, target=series()[2, :45].tolist())
    elif what == "not JSON":
        (path / "train" / "train.json").write_text("{")
    elif what == "no target":
        (path / "train" / "train.json").write_text('{"start": "2024-01-01"}')
    elif what == "no test":
        (path / "test" / "test.json").unlink()
        (path / "test" / "._data.json").unlink()
    elif what == "no folder":
        (path / "train").rename(path / "training")
    elif what == "deep":
        (path / "train" / "train.json").write_text('{"start": "2024-01-01", "target": ' + "[" * 200_000)
    elif what == "a table":
        change("train", 0, target=[[1.0, 2.0]])
    elif what == "start":
        change("train", 1, start="someday")
    elif what == "loop":
        (path / "test" / "more.json").symlink_to("more.json")
    elif what == "bomb":
        (path / "train" / "more.json.gz").write_bytes(gzip.compress(bytes(2**22)))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("another past", "the test part does not extend the training part in series 2"),
        ("count", "3 training and 5 test series; must be as many in each test window"),
        ("differing lengths", "training series of differing lengths: 38 … 40 steps"),
        ("differing test lengths", "test series of differing lengths: 45 … 48 steps"),
        ("not JSON", "is damaged or another file"),
        ("no target", "is damaged or another file .'target'."),
        ("no test", "3 training and 0 test series"),
        ("no folder", "is damaged or another file"),
        ("deep", r"is damaged or another file \(nested too deeply\)"),
        ("a table", "a target must be one row of numbers"),
        ("start", "start='someday': must be a time stamp"),
        ("loop", r"more\.json is no regular file"),
        ("bomb", r"more\.json\.gz has more than 2 MiB unpacked, which is the bound"),
    ],
)
def test_bad_files_are_one_clear_line(what: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 2**21)
    path = write(tmp_path / "small", series())
    spoil(path, what)
    with pytest.raises(ValueError, match=message) as caught:
        read(path, "small", "h", HORIZON)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("ends", "message"),
    [((44, 50), r"test windows of lengths \[44, 50\]; must be 4 steps apart"), ((36, 40), "does not extend")],
)
def test_other_windows(ends: tuple[int, ...], message: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 50))
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "small", values, ends=ends), "small", "h", HORIZON)


def test_a_loop_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "loop.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for one, other in (("a", "b"), ("b", "a")):
            member = tarfile.TarInfo(f"small/train/{one}.json")
            member.type, member.linkname = tarfile.SYMTYPE, f"{other}.json"
            archive.addfile(member)
    with pytest.raises(ValueError, match="is damaged or another file") as caught:
        read(path, "small", "h", HORIZON)
    assert str(path) in str(caught.value)
