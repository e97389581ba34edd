"""The torture, at a tiny scale: every part runs, and every part finds a fault that is planted for it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torture
from hypothesis import strategies as st
from torture import __main__ as torturer
from torture import calls, children, disks, kills, memory, mutations, reading, report, threads, victims
from torture import files as damaged
from torture.readers import READERS, Reader
from torture.tally import Row, Tally

from vsmd import checks


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally("part", 0, tmp_path / "failures")


def explored(tally: Tally, do: Callable[[], object]) -> Row:
    with tally.kind("planted") as row:
        calls.explore(tally, row, calls.Kind(st.just(calls.Call("call()", do)), 1, ""), 1)
    return row


# ---- calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("do", "what"), [
    (lambda: int("x"), "ValueError from test_torture.py"), (lambda: dict[str, int]()["x"], "KeyError"),
    (lambda: torch.tensor(float("nan")), "NaN or inf"), (lambda: {"a": [np.array([1.0, np.inf])]}, "NaN or inf"),
    (lambda: np.log(np.zeros(1) - 1), "RuntimeWarning"),
])  # fmt: skip
def test_a_call_that_is_wrong_is_found(tally: Tally, do: Callable[[], object], what: str) -> None:
    row = explored(tally, do)
    assert (row.count, row.failures) == (1, 1)
    (text,) = (path.read_text() for path in tally.folder.glob("*.txt"))
    assert what in text
    assert "reproduce: call()" in text


def test_a_call_that_hangs_or_warns_without_end_is_found(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    import time
    import warnings

    monkeypatch.setattr(calls, "LIMIT", 0.05)
    assert explored(tally, lambda: time.sleep(5)).failures == 1
    assert explored(tally, lambda: [warnings.warn("again", stacklevel=1) for _ in range(9)]).failures == 2


def test_documented_errors_are_fine(tally: Tally) -> None:
    import vsmd

    assert explored(tally, lambda: vsmd.forward_process("CLDD", (2,))).failures == 0
    assert explored(tally, lambda: torch.ones(2)).failures == 0


def test_all_kinds_of_calls_run(tally: Tally) -> None:
    calls.run(tally, 1e-4)
    assert len(tally.rows) >= 15
    assert all(row.count >= 1 for row in tally.rows.values())


# ---- files ---------------------------------------------------------------------------------------------------------


def wrong(path: Path) -> None:
    """A reader that does everything wrong, by the first byte of the file."""
    kind = path.read_bytes()[:1]
    if kind == b"h":
        signal.pause()
    if kind == b"d":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == b"m":
        np.ones(2**24)
    if kind == b"x":
        os.mkdir(mutations.CANARY)
    if kind == b"k":
        raise KeyError(kind)
    if kind == b"l":
        raise ValueError("two\nlines")
    checks.positive(path.name, -1)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[damaged.Worker]:
    monkeypatch.setitem(READERS, "wrong", Reader("x", wrong))
    monkeypatch.setattr(damaged, "LIMIT", 3.0)
    monkeypatch.setattr(reading, "ROOM", 2**26)
    worker = damaged.Worker(tmp_path)
    yield worker
    worker.stop()


def test_every_way_in_which_a_reader_can_be_wrong_is_found(worker: damaged.Worker, tmp_path: Path) -> None:
    outcomes = {}
    for kind in "fhdmxkl":
        (tmp_path / "file").write_text(kind)
        outcomes[kind] = worker.ask("wrong", tmp_path / "file")["outcome"]
    assert outcomes == {
        "f": "refused", "h": "hung", "d": "died", "m": "memory", "x": "refused", "k": "foreign", "l": "unclear",
    }  # fmt: skip
    assert (tmp_path / mutations.CANARY).exists()


def test_a_file_that_runs_is_found(tally: Tally, worker: damaged.Worker, tmp_path: Path) -> None:
    class Damage:
        work, number = tmp_path, 1

        def one(self, reader: Reader) -> tuple[Path, str]:
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "x").write_text("x")
            return tmp_path / "1" / "x", "planted"

    with tally.kind("wrong") as row:
        damaged.judge(tally, row, worker, Damage(), READERS["wrong"])  # type: ignore[arg-type]
    assert row.failures == 1
    assert "a file ran" in next(tally.folder.glob("*.txt")).read_text()


def test_mutations_change_files_and_compressed_ones_from_within() -> None:
    import gzip

    rng, text = np.random.default_rng(0), json.dumps({"a": list(range(99))}).encode()
    for mutation in mutations.PLAIN:
        assert sum(mutation(text, rng) != text for _ in range(5)) >= 3
        assert isinstance(mutation(b"", rng), bytes)
    assert all(gzip.decompress(mutations.within(gzip.compress(text), rng)) is not None for _ in range(9))
    assert {type(json.loads(mutations.value(text, rng))) for _ in range(60)} > {dict}
    assert mutations.PICKLE.startswith(b"cposix\nmkdir")


def test_every_reader_reads_its_sound_file(tmp_path: Path) -> None:
    from torture import seeds

    seeds.make(tmp_path / "sound")
    for name, reader in READERS.items():
        source = tmp_path / "sound" / reader.source
        target = tmp_path / name.replace(" ", "-") / (reader.twin or Path(reader.source).name)
        target.parent.mkdir(parents=True)
        target.symlink_to(source)
        outcome = reading.outcome_of(reader, target)
        assert outcome["outcome"] == "read", (name, outcome)


# ---- kills, disks, memory, threads ---------------------------------------------------------------------------------


def test_lost_work_is_found(tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is not resumed as it was, files that are half written, and processes that a signal does not end."""

    def forgetful(folder: Path) -> None:
        count = len(list(folder.iterdir()))
        (folder / f"{count}.txt").write_text("x" * 9)
        import time

        time.sleep(0.2)
        (folder / "end.txt").write_text(f"{count}")

    monkeypatch.setitem(victims.VICTIMS, "toy", forgetful)
    monkeypatch.setitem(victims.KEPT, "toy", ("end.txt",))
    scene = kills.staged("toy", tmp_path)
    with tally.kind("toy") as row:
        for number in range(4):
            kills.once(tally, row, scene, tmp_path / "toy" / f"{number}", number)
    assert row.failures >= 1
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.safetensors").write_bytes(b"half")
    assert "model.safetensors" in kills.halves(scene, tmp_path / "half")[0]


def test_a_signal_meets_a_replacement(tmp_path: Path) -> None:

    from vsmd import files

    def work() -> None:
        victims.strike(signal.SIGKILL, 1, before=False)
        for i in range(3):
            files.write_atomic(tmp_path / f"{i}.txt", "x")

    assert children.Forked(work, tmp_path / "said").wait() == -signal.SIGKILL
    assert [path.name for path in sorted(tmp_path.glob("*.txt"))] == ["0.txt", "1.txt"]


def test_a_writer_that_leaves_half_a_file_is_found(tally: Tally, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "x").write_bytes(b"x" * 100_000)

    def find() -> None:
        with tally.kind("x") as row, disks.disk(tmp_path / "disk") as mounted:
            disks.attempt(tally, row, "x", write, tmp_path / "disk", mounted, 0.3)
        assert row.failures >= 2, row

    assert children.Forked(find, tmp_path / "said").wait() == 0, (tmp_path / "said").read_text()


def test_memory_that_grows_is_found(tally: Tally) -> None:
    kept: list[np.ndarray] = []

    def leak(look: Callable[[float], None]) -> None:
        for i in range(1, 21):
            kept.append(np.ones(1_000_000))
            look(i)

    def flat(look: Callable[[float], None]) -> None:
        for i in range(1, 21):
            look(i)

    memory.judge(tally, "leak", "steps", 20, leak)
    memory.judge(tally, "flat", "others", 20, flat)
    assert (tally.rows["leak"].failures, tally.rows["flat"].failures) == (1, 0)


def test_other_bits_are_found(tally: Tally) -> None:
    lines = [json.dumps({"a": [0.0, 1.0, 2.0 + e]}) for e in (0.0, 1e-9, 1.0)]
    with tally.kind("x") as row:
        for second, tolerance in ((0, 0.0), (1, 0.0), (1, 1e-6), (2, 1e-6)):
            threads.compared(tally, row, "x", lines[0], lines[second], "", tolerance)
    assert (row.count, row.failures) == (4, 2)


# ---- the whole -----------------------------------------------------------------------------------------------------


def test_a_report_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = {"steps": [(1.0, 10.0), (2.0, 11.0)]}
    rows = [Row("kills", "toy", "a training", 3, 0, 1.5), Row("files", "npz", "copies", 5, 1, 2.0)]
    path = report.write(tmp_path, rows, curves, 0, 1.0, 90.0)
    assert "**8 attempts, 1 failures**" in path.read_text()
    assert "| MB | 10.0 | 11.0 |" in path.read_text()
    assert len((tmp_path / "reliability.csv").read_text().splitlines()) == 3
    monkeypatch.setattr(torturer, "together", lambda names, options: (rows[: len(names)], curves))
    assert torturer.main(["--only", "kills", "--out", str(tmp_path), "--failures", str(tmp_path)]) == 0
    assert torturer.main(["--only", "kills,files", "--out", str(tmp_path), "--failures", str(tmp_path)]) == 1
    assert "1 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        torturer.main(["--only", "kill"])


def test_a_part_that_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "run", lambda tally, scale: 1 / 0)
    options = torturer.options_of(["--failures", str(tmp_path)])
    assert torturer.part("kills", options).lost() == 1
    assert set(torture.PARTS) == {"calls", "kills", "files", "memory", "disks", "threads", "pythons"}
