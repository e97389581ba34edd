"""A run's log: what of a damaged one is kept, and that a run goes on with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vsmd.images import logs

HEAD = ",".join(logs.COLUMNS)
ROW = "5,40,1.5,,0.5,,,,"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> logs.Log:
    monkeypatch.setattr(logs, "_board", lambda folder: None)
    return logs.Log(tmp_path, steps=10, batch_size=8)


@pytest.mark.parametrize(("text", "steps"), [
    (f"{HEAD}\n{ROW}\n", ["5"]), (f"{HEAD}\n{ROW}\n9,72", ["5"]), (f"{HEAD}\n{ROW},7,8\n", []),
    (f"{HEAD},mine\n{ROW},3\n", []), (f"{HEAD}\n{ROW}\nx,1,1,,,,,,\n5,1,soon,,,,,,\n", ["5"]), ("a,b\n1,2\n", []),
    (f"{HEAD}\n{ROW}\n{'9' * 5_000},1,1,,,,,,\n", ["5"]), (f"{HEAD}\n{ROW}\n{'7' * 200_000}\n", ["5"]), ("", []),
])  # fmt: skip
def test_rows_that_are_whole_are_kept(log: logs.Log, text: str, steps: list[str]) -> None:
    log.path.write_text(text)
    assert [row["step"] for row in log.begin(7)] == steps
    log.row(8, loss=0.25)
    assert [line.split(",")[0] for line in log.path.read_text().splitlines()] == ["step", *steps, "8"]


def test_other_bytes_and_a_pipe(log: logs.Log) -> None:
    log.path.write_bytes(HEAD.encode() + b"\n" + ROW.encode() + b"\n\xff\xfe\n")
    assert len(log.begin(7)) == 1
    log.path.unlink()
    os.mkfifo(log.path)
    assert log.begin(7) == []
